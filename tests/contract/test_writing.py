"""Create, update and the three kinds of patch: what changes, what stays, what counts as a new generation."""

import re

import pytest

from .api import JSON_PATCH, MERGE, STRATEGIC, JsonObject, eventually
from .world import Namespace, configmap, container, deployment


@pytest.fixture
def app(space: Namespace) -> Namespace:
    """A Deployment without pods: an init container, the main one and a sidecar."""
    made = deployment(
        "app",
        container(
            "main",
            env=[{"name": "KEEP", "value": "1"}, {"name": "CHANGE", "value": "old"}],
            ports=[{"containerPort": 8080, "name": "http"}],
            volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}],
        ),
        container("sidecar", "example.org/sidecar:1"),
        replicas=0,
    )
    pod = made["spec"]["template"]["spec"]
    pod["initContainers"] = [container("prepare", "example.org/prepare:1")]
    pod["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    space.observed(made)
    return space


def change(space: Namespace, patch: object, media: str = STRATEGIC) -> JsonObject:
    return space.api.patch(space.path("deployments", "app"), patch, media)


def pod_of(obj: JsonObject) -> JsonObject:
    found: JsonObject = obj["spec"]["template"]["spec"]
    return found


def images(obj: JsonObject) -> list[tuple[str, str]]:
    pod = pod_of(obj)
    return [(each["name"], each["image"]) for each in pod["initContainers"] + pod["containers"]]


def in_main(**fields: object) -> JsonObject:
    return {"spec": {"template": {"spec": {"containers": [{"name": "main", **fields}]}}}}


def test_what_is_not_said_is_filled_in(space: Namespace) -> None:
    bare: JsonObject = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bare"},
        "spec": {
            "selector": {"matchLabels": {"app": "bare"}},
            "template": {
                "metadata": {"labels": {"app": "bare"}},
                "spec": {
                    "nodeSelector": {"nowhere": "yes"},
                    "containers": [
                        {"name": "a", "image": "example.org/a:1"},
                        {"name": "b", "image": "example.org/b"},
                    ],
                },
            },
        },
    }
    spec = space.create("deployments", bare)["spec"]
    limits = {"maxSurge": "25%", "maxUnavailable": "25%"}
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "RollingUpdate", "rollingUpdate": limits})
    assert (spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (10, 600)
    pod = spec["template"]["spec"]
    assert (pod["restartPolicy"], pod["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert pod["terminationGracePeriodSeconds"] == 30
    # An image without a tag is "latest", and that is pulled each time.
    assert [each["imagePullPolicy"] for each in pod["containers"]] == ["IfNotPresent", "Always"]


def test_the_server_gives_a_name_that_begins_as_asked(space: Namespace) -> None:
    made = configmap("x")
    made["metadata"] = {"generateName": "record-"}
    names = {space.create("configmaps", made)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"record-[a-z0-9]{5}", each) for each in names)


def test_set_image_touches_that_container_alone(app: Namespace) -> None:
    seen = change(app, in_main(image="example.org/main:2"))
    assert images(seen) == [
        ("prepare", "example.org/prepare:1"),
        ("main", "example.org/main:2"),
        ("sidecar", "example.org/sidecar:1"),
    ]
    main = pod_of(seen)["containers"][0]
    assert len(main["env"]) == 2
    assert main["ports"][0]["name"] == "http"
    assert main["volumeMounts"]


def test_an_init_container_is_found_by_name_as_well(app: Namespace) -> None:
    entry = {"name": "prepare", "image": "example.org/prepare:2"}
    seen = change(app, {"spec": {"template": {"spec": {"initContainers": [entry]}}}})
    assert next(image for _, image in images(seen)) == "example.org/prepare:2"
    assert [name for name, _ in images(seen)] == ["prepare", "main", "sidecar"]


def test_lists_merge_by_their_keys(app: Namespace) -> None:
    seen = change(
        app,
        in_main(
            env=[{"name": "CHANGE", "value": "new"}, {"name": "ADDED", "value": "1"}],
            ports=[{"containerPort": 8080, "name": "web"}, {"containerPort": 9090}],
            volumeMounts=[{"mountPath": "/scratch", "name": "scratch", "readOnly": True}],
        ),
    )
    main = pod_of(seen)["containers"][0]
    assert {each["name"]: each["value"] for each in main["env"]} == {"KEEP": "1", "CHANGE": "new", "ADDED": "1"}
    assert {each["containerPort"]: each.get("name") for each in main["ports"]} == {8080: "web", 9090: None}
    assert main["volumeMounts"] == [{"name": "scratch", "mountPath": "/scratch", "readOnly": True}]


def test_an_entry_is_taken_out_by_its_key(app: Namespace) -> None:
    seen = change(app, in_main(env=[{"name": "CHANGE", "$patch": "delete"}]))
    assert [each["name"] for each in pod_of(seen)["containers"][0]["env"]] == ["KEEP"]
    gone = {"spec": {"template": {"spec": {"containers": [{"name": "sidecar", "$patch": "delete"}]}}}}
    assert [name for name, _ in images(change(app, gone))] == ["prepare", "main"]


def test_a_strategic_patch_can_add_a_container(app: Namespace) -> None:
    extra = {"name": "extra", "image": "example.org/extra:1"}
    seen = change(app, {"spec": {"template": {"spec": {"containers": [extra]}}}})
    assert {name for name, _ in images(seen)} == {"prepare", "main", "sidecar", "extra"}


def test_an_empty_object_stays_in_a_strategic_merge(app: Namespace) -> None:
    """A volume's source is merged into the volume of that name, not lost."""
    change(app, {"spec": {"template": {"spec": {"volumes": [{"name": "more", "emptyDir": {}}]}}}})
    seen = app.get("deployments", "app")
    assert {each["name"]: each.get("emptyDir") for each in pod_of(seen)["volumes"]} == {"scratch": {}, "more": {}}


@pytest.mark.parametrize("media", [STRATEGIC, MERGE])
def test_null_takes_a_key_out(app: Namespace, media: str) -> None:
    change(app, {"metadata": {"annotations": {"a": "1", "b": "2"}}}, media)
    left = change(app, {"metadata": {"annotations": {"a": None}}}, media)["metadata"]["annotations"]
    assert "a" not in left
    assert left["b"] == "2"


def test_a_merge_patch_replaces_a_list_whole(app: Namespace) -> None:
    seen = change(app, in_main(image="example.org/main:2"), MERGE)
    assert images(seen) == [("prepare", "example.org/prepare:1"), ("main", "example.org/main:2")]
    assert "env" not in pod_of(seen)["containers"][0]


def test_json_patch_operations(app: Namespace) -> None:
    at = "/spec/template/spec/containers"
    seen = change(
        app,
        [
            {"op": "test", "path": f"{at}/0/name", "value": "main"},
            {"op": "replace", "path": f"{at}/0/image", "value": "example.org/main:2"},
            {"op": "add", "path": f"{at}/0/env/-", "value": {"name": "LAST", "value": "1"}},
            {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "1"}},
            {"op": "replace", "path": "/metadata/annotations/a~1b", "value": "2"},
            {"op": "remove", "path": f"{at}/1"},
        ],
        JSON_PATCH,
    )
    assert images(seen)[1:] == [("main", "example.org/main:2")]
    assert [each["name"] for each in pod_of(seen)["containers"][0]["env"]] == ["KEEP", "CHANGE", "LAST"]
    assert seen["metadata"]["annotations"]["a/b"] == "2"


def test_a_json_patch_of_a_path_that_is_not(app: Namespace) -> None:
    operations = [{"op": "replace", "path": "/spec/nothing/here", "value": 1}]
    answer = app.api.send("PATCH", app.path("deployments", "app"), operations, media=JSON_PATCH)
    answer.refused(422, "Invalid")


def test_what_makes_a_generation(app: Namespace) -> None:
    """The spec does, and so do a Deployment's annotations (its registry strategy's PrepareForUpdate); labels do not."""

    def generation(patch: JsonObject) -> int:
        return int(change(app, patch)["metadata"]["generation"])

    first = int(app.get("deployments", "app")["metadata"]["generation"])
    assert generation({"metadata": {"labels": {"note": "1"}}}) == first
    assert generation({"spec": {"paused": True}}) == first + 1
    assert generation({"spec": {"paused": True}}) == first + 1, "nothing changed"
    assert generation(in_main(image="example.org/main:2")) == first + 2
    assert generation({"metadata": {"annotations": {"note": "1"}}}) == first + 3


def test_observed_generation_follows(app: Namespace) -> None:
    want = change(app, in_main(image="example.org/main:2"))["metadata"]["generation"]
    app.deployment_until("app", lambda seen: seen["status"].get("observedGeneration") == want, "observed")


def test_a_change_that_changes_nothing_keeps_the_version(space: Namespace) -> None:
    space.create("configmaps", configmap("x", {"a": "1"}))
    where = space.path("configmaps", "x")
    before = space.api.version(where)
    assert space.api.patch(where, {"data": {"a": "1"}}, MERGE)["metadata"]["resourceVersion"] == before
    assert space.api.patch(where, {"data": {"a": "2"}}, MERGE)["metadata"]["resourceVersion"] != before


def test_an_update_without_a_version_is_taken_as_it_is(app: Namespace) -> None:
    seen = app.get("deployments", "app")
    del seen["metadata"]["resourceVersion"]
    seen["spec"]["minReadySeconds"] = 3
    assert app.api.replace(app.path("deployments", "app"), seen)["spec"]["minReadySeconds"] == 3


def test_a_status_is_not_written_with_the_object(app: Namespace) -> None:
    assert change(app, {"status": {"replicas": 7}}, MERGE)["status"].get("replicas", 0) == 0


def test_what_identifies_an_object_is_the_servers(app: Namespace) -> None:
    before = app.get("deployments", "app")["metadata"]
    after = change(app, {"metadata": {"creationTimestamp": "2001-01-01T00:00:00Z", "generation": 99}})["metadata"]
    assert [after[key] for key in ("uid", "creationTimestamp", "generation")] == [
        before[key] for key in ("uid", "creationTimestamp", "generation")
    ]


def test_the_scale_subresource(app: Namespace) -> None:
    where = app.path("deployments", "app", "scale")
    change(app, {"spec": {"paused": False, "template": {"spec": {"nodeSelector": {"nowhere": "yes"}}}}})
    seen = app.api.get(where)
    assert (seen["apiVersion"], seen["kind"], seen["metadata"]["name"]) == ("autoscaling/v1", "Scale", "app")
    assert seen["spec"].get("replicas", 0) == 0
    assert seen["status"]["selector"] == "app=app"
    assert app.api.patch(where, {"spec": {"replicas": 2}}, MERGE)["spec"]["replicas"] == 2
    assert app.get("deployments", "app")["spec"]["replicas"] == 2

    def replaced() -> bool:
        seen = app.api.get(where)
        seen["spec"]["replicas"] = 1
        answer = app.api.send("PUT", where, seen)
        if answer.status == 409:  # The controller has just written the status: it is one object.
            return False
        return bool(answer.body["spec"]["replicas"] == 1)

    eventually(replaced, "scaled by an update", within=10)
    assert app.get("deployments", "app")["spec"]["replicas"] == 1
