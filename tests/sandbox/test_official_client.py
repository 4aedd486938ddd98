"""The official Python client as a judge: it parses every answer into its own types."""

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config, watch

from deployments.sandbox.launch import Sandbox


@pytest.fixture(scope="module")
def api(sandbox: Sandbox) -> Iterator[Any]:
    with config.new_client_from_config(str(sandbox.kubeconfig)) as opened:
        yield opened


def test_everything_that_is_there_can_be_read(api: Any) -> None:
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    assert {one.metadata.name for one in core.list_namespace().items} >= {
        "apinizer",
        "prod",
        "test",
        "portal",
        "integration",
    }
    nodes = core.list_node().items
    assert [one.metadata.name for one in nodes] == ["node-a", "node-b"]
    assert any("docker.io/apinizercloud/worker:2025.04.3" in image.names for image in nodes[0].status.images)
    deployment = apps.read_namespaced_deployment("worker-prod", "prod")
    assert deployment.status.conditions[0].status == "True"
    owned = apps.list_namespaced_replica_set("prod", label_selector="app=worker-prod").items
    assert [one.metadata.owner_references[0].uid for one in owned] == [deployment.metadata.uid]
    pods = core.list_namespaced_pod("prod", label_selector="app=worker-prod").items
    assert {one.metadata.owner_references[0].uid for one in pods} == {owned[0].metadata.uid}
    assert {one.spec.node_name for one in pods} == {"node-a", "node-b"}
    assert all(one.status.container_statuses[0].ready for one in pods)
    assert "ready" in core.read_namespaced_pod_log(pods[0].metadata.name, "prod")
    assert set(core.read_namespaced_secret("mongo-db-credentials", "prod").data) == {"dbUrl", "dbName"}
    assert client.VersionApi(api).get_code().git_version == "v1.20.2"
    groups = {one.name for one in client.ApisApi(api).get_api_versions().groups}
    assert {"apps", "coordination.k8s.io", "policy", "autoscaling"} <= groups


def test_a_rollout_is_watched(api: Any) -> None:
    apps = client.AppsV1Api(api)
    listed = apps.list_namespaced_deployment("integration")
    body = {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}}
    changed = apps.patch_namespaced_deployment("apinizer-integration", "integration", body)
    assert changed.metadata.generation == 2
    seen = []
    stream = watch.Watch()
    for event in stream.stream(
        apps.list_namespaced_deployment,
        "integration",
        resource_version=listed.metadata.resource_version,
        timeout_seconds=30,
    ):
        status = event["object"].status
        seen.append(event["type"])
        if (
            status.observed_generation == 2
            and status.available_replicas == status.replicas == status.updated_replicas == 1
        ):
            stream.stop()
    assert set(seen) == {"MODIFIED"}
    assert len(seen) > 3


def test_a_stale_update_and_an_access_review(api: Any) -> None:
    core = client.CoreV1Api(api)
    made = core.create_namespaced_config_map("default", {"metadata": {"name": "journal"}, "data": {"a": "1"}})
    core.patch_namespaced_config_map("journal", "default", {"data": {"a": "2"}})
    made.data = {"a": "3"}
    with pytest.raises(client.ApiException) as caught:
        core.replace_namespaced_config_map("journal", "default", made)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    review = {
        "spec": {
            "resourceAttributes": {"verb": "patch", "group": "apps", "resource": "deployments", "namespace": "prod"}
        }
    }
    assert client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed


def test_leases_hold_one_owner(api: Any) -> None:
    leases = client.CoordinationV1Api(api)
    body = {"metadata": {"name": "upgrade"}, "spec": {"holderIdentity": "one", "leaseDurationSeconds": 30}}
    leases.create_namespaced_lease("apinizer", body)
    with pytest.raises(client.ApiException) as caught:
        leases.create_namespaced_lease("apinizer", body)
    assert caught.value.status == 409
    first, second = (leases.read_namespaced_lease("upgrade", "apinizer") for _ in range(2))
    first.spec.holder_identity = "two"
    leases.replace_namespaced_lease("upgrade", "apinizer", first)
    second.spec.holder_identity = "three"
    with pytest.raises(client.ApiException) as caught:
        leases.replace_namespaced_lease("upgrade", "apinizer", second)
    assert caught.value.status == 409
    assert leases.read_namespaced_lease("upgrade", "apinizer").spec.holder_identity == "two"


def test_a_secret_is_replaced_without_its_type(api: Any) -> None:
    core = client.CoreV1Api(api)
    core.create_namespaced_secret("default", {"metadata": {"name": "kept"}, "stringData": {"a": "1"}})
    core.replace_namespaced_secret("kept", "default", {"metadata": {"name": "kept"}, "data": {"a": "Mg=="}})
    assert core.read_namespaced_secret("kept", "default").data == {"a": "Mg=="}
