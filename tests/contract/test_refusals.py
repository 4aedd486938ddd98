"""Errors as ``Status`` objects: what was refused, why, with which code."""

import pytest

from .access import Access
from .api import JSON_PATCH, MERGE, STRATEGIC, Api, JsonObject, path
from .world import Namespace, configmap, deployment


@pytest.fixture
def app(space: Namespace) -> Namespace:
    space.observed(deployment("app", replicas=0))
    return space


def test_not_found_names_the_object(space: Namespace) -> None:
    said = space.api.send("GET", space.path("deployments", "ghost")).refused(404, "NotFound")
    assert said["message"] == 'deployments.apps "ghost" not found'
    assert said["details"] == {"name": "ghost", "group": "apps", "kind": "deployments"}


def test_not_found_in_the_core_group_has_no_group(space: Namespace) -> None:
    said = space.api.send("DELETE", space.path("pods", "ghost")).refused(404, "NotFound")
    assert (said["message"], said["details"]) == ('pods "ghost" not found', {"name": "ghost", "kind": "pods"})


def test_a_patch_of_what_is_not_there(space: Namespace) -> None:
    where = space.path("deployments", "ghost")
    space.api.send("PATCH", where, {"spec": {"replicas": 1}}, media=MERGE).refused(404, "NotFound")


def test_nothing_is_made_in_a_namespace_that_is_not(api: Api) -> None:
    answer = api.send("POST", path("configmaps", "no-such-namespace"), configmap("x"))
    assert answer.refused(404, "NotFound")["message"] == 'namespaces "no-such-namespace" not found'


def test_an_unknown_path_is_404(api: Api) -> None:
    assert api.send("GET", "/apis/apps/v1/frobnicators").status == 404
    assert api.send("GET", "/apis/nobody.example/v1/things").status == 404


def test_a_name_is_given_once(app: Namespace) -> None:
    said = app.api.send("POST", app.path("deployments"), deployment("app")).refused(409, "AlreadyExists")
    assert said["message"] == 'deployments.apps "app" already exists'


def conflict(said: JsonObject) -> None:
    assert said["message"] == (
        'Operation cannot be fulfilled on deployments.apps "app": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert said["details"]["name"] == "app"


def test_an_update_from_an_old_read_is_a_conflict(app: Namespace) -> None:
    where = app.path("deployments", "app")
    old = app.get("deployments", "app")
    app.api.patch(where, {"metadata": {"labels": {"by": "somebody"}}})
    old["spec"]["paused"] = True
    conflict(app.api.send("PUT", where, old).refused(409, "Conflict"))
    assert "paused" not in app.get("deployments", "app")["spec"]


@pytest.mark.parametrize("media", [STRATEGIC, MERGE])
def test_a_patch_that_names_an_old_version_is_a_conflict(app: Namespace, media: str) -> None:
    where = app.path("deployments", "app")
    old = app.api.version(where)
    newer = app.api.patch(where, {"metadata": {"labels": {"by": "somebody"}}})["metadata"]["resourceVersion"]
    change = {"metadata": {"resourceVersion": old, "labels": {"by": "me"}}}
    conflict(app.api.send("PATCH", where, change, media=media).refused(409, "Conflict"))
    change["metadata"]["resourceVersion"] = newer
    assert app.api.patch(where, change, media)["metadata"]["labels"]["by"] == "me"


def test_a_json_patch_whose_test_fails_changes_nothing(app: Namespace) -> None:
    where = app.path("deployments", "app")
    before = app.api.version(where)

    def when(version: str) -> list[JsonObject]:
        judged = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
        return [judged, {"op": "add", "path": "/spec/paused", "value": True}]

    app.api.send("PATCH", where, when("1"), media=JSON_PATCH).refused(422, "Invalid")
    assert app.api.version(where) == before
    assert app.api.patch(where, when(before), JSON_PATCH)["spec"]["paused"] is True


def test_a_patch_of_an_unknown_kind(app: Namespace) -> None:
    answer = app.api.send("PATCH", app.path("deployments", "app"), {"spec": {}}, media="text/plain")
    answer.refused(415, "UnsupportedMediaType")


@pytest.mark.parametrize("body", ["{not json", '["a list"]', '"text"'])
def test_a_body_that_is_no_object(space: Namespace, body: str) -> None:
    space.api.send("POST", space.path("configmaps"), body).refused(400, "BadRequest")


@pytest.mark.parametrize("media", [STRATEGIC, JSON_PATCH])
def test_a_patch_that_is_no_json(app: Namespace, media: str) -> None:
    answer = app.api.send("PATCH", app.path("deployments", "app"), "{not json", media=media)
    answer.refused(400, "BadRequest")


def test_an_object_of_another_kind(space: Namespace) -> None:
    space.api.send("POST", space.path("configmaps"), deployment("app")).refused(400, "BadRequest")


def test_an_object_of_another_namespace(space: Namespace) -> None:
    other = configmap("x")
    other["metadata"]["namespace"] = "default"
    said = space.api.send("POST", space.path("configmaps"), other).refused(400, "BadRequest")
    assert said["message"] == "the namespace of the provided object does not match the namespace sent on the request"


def test_an_update_under_another_name(app: Namespace) -> None:
    app.api.send("PUT", app.path("deployments", "app"), deployment("other")).refused(400, "BadRequest")


def without_containers() -> JsonObject:
    made = deployment("bad")
    made["spec"]["template"]["spec"]["containers"] = []
    return made


def without_image() -> JsonObject:
    made = deployment("bad")
    del made["spec"]["template"]["spec"]["containers"][0]["image"]
    return made


def with_foreign_labels() -> JsonObject:
    made = deployment("bad")
    made["spec"]["template"]["metadata"]["labels"] = {"app": "another"}
    return made


def twins() -> JsonObject:
    made = deployment("bad")
    made["spec"]["template"]["spec"]["containers"] *= 2
    return made


@pytest.mark.parametrize(
    ("obj", "field"),
    [
        (deployment("bad", replicas=-1), "spec.replicas"),
        (deployment("Not_A_Name"), "metadata.name"),
        (without_containers(), "spec.template.spec.containers"),
        (without_image(), "spec.template.spec.containers[0].image"),
        (with_foreign_labels(), "spec.template.metadata.labels"),
        (twins(), "spec.template.spec.containers[1].name"),
        (deployment("bad", strategy={"type": "Sideways"}), "spec.strategy"),
    ],
    ids=["replicas", "name", "containers", "image", "labels", "twins", "strategy"],
)
def test_a_deployment_that_cannot_be(space: Namespace, obj: JsonObject, field: str) -> None:
    said = space.api.send("POST", space.path("deployments"), obj).refused(422, "Invalid")
    name = obj["metadata"]["name"]
    assert said["message"].startswith(f'Deployment.apps "{name}" is invalid: '), said["message"]
    assert (said["details"]["name"], said["details"]["kind"]) == (name, "Deployment")
    assert field in [cause["field"] for cause in said["details"]["causes"]]


def test_a_selector_never_changes(app: Namespace) -> None:
    change = {
        "spec": {
            "selector": {"matchLabels": {"app": "other"}},
            "template": {"metadata": {"labels": {"app": "other"}}},
        }
    }
    answer = app.api.send("PATCH", app.path("deployments", "app"), change, media=STRATEGIC)
    assert "field is immutable" in answer.refused(422, "Invalid")["message"]


def test_recreate_takes_no_limits(app: Namespace) -> None:
    """What a merge leaves behind: switching to Recreate has to drop rollingUpdate."""
    where = app.path("deployments", "app")
    app.api.send("PATCH", where, {"spec": {"strategy": {"type": "Recreate"}}}, media=MERGE).refused(422, "Invalid")
    both = {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}
    assert app.api.patch(where, both, MERGE)["spec"]["strategy"] == {"type": "Recreate"}


def test_a_limit_that_is_neither_number_nor_percent(app: Namespace) -> None:
    change = {"spec": {"strategy": {"rollingUpdate": {"maxSurge": "many"}}}}
    app.api.send("PATCH", app.path("deployments", "app"), change, media=MERGE).refused(422, "Invalid")


def test_an_unknown_token_is_unauthorized(api: Api) -> None:
    stranger = Api(api.access.as_identity("no-such-token"))
    stranger.send("GET", path("namespaces")).refused(401, "Unauthorized")
    stranger.close()


def test_nobody_is_forbidden(api: Api) -> None:
    access: Access = api.access.as_identity(None)
    nobody = Api(access)
    said = nobody.send("GET", path("secrets", "apinizer")).refused(403, "Forbidden")
    assert 'User "system:anonymous" cannot list resource "secrets"' in said["message"]
    nobody.close()
