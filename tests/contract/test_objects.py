"""Config maps, secrets, leases, events, deletion, and who may do what."""

import base64
from collections.abc import Iterator

import pytest

from .api import MERGE, Api, JsonObject, eventually, path
from .world import Namespace, configmap, deployment

VERSION = "2025-01-01T00:00:00.000000Z"


def test_a_configmap_from_birth_to_end(space: Namespace) -> None:
    where = space.path("configmaps", "journal")
    space.create("configmaps", configmap("journal", {"a": "1", "b": "2"}))
    assert space.api.patch(where, {"data": {"a": None, "c": "3"}}, MERGE)["data"] == {"b": "2", "c": "3"}
    assert space.api.patch(where, {"data": {"b": "4"}})["data"] == {"b": "4", "c": "3"}
    seen = space.get("configmaps", "journal")
    seen["data"] = {"only": "Ö"}
    assert space.api.replace(where, seen)["data"] == {"only": "Ö"}
    assert "generation" not in seen["metadata"], "only what has a spec that is worked on counts generations"
    done = space.api.delete(where)
    assert (done["kind"], done["status"], done["details"]["name"]) == ("Status", "Success", "journal")
    space.api.send("GET", where).refused(404, "NotFound")
    space.api.send("DELETE", where).refused(404, "NotFound")


def test_a_deletion_can_be_bound_to_what_was_seen(space: Namespace) -> None:
    where = space.path("configmaps", "x")
    old = space.create("configmaps", configmap("x"))["metadata"]
    space.api.patch(where, {"data": {"a": "1"}}, MERGE)
    bound = {"preconditions": {"resourceVersion": old["resourceVersion"]}}
    space.api.send("DELETE", where, bound).refused(409, "Conflict")
    space.api.delete(where, preconditions={"uid": old["uid"]})
    assert not space.api.exists(where)


def test_values_of_a_configmap_are_text(space: Namespace) -> None:
    made: JsonObject = configmap("x")
    made["data"] = {"number": 1}
    assert space.api.send("POST", space.path("configmaps"), made).status in (400, 422)


def test_secrets_are_base64(space: Namespace) -> None:
    made: JsonObject = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}
    made |= {"data": {"a": base64.b64encode(b"\x00\xff").decode()}, "stringData": {"b": "parola-ö"}}
    space.create("secrets", made)
    seen = space.get("secrets", "s")
    assert seen["type"] == "Opaque"
    assert "stringData" not in seen
    assert {key: base64.b64decode(value) for key, value in seen["data"].items()} == {
        "a": b"\x00\xff",
        "b": "parola-ö".encode(),
    }
    made["metadata"]["name"], made["data"] = "t", {"a": "no base64!"}
    space.api.send("POST", space.path("secrets"), made).refused(400, "BadRequest")


def test_the_installations_secret_names_its_database(api: Api) -> None:
    data = api.get(path("secrets", "apinizer", "mongo-db-credentials"))["data"]
    url = base64.b64decode(data["dbUrl"]).decode()
    assert url.startswith("mongodb://apinizer:")
    assert "authSource=admin" in url
    assert base64.b64decode(data["dbName"]) == b"apinizerdb"


def lease(holder: str) -> JsonObject:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 30, "acquireTime": VERSION, "renewTime": VERSION}
    meta = {"name": "upgrade"}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}


def test_one_of_two_gets_the_lease(space: Namespace) -> None:
    space.create("leases", lease("one"))
    space.api.send("POST", space.path("leases"), lease("two")).refused(409, "AlreadyExists")
    where = space.path("leases", "upgrade")
    first, second = space.api.get(where), space.api.get(where)
    first["spec"]["renewTime"] = "2025-01-01T00:00:10.000000Z"
    assert space.api.replace(where, first)["spec"]["renewTime"] == "2025-01-01T00:00:10.000000Z"
    second["spec"]["holderIdentity"] = "two"
    said = space.api.send("PUT", where, second).refused(409, "Conflict")
    assert 'leases.coordination.k8s.io "upgrade"' in said["message"]
    assert space.api.get(where)["spec"]["holderIdentity"] == "one"


@pytest.mark.parametrize("field", ["leaseDurationSeconds", "leaseTransitions"])
def test_a_lease_that_cannot_be(space: Namespace, field: str) -> None:
    made = lease("one")
    made["spec"][field] = -1
    space.api.send("POST", space.path("leases"), made).refused(422, "Invalid")


def test_events_can_be_written_and_selected(space: Namespace) -> None:
    about = {"kind": "ConfigMap", "namespace": space.name, "name": "x", "apiVersion": "v1"}
    event: JsonObject = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "x."}}
    event |= {"involvedObject": about, "reason": "Upgraded", "type": "Normal", "message": "done"}
    event |= {"source": {"component": "contract"}, "count": 1}
    space.create("events", event)
    assert [each["message"] for each in space.events(name="x", kind="ConfigMap")] == ["done"]
    assert space.events(name="x", kind="Pod") == []
    named = space.api.items(space.path("events"), fieldSelector="reason=Upgraded,type=Normal")
    assert [each["involvedObject"]["name"] for each in named] == ["x"]
    assert space.api.items(space.path("events"), fieldSelector="reason=Upgraded,type=Warning") == []


def test_a_deletion_takes_what_is_owned_along(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    done = space.api.delete(space.path("deployments", "app"))
    assert done["status"] == "Success"
    assert not space.api.exists(space.path("deployments", "app")), "gone at once; the rest follows"
    eventually(lambda: not space.replicasets("app") and not space.pods("app"), "nothing left")


def test_a_deletion_in_the_foreground_waits_for_the_owned(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    space.api.delete(space.path("deployments", "app"), propagationPolicy="Foreground")
    answer = space.api.send("GET", space.path("deployments", "app"))
    if answer.status == 200:
        assert "foregroundDeletion" in answer.body["metadata"]["finalizers"]
        assert answer.body["metadata"]["deletionTimestamp"].endswith("Z")
    eventually(lambda: not space.api.exists(space.path("deployments", "app")), "the Deployment gone")
    assert space.replicasets("app") == {}


def test_orphans_stay(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    space.api.delete(space.path("deployments", "app"), propagationPolicy="Orphan")
    eventually(lambda: not space.api.exists(space.path("deployments", "app")), "the Deployment gone")
    (left,) = space.replicasets("app").values()
    assert not left["metadata"].get("ownerReferences")
    assert len(space.pods("app")) == 1


def test_a_deleted_pod_is_replaced(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    old = space.pod("app")["metadata"]["name"]
    gone = space.api.delete(space.path("pods", old))
    assert gone["kind"] == "Pod"
    assert gone["metadata"]["deletionTimestamp"].endswith("Z")

    def replaced(_: JsonObject) -> bool:
        return [each["metadata"]["name"] for each in space.pods("app")] != [old] and len(space.pods("app")) == 1

    space.deployment_until("app", replaced, "with another pod")
    space.settled("app")


def test_a_pod_that_is_given_no_grace_goes_at_once(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    pod = space.pod("app")["metadata"]["name"]
    space.api.delete(space.path("pods", pod), gracePeriodSeconds=0)
    assert not space.api.exists(space.path("pods", pod))


def test_a_namespace_ends_with_all_that_is_in_it(space: Namespace) -> None:
    made = space.api.create(
        path("namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "contract-"}}
    )
    name = made["metadata"]["name"]
    assert made["status"]["phase"] == "Active"
    space.api.create(path("configmaps", name), configmap("x"))
    space.api.delete(path("namespaces", None, name))
    eventually(lambda: not space.api.exists(path("configmaps", name, "x")), "its config map gone")
    eventually(lambda: not space.api.exists(path("namespaces", None, name)), "the namespace gone")


def review(api: Api, **attributes: str) -> bool:
    body: JsonObject = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    answer = api.create(path("selfsubjectaccessreviews"), {**body, "spec": {"resourceAttributes": attributes}})
    return bool(answer["status"]["allowed"])


def test_an_administrator_may_do_everything(api: Api) -> None:
    assert review(api, verb="patch", group="apps", resource="deployments", namespace="prod")
    assert review(api, verb="delete", resource="nodes")


@pytest.fixture
def reader(space: Namespace) -> Iterator[Api]:
    """Somebody who may read Deployments and make config maps in one namespace, and nothing else."""
    api, rbac = space.api, "rbac.authorization.k8s.io"
    space.create("serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}})
    rules = [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
    ]
    head: JsonObject = {"apiVersion": f"{rbac}/v1", "metadata": {"name": "reader"}}
    space.create("roles", {**head, "kind": "Role", "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": space.name}
    role = {"apiGroup": rbac, "kind": "Role", "name": "reader"}
    space.create("rolebindings", {**head, "kind": "RoleBinding", "subjects": [subject], "roleRef": role})
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = api.create(space.path("serviceaccounts", "reader", "token"), asked)["status"]["token"]
    client = Api(api.access.as_identity(token))
    # The API server learns of a new role a moment later.
    where = space.path("deployments")
    eventually(lambda: client.send("GET", where).status == 200, "the role in force", within=10)
    yield client
    client.close()


def test_what_is_not_allowed_is_forbidden(space: Namespace, reader: Api) -> None:
    user = f"system:serviceaccount:{space.name}:reader"
    space.create("deployments", deployment("app", replicas=0))
    assert reader.names(space.path("deployments")) == ["app"]
    change = {"spec": {"replicas": 1}}
    said = reader.send("PATCH", space.path("deployments", "app"), change, media=MERGE).refused(403, "Forbidden")
    assert said["message"] == (
        f'deployments.apps "app" is forbidden: User "{user}" cannot patch resource "deployments" '
        f'in API group "apps" in the namespace "{space.name}"'
    )
    assert said["details"] == {"name": "app", "group": "apps", "kind": "deployments"}
    said = reader.send("GET", path("deployments")).refused(403, "Forbidden")
    assert said["message"] == (
        f'deployments.apps is forbidden: User "{user}" cannot list resource "deployments" '
        'in API group "apps" at the cluster scope'
    )
    said = reader.send("GET", space.path("pods", "x", "log")).refused(403, "Forbidden")
    assert 'cannot get resource "pods/log" in API group "" in the namespace' in said["message"]
    reader.create(space.path("configmaps"), configmap("mine"))
    reader.send("GET", space.path("configmaps", "mine")).refused(403, "Forbidden")


def test_one_may_ask_what_one_may_do(space: Namespace, reader: Api) -> None:
    assert review(reader, verb="list", group="apps", resource="deployments", namespace=space.name)
    assert not review(reader, verb="patch", group="apps", resource="deployments", namespace=space.name)
    assert not review(reader, verb="list", group="apps", resource="deployments")
    asked: JsonObject = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    seen = reader.create(path("selfsubjectrulesreviews"), {**asked, "spec": {"namespace": space.name}})
    rules = seen["status"]["resourceRules"]
    assert any(each["resources"] == ["deployments"] and "watch" in each["verbs"] for each in rules), rules
