"""Workers in another cluster than the manager's: one installation, two Kubernetes APIs."""

import base64
import json
from pathlib import Path
from typing import Any

from blocks.installation import provide
from blocks.settings import ClusterSettings, InstallationSettings
from deployments.embedded import EmbeddedServer
from deployments.sandbox.launch import Sandbox
from tests.flows.conftest import SPEED
from tests.flows.world import ALL, MANAGER, NEW, OLD, World

REMOTE = frozenset({"prod/worker-prod", "prod/cache-prod"})


def test_a_remote_gateway_follows_the_manager_of_the_other_cluster(
    prefect_server: EmbeddedServer, world: World, tmp_path: Path
) -> None:
    from flows.upgrade import upgrade

    with Sandbox(version=OLD, speed=SPEED) as other:
        remote = World(other)
        leave_the_gateway_alone(remote, reading=world)
        for key in REMOTE:
            assert world.ask("DELETE", world.path(key))[0] == 200
        settings = InstallationSettings(
            clusters=(
                ClusterSettings(name="center", kubeconfig_path=str(world.sandbox.kubeconfig)),
                ClusterSettings(name="remote", kubeconfig_path=str(other.kubeconfig)),
            ),
            backup_dir=str(tmp_path / "backups"),
            environments=("test", "prod", "dr"),
        )
        provide("two", settings)
        report: dict[str, Any] = upgrade(to=NEW, installation="two")

        assert report["complete"], report
        assert world.at(NEW) == ALL - REMOTE
        assert remote.at(NEW) == REMOTE
        assert {json.loads(a)["version"] for a in remote.answered().values()} == {NEW}
        manager_set = world.get(world.path(MANAGER))["metadata"]["annotations"]["kubernetes.io/change-cause"]
        assert manager_set == f"apinizer-upgrade: {OLD} to {NEW}, run {report['run']}"
        keys = {row["deployment"] for row in report["rows"]}
        assert "prod/worker-prod in remote" in keys


def leave_the_gateway_alone(remote: World, reading: World) -> None:
    """Make the second sandbox a remote gateway: only an environment, which reads the first one's database."""
    for key in ALL - REMOTE:
        assert remote.ask("DELETE", remote.path(key))[0] == 200
    url = base64.b64encode(reading.database_url().encode()).decode()
    remote.change("/api/v1/namespaces/prod/secrets/mongo-db-credentials", {"data": {"dbUrl": url}})
