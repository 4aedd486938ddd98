"""Discovery, get and list: shapes, selectors, pages."""

import pytest

from .api import Api, eventually, path
from .world import Namespace, configmap, deployment


def test_health_and_version(api: Api) -> None:
    assert [api.text(each) for each in ("/readyz", "/livez", "/healthz")] == ["ok"] * 3
    version = api.get("/version")
    assert {"major", "minor", "gitVersion"} <= version.keys()
    assert version["gitVersion"].startswith("v")


def test_discovery_names_what_clients_look_for(api: Api) -> None:
    assert "v1" in api.get("/api")["versions"]
    groups = {each["name"]: each["preferredVersion"]["groupVersion"] for each in api.get("/apis")["groups"]}
    assert groups["apps"] == "apps/v1"
    assert groups["coordination.k8s.io"] == "coordination.k8s.io/v1"
    apps = {each["name"]: each for each in api.get("/apis/apps/v1")["resources"]}
    assert apps["deployments"]["kind"] == "Deployment"
    assert apps["deployments"]["namespaced"] is True
    assert {"get", "list", "watch", "create", "update", "patch", "delete"} <= set(apps["deployments"]["verbs"])
    assert {"deployments/scale", "replicasets"} <= apps.keys()
    core = {each["name"]: each for each in api.get("/api/v1")["resources"]}
    assert {"pods", "pods/log", "pods/proxy", "services/proxy", "events", "secrets", "configmaps"} <= core.keys()
    assert core["nodes"]["namespaced"] is False
    assert core["pods"]["namespaced"] is True


def test_an_object_says_what_it_is(space: Namespace) -> None:
    space.create("deployments", deployment("app", replicas=0))
    seen = space.get("deployments", "app")
    assert (seen["apiVersion"], seen["kind"]) == ("apps/v1", "Deployment")
    meta = seen["metadata"]
    assert (meta["name"], meta["namespace"], meta["generation"]) == ("app", space.name, 1)
    assert isinstance(meta["resourceVersion"], str)
    assert meta["resourceVersion"].isdigit()
    assert len(meta["uid"]) == 36
    assert meta["creationTimestamp"].endswith("Z")
    assert "." not in meta["creationTimestamp"]


def test_a_list_has_a_version_and_its_items_no_kind(space: Namespace) -> None:
    made = space.create("deployments", deployment("app", replicas=0))
    seen = space.api.get(space.path("deployments"))
    assert (seen["kind"], seen["apiVersion"]) == ("DeploymentList", "apps/v1")
    assert int(seen["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
    assert [each["metadata"]["name"] for each in seen["items"]] == ["app"]
    assert "kind" not in seen["items"][0]
    assert "apiVersion" not in seen["items"][0]


def test_an_empty_list_is_no_error_even_in_a_namespace_that_is_not(api: Api) -> None:
    assert api.get(path("deployments", "no-such-namespace"))["items"] == []


def test_a_cluster_wide_list_has_every_namespace(space: Namespace) -> None:
    space.create("deployments", deployment("far", replicas=0))
    found = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in space.api.items(path("deployments"))}
    assert {(space.name, "far"), ("apinizer", "manager"), ("prod", "worker-prod")} <= found


def test_nodes_name_their_images_and_conditions(api: Api) -> None:
    nodes = {each["metadata"]["name"]: each for each in api.items(path("nodes"))}
    assert nodes.keys() >= {"node-a", "node-b"}
    for name in ("node-a", "node-b"):
        assert nodes[name]["metadata"]["labels"]["kubernetes.io/hostname"] == name
        assert {each["type"]: each["status"] for each in nodes[name]["status"]["conditions"]}["Ready"] == "True"
        names = [each for image in nodes[name]["status"]["images"] for each in image["names"]]
        assert any(each.startswith("docker.io/apinizercloud/manager:") for each in names), names


@pytest.fixture
def labelled(space: Namespace) -> Namespace:
    for name, labels in {
        "one": {"tier": "a", "zone": "x"},
        "two": {"tier": "b", "zone": "x"},
        "three": {},
    }.items():
        space.create("configmaps", configmap(name, None, **labels))
    return space


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("tier=a", {"one"}),
        ("tier==a", {"one"}),
        ("tier!=a", {"two", "three"}),
        ("tier in (a,b)", {"one", "two"}),
        ("tier in (a, c),zone=x", {"one"}),
        ("tier notin (a)", {"two", "three"}),
        ("tier", {"one", "two"}),
        ("!tier", {"three"}),
        ("tier=a,zone=y", set()),
        ("", {"one", "two", "three"}),
    ],
)
def test_label_selectors(labelled: Namespace, selector: str, expected: set[str]) -> None:
    # kube-root-ca.crt is nobody's here
    full = f"suite=contract,{selector}" if selector else "suite=contract"
    assert set(labelled.api.names(labelled.path("configmaps"), labelSelector=full)) == expected


def test_a_selector_that_cannot_be_read_is_a_bad_request(labelled: Namespace) -> None:
    labelled.api.send("GET", labelled.path("configmaps"), params={"labelSelector": "tier in a"}).refused(
        400, "BadRequest"
    )


def test_field_selectors_on_names(labelled: Namespace) -> None:
    api, where = labelled.api, labelled.path("configmaps")
    assert api.names(where, fieldSelector="metadata.name=two") == ["two"]
    others = api.names(where, fieldSelector="metadata.name!=two", labelSelector="suite=contract")
    assert set(others) == {"one", "three"}
    everywhere = api.names(
        path("configmaps"), fieldSelector=f"metadata.namespace={labelled.name}", labelSelector="tier"
    )
    assert set(everywhere) == {"one", "two"}


def test_field_selectors_on_pods(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    pod = space.pod("app")
    name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]
    where = space.path("pods")
    assert space.api.names(where, fieldSelector=f"spec.nodeName={node}") == [name]
    assert space.api.names(where, fieldSelector="spec.nodeName=node-x") == []
    assert space.api.names(where, fieldSelector=f"status.phase=Running,spec.nodeName={node}") == [name]
    assert space.api.names(where, fieldSelector="status.phase!=Running") == []


def test_a_field_that_cannot_be_selected_is_a_bad_request(space: Namespace) -> None:
    answer = space.api.send("GET", space.path("pods"), params={"fieldSelector": "spec.hostname=x"})
    assert "field label not supported" in answer.refused(400, "BadRequest")["message"]


def test_a_list_in_pages(space: Namespace) -> None:
    for name in "abcde":
        space.create("configmaps", configmap(name))
    where, api = space.path("configmaps"), space.api
    first = api.get(where, limit=2, labelSelector="suite=contract")
    assert [each["metadata"]["name"] for each in first["items"]] == ["a", "b"]
    # Made after the first page: no part of what the pages show.
    space.create("configmaps", configmap("f"))
    names, version, page = ["a", "b"], first["metadata"]["resourceVersion"], first
    while token := page["metadata"].get("continue"):
        page = api.get(where, **{"limit": 2, "labelSelector": "suite=contract", "continue": token})
        assert page["metadata"]["resourceVersion"] == version
        names += [each["metadata"]["name"] for each in page["items"]]
    assert names == list("abcde")


def test_a_continue_token_that_nobody_gave_is_a_bad_request(space: Namespace) -> None:
    answer = space.api.send("GET", space.path("configmaps"), params={"limit": 1, "continue": "bm9uc2Vuc2U"})
    assert "continue key is not valid" in answer.refused(400, "BadRequest")["message"]


@pytest.mark.parametrize("version", ["", "0"], ids=["newest", "any"])
def test_a_list_at_any_or_the_newest_version(space: Namespace, version: str) -> None:
    space.create("configmaps", configmap("x"))
    where = space.path("configmaps")
    seen = eventually(
        lambda: space.api.names(where, resourceVersion=version, labelSelector="suite=contract"), "x", within=10
    )
    assert seen == ["x"]


def test_a_list_is_not_older_than_asked(space: Namespace) -> None:
    made = space.create("configmaps", configmap("x"))["metadata"]["resourceVersion"]
    seen = space.api.get(space.path("configmaps"), resourceVersion=made, labelSelector="suite=contract")
    assert [each["metadata"]["name"] for each in seen["items"]] == ["x"]
    assert int(seen["metadata"]["resourceVersion"]) >= int(made)
