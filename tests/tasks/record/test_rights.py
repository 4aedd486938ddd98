"""`deployments/rbac.yaml` on a sandbox that keeps to it: the record can be kept with it, and nothing near it be touched."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import config

from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.domain.errors import ForbiddenError
from tasks.domain.journal import Ended
from tasks.record.journal_store import JournalStore
from tasks.record.lease import Lease, holder
from tests.domain.journals import ONE, OTHER, at, journal, set_image

MANIFEST = Path(__file__).parents[3] / "deployments" / "rbac.yaml"
GROUPS = {"v1": "/api/v1", "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1"}
ACCOUNT = "/api/v1/namespaces/apinizer-upgrade/serviceaccounts/apinizer-upgrade"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=10) as running:
        yield running


@pytest.fixture(scope="module")
def admin(sandbox: Sandbox) -> KubernetesApi:
    return KubernetesApi(config.new_client_from_config(str(sandbox.kubeconfig)))


@pytest.fixture(scope="module")
def account(sandbox: Sandbox, admin: KubernetesApi, tmp_path_factory: pytest.TempPathFactory) -> KubernetesApi:
    """The API as the manifest's service account has it."""
    for thing in yaml.safe_load_all(MANIFEST.read_text()):
        space = thing["metadata"].get("namespace")
        plural = thing["kind"].lower() + "s"
        admin.create(f"{GROUPS[thing['apiVersion']]}/{f'namespaces/{space}/' if space else ''}{plural}", thing)
    token = admin.create(f"{ACCOUNT}/token", {"spec": {"audiences": []}})["status"]["token"]
    kubeconfig: dict[str, Any] = json.loads(sandbox.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": token}
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return KubernetesApi(config.new_client_from_config(str(path)))


def test_the_record_is_kept_with_it(account: KubernetesApi) -> None:
    store = JournalStore(account, "apinizer")
    run = journal("a")
    with Lease(account, "apinizer", owner=ONE, run="a", doing="the test"):
        store.create(run)
        store.save(run.begin(set_image()))
        store.save(run.begin(set_image()).end(at(9), Ended.ABANDONED))
        found = holder(account, "apinizer")
        assert found is not None
        assert found.run == "a"
    with Lease(account, "apinizer", owner=OTHER, run="b", doing="the next"):
        assert [j.how for j in store.all()] == [Ended.ABANDONED]
    assert store.prune(0) == ""
    assert store.all() == ()


def test_who_would_scale_up_again_can_be_seen(account: KubernetesApi) -> None:
    assert account.list("/apis/autoscaling/v1/namespaces/apinizer/horizontalpodautoscalers").items == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/namespaces/prod/configmaps"),
        ("GET", "/api/v1/namespaces/prod/configmaps"),
        ("POST", "/apis/coordination.k8s.io/v1/namespaces/prod/leases"),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/apinizer/leases/another"),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/apinizer/leases/apinizer-upgrade"),
        ("GET", "/api/v1/namespaces/apinizer/secrets/another"),
        ("DELETE", "/apis/apps/v1/namespaces/apinizer/deployments/manager"),
        ("DELETE", "/api/v1/namespaces/apinizer/pods/x"),
    ],
)
def test_no_more_than_that(account: KubernetesApi, method: str, path: str) -> None:
    ask = {
        "POST": lambda: account.create(path, {"metadata": {"name": "x"}}),
        "GET": lambda: account.get(path),
        "DELETE": lambda: account.delete(path),
    }
    with pytest.raises(ForbiddenError):
        ask[method]()
