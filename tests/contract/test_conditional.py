"""Writes that hold only while nobody wrote in between: what journals (ConfigMaps) and the lock (a Lease) stand on."""

from typing import Any

import pytest

from .api import MERGE, STRATEGIC, Answer, JsonObject
from .world import Namespace, configmap

LEASE: JsonObject = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {"name": "x"},
    "spec": {"holderIdentity": "first", "leaseDurationSeconds": 30, "renewTime": "2026-03-01T12:00:00.000001Z"},
}
KINDS = {"configmaps": configmap("x", {"a": "first"}), "leases": LEASE}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def changed(kind: str, text: str) -> JsonObject:
    return {"data": {"a": text}} if kind == "configmaps" else {"spec": {"holderIdentity": text}}


def held(kind: str, thing: JsonObject) -> Any:
    return thing["data"]["a"] if kind == "configmaps" else thing["spec"]["holderIdentity"]


def patched(space: Namespace, kind: str, text: str, media: str = MERGE, **meta: str) -> Answer:
    return space.api.send("PATCH", space.path(kind, "x"), {"metadata": meta, **changed(kind, text)}, media=media)


def test_a_name_is_given_to_the_first(space: Namespace, kind: str) -> None:
    space.create(kind, KINDS[kind])
    body = KINDS[kind] | changed(kind, "second")
    space.api.send("POST", space.path(kind), body).refused(409, "AlreadyExists")
    assert held(kind, space.get(kind, "x")) == "first"


def test_an_update_from_an_old_read_is_refused(space: Namespace, kind: str) -> None:
    old = space.create(kind, KINDS[kind])
    now = space.api.patch(space.path(kind, "x"), changed(kind, "second"), MERGE)
    space.api.send("PUT", space.path(kind, "x"), old | changed(kind, "third")).refused(409, "Conflict")
    assert held(kind, space.get(kind, "x")) == "second"
    assert held(kind, space.api.replace(space.path(kind, "x"), now | changed(kind, "third"))) == "third"


@pytest.mark.parametrize("media", [MERGE, STRATEGIC])
def test_a_patch_from_an_old_read_is_refused(space: Namespace, kind: str, media: str) -> None:
    old = space.create(kind, KINDS[kind])["metadata"]["resourceVersion"]
    now = space.api.patch(space.path(kind, "x"), changed(kind, "second"), MERGE)["metadata"]["resourceVersion"]
    assert old != now
    patched(space, kind, "third", media, resourceVersion=old).refused(409, "Conflict")
    assert held(kind, space.get(kind, "x")) == "second"
    assert patched(space, kind, "third", media, resourceVersion=now).status == 200


def made_twice(space: Namespace, kind: str) -> tuple[JsonObject, JsonObject]:
    """The metadata of one that was deleted and of the one that was made in its place."""
    old = space.create(kind, KINDS[kind])["metadata"]
    space.api.delete(space.path(kind, "x"))
    return old, space.create(kind, KINDS[kind])["metadata"]


@pytest.mark.parametrize("media", [MERGE, STRATEGIC])
def test_a_patch_of_one_that_was_made_anew_is_refused(space: Namespace, kind: str, media: str) -> None:
    old, new = made_twice(space, kind)
    seen = {key: old[key] for key in ("uid", "resourceVersion")}
    patched(space, kind, "second", media, **seen).refused(409, "Conflict")
    seen["resourceVersion"] = new["resourceVersion"]
    said = patched(space, kind, "second", media, **seen).refused(422, "Invalid")
    assert f'metadata.uid: Invalid value: "{old["uid"]}": field is immutable' in said["message"]
    assert held(kind, space.get(kind, "x")) == "first"
    assert patched(space, kind, "second", media, uid=new["uid"], resourceVersion=new["resourceVersion"]).status == 200


def test_an_update_of_one_that_was_made_anew_is_refused(space: Namespace, kind: str) -> None:
    old, new = made_twice(space, kind)
    for version in (old, new):
        meta = {**new, "uid": old["uid"], "resourceVersion": version["resourceVersion"]}
        body = {**KINDS[kind], **changed(kind, "second"), "metadata": meta}
        said = space.api.send("PUT", space.path(kind, "x"), body).refused(409, "Conflict")
        assert (
            f"Precondition failed: UID in precondition: {old['uid']}, UID in object meta: {new['uid']}"
            in said["message"]
        )
    assert held(kind, space.get(kind, "x")) == "first"


def test_a_write_of_others_to_labels_alone_is_a_new_version(space: Namespace, kind: str) -> None:
    """So whoever writes conditionally must look what was changed before it takes a refusal for another holder."""
    old = space.create(kind, KINDS[kind])["metadata"]["resourceVersion"]
    space.api.patch(space.path(kind, "x"), {"metadata": {"labels": {"seen": "yes"}}}, MERGE)
    patched(space, kind, "second", resourceVersion=old).refused(409, "Conflict")
    assert held(kind, space.get(kind, "x")) == "first"


def test_a_deletion_that_names_an_old_version_is_refused(space: Namespace, kind: str) -> None:
    seen = space.create(kind, KINDS[kind])["metadata"]
    now = space.api.patch(space.path(kind, "x"), changed(kind, "second"), MERGE)["metadata"]["resourceVersion"]

    def delete(version: str) -> Answer:
        conditions = {"preconditions": {"uid": seen["uid"], "resourceVersion": version}}
        return space.api.send("DELETE", space.path(kind, "x"), conditions)

    assert delete(seen["resourceVersion"]).status == 409
    assert held(kind, space.get(kind, "x")) == "second"
    assert delete(now).status == 200


def test_a_large_text_comes_back_as_it_was(space: Namespace) -> None:
    text = "ğ" * (128 * 1024)
    space.create("configmaps", configmap("x", {"journal.json": text}))
    assert space.get("configmaps", "x")["data"]["journal.json"] == text
