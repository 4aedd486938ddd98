"""Which images a cluster uses and may go back to: from objects, and asked of the sandbox."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.cluster_client import open_client
from blocks.settings import ClusterSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_use import pods_use, read_use, templates_use, versions_before
from tasks.cluster.inventory import ClusterScope, read_inventory
from tasks.cluster.nodes import pod_specs, read_nodes
from tasks.domain.component import Component
from tasks.domain.discovery import deployment_facts
from tasks.domain.errors import ForbiddenError
from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.placement import eligible

Json = dict[str, Any]
WORKER = "docker.io/apinizercloud/worker:"
DIGEST = "sha256:" + "a" * 64


def pod(spec: Json, status: Json | None = None) -> Json:
    return {"metadata": {"namespace": "prod", "name": "p"}, "spec": spec, "status": status or {}}


def test_every_container_of_a_pod_uses_its_image() -> None:
    use = pods_use(
        [
            pod(
                {
                    "initContainers": [{"name": "i", "image": "apinizercloud/worker:2025.01.0"}],
                    "containers": [{"name": "c", "image": "apinizercloud/worker:2025.04.3"}],
                    "ephemeralContainers": [{"name": "e", "image": "busybox"}],
                }
            )
        ]
    )
    assert set(use.names) == {f"{WORKER}2025.01.0", f"{WORKER}2025.04.3", "docker.io/library/busybox"}
    assert use.names[f"{WORKER}2025.04.3"] == "the pod prod/p uses it"


@pytest.mark.parametrize(
    "told", [DIGEST, f"docker.io/apinizercloud/worker@{DIGEST}", f"docker-pullable://apinizercloud/worker@{DIGEST}"]
)
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_what_the_runtime_resolved_counts_too(kind: str, told: str) -> None:
    use = pods_use([pod({"containers": []}, {kind: [{"image": "apinizercloud/worker:x", "imageID": told}]})])
    assert set(use.digests) == {DIGEST}
    assert set(use.names) == {f"{WORKER}x"}


def test_templates_of_every_kind() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "apinizercloud/worker:2025.01.0"}]}}
    thing = {"metadata": {"namespace": "prod", "name": "nightly"}, "spec": {"template": template}}
    cron = {**thing, "spec": {"jobTemplate": {"spec": {"template": template}}}}
    for use in (
        templates_use([thing], ("spec", "template")),
        templates_use([cron], ("spec", "jobTemplate", "spec", "template")),
    ):
        assert use.names == {f"{WORKER}2025.01.0": "prod/nightly names it"}
    assert templates_use([{"metadata": {}, "spec": {}}], ("spec", "template")).names == {}


def deployment(version: str) -> Json:
    container = {"name": "c", "image": f"apinizercloud/worker:{version}"}
    return {
        "metadata": {"namespace": "prod", "name": "w", "uid": "u", "resourceVersion": "1"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


def replicaset(version: str, revision: int, owner: str = "u") -> Json:
    return {
        "metadata": {
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"controller": True, "uid": owner}],
        },
        "spec": deployment(version)["spec"],
    }


@pytest.mark.parametrize(
    ("history", "before"),
    [
        pytest.param([("2025.07.0", 2), ("2025.04.3", 1)], ["2025.04.3"], id="the one before"),
        pytest.param([("2025.04.3", 2), ("2025.01.0", 1), ("2025.07.0", 3)], ["2025.04.3"], id="by revision"),
        pytest.param([("2025.01.0", 2), ("2025.04.3", 1), ("2025.07.0", 3)], ["2025.01.0"], id="not by version"),
        pytest.param(
            [("2025.11.1", 2), ("2025.04.3", 1), ("2025.07.0", 3)], ["2025.04.3"], id="a newer one is no way back"
        ),
        pytest.param(
            [("2025.04.3", 10), ("2025.01.0", 9), ("2025.07.0", 11)], ["2025.04.3"], id="revisions are numbers"
        ),
        pytest.param([("latest", 2), ("2025.04.3", 1)], ["2025.04.3"], id="a tag that is no version"),
        pytest.param([("2025.07.0", 1)], [], id="never upgraded"),
        pytest.param([], [], id="no history kept"),
    ],
)
def test_the_version_that_a_deployment_had_before(history: list[tuple[str, int]], before: list[str]) -> None:
    facts = deployment_facts(deployment("2025.07.0"), "")
    assert facts is not None
    strangers = [replicaset("2024.01.6", 5, owner="somebody")]
    found = versions_before(Inventory(deployments=(facts,)), [*strangers, *(replicaset(*each) for each in history)])
    assert [str(version) for version in found] == before
    assert all("prod/w had it before" in why for why in found.values())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(version="2025.04.3", speed=10.0) as running:
        yield running


def api_of(kubeconfig: Path) -> KubernetesApi:
    return KubernetesApi(open_client(ClusterSettings(kubeconfig_path=str(kubeconfig))))


def test_a_cluster_that_is_asked(sandbox: Sandbox) -> None:
    use = read_use(api_of(sandbox.kubeconfig))
    assert {f"docker.io/apinizercloud/{name}:2025.04.3" for name in ("manager", "worker", "cache", "portal")} <= set(
        use.names
    )
    assert use.digests, "the pods' own image IDs"


def test_who_may_not_see_everything_may_not_judge(sandbox: Sandbox, tmp_path: Path) -> None:
    config = sandbox.restricted_kubeconfig(tmp_path / "k", "visitor", "", [])
    with pytest.raises(ForbiddenError, match="may not list") as refused:
        read_use(api_of(config))
    assert "would be removed" in refused.value.observed
    with pytest.raises(ForbiddenError) as unlisted:
        read_nodes(api_of(config))
    assert "ClusterRole" in unlisted.value.next


def test_nodes_and_pod_specs_for_placement(sandbox: Sandbox) -> None:
    api = api_of(sandbox.kubeconfig)
    nodes = read_nodes(api)
    assert [(node.name, node.ready, node.platform) for node in nodes] == [
        ("node-a", True, "linux/amd64"),
        ("node-b", True, "linux/amd64"),
    ]
    inventory = read_inventory([ClusterScope(api)])
    manager = inventory.of(Component.MANAGER)[0].key
    gone = DeploymentKey(cluster="", namespace="prod", name="was-removed")
    specs = pod_specs(api, [manager, gone])
    assert set(specs) == {manager}
    assert eligible(specs[manager], nodes).nodes == ("node-a", "node-b")
