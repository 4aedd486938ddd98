"""Scaling: what a conditional patch is refused for, when pods are gone and not only counted as gone, who autoscales."""

import pytest

from .api import MERGE, JsonObject, eventually
from .world import Namespace, container, deployment

KEPT = "example.org/kept"


@pytest.fixture
def two(space: Namespace) -> Namespace:
    """A Deployment `app` with two pods."""
    space.roll_out(deployment("app", replicas=2))
    return space


@pytest.fixture
def none(space: Namespace) -> Namespace:
    """A Deployment `app` without pods, that nobody writes any more."""
    space.observed(deployment("app", replicas=0))
    return space


def patch_of(seen: JsonObject, replicas: int) -> JsonObject:
    meta = seen["metadata"]
    named = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return {"metadata": named, "spec": {"replicas": replicas}}


def test_a_count_is_changed_where_nobody_wrote_in_between(none: Namespace) -> None:
    where, seen = none.path("deployments", "app"), none.get("deployments", "app")
    done = none.api.patch(where, patch_of(seen, 3), MERGE)
    assert done["spec"] == {**seen["spec"], "replicas": 3}
    assert done["metadata"]["generation"] == seen["metadata"]["generation"] + 1
    late = none.api.send("PATCH", where, patch_of(seen, 5), media=MERGE).refused(409, "Conflict")
    assert "object has been modified" in late["message"]
    assert none.get("deployments", "app")["spec"]["replicas"] == 3


def test_another_uid_is_another_object(none: Namespace) -> None:
    patch = patch_of(none.get("deployments", "app"), 3)
    patch["metadata"] = {"uid": "00000000-0000-0000-0000-000000000000"}
    where = none.path("deployments", "app")
    refused = none.api.send("PATCH", where, patch, media=MERGE).refused(422, "Invalid")
    assert refused["message"].startswith('Deployment.apps "app" is invalid: metadata.uid: Invalid value: ')
    assert none.get("deployments", "app")["spec"]["replicas"] == 0


def test_the_scale_of_a_deployment_is_the_same_count(none: Namespace) -> None:
    """What kubectl scale and autoscalers write."""
    where, scale = none.path("deployments", "app", "scale"), none.get("deployments", "app", "scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"].get("replicas", 0)) == ("Scale", "autoscaling/v1", 0)
    assert scale["status"]["selector"] == "app=app"
    before = none.get("deployments", "app")["metadata"]
    assert scale["metadata"]["uid"] == before["uid"]
    assert none.api.replace(where, {**scale, "spec": {"replicas": 2}})["spec"]["replicas"] == 2
    after = none.get("deployments", "app")
    assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (2, before["generation"] + 1)
    none.api.send("PUT", where, {**scale, "spec": {"replicas": 4}}).refused(409, "Conflict")


def test_the_same_count_is_no_change(none: Namespace) -> None:
    where, seen = none.path("deployments", "app"), none.get("deployments", "app")
    done = none.api.patch(where, patch_of(seen, 0), MERGE)
    assert [done["metadata"][f] for f in ("uid", "generation", "resourceVersion")] == [
        seen["metadata"][f] for f in ("uid", "generation", "resourceVersion")
    ]


def test_who_wrote_the_count_is_told_unless_it_came_through_the_scale(none: Namespace) -> None:
    def writers() -> set[str]:
        fields = none.get("deployments", "app")["metadata"]["managedFields"]
        assert {each["operation"] for each in fields} == {"Update"}
        return {each["manager"] for each in fields if "f:replicas" in each["fieldsV1"].get("f:spec", {})}

    where = none.path("deployments", "app")
    none.api.patch(where, {"spec": {"replicas": 2}}, MERGE)
    assert writers() == {"python-httpx"}

    def somebody(where: str, replicas: int) -> None:
        patch = {"spec": {"replicas": replicas}}
        answer = none.api.send("PATCH", where, patch, media=MERGE, params={"fieldManager": "somebody"})
        assert answer.status == 200

    somebody(f"{where}/scale", 3)
    assert writers() == {"python-httpx"}, "before Kubernetes 1.22 a count that comes through the scale names nobody"
    somebody(where, 4)
    assert writers() == {"somebody"}


def test_the_counts_are_zero_while_pods_still_end(two: Namespace) -> None:
    pods = two.pods("app")
    for each in pods:
        two.api.patch(two.path("pods", each["metadata"]["name"]), {"metadata": {"finalizers": [KEPT]}}, MERGE)
    done = two.api.patch(two.path("deployments", "app"), {"spec": {"replicas": 0}}, MERGE)
    generation = done["metadata"]["generation"]

    def counted_as_gone(seen: JsonObject) -> bool:
        return seen["status"].get("observedGeneration", 0) >= generation and not seen["status"].get("replicas")

    two.deployment_until("app", counted_as_gone, "at zero")
    (only,) = two.replicasets("app").values()
    assert only["spec"]["replicas"] == 0
    assert only["metadata"]["ownerReferences"][0]["controller"] is True

    def ended() -> bool:
        left = two.pods("app")
        assert len(left) == 2, "a finalizer keeps the object"
        states = [one["state"] for pod in left for one in pod["status"]["containerStatuses"]]
        return all("terminated" in state for state in states)

    eventually(ended, "the containers' end in the pods' status")
    for each in two.pods("app"):
        assert each["metadata"]["deletionTimestamp"]
        # The kubelet deletes it once more, at once, when its containers have ended; the finalizer keeps it all the same.
        assert each["metadata"]["deletionGracePeriodSeconds"] in (2, 0)
        two.api.patch(two.path("pods", each["metadata"]["name"]), {"metadata": {"finalizers": None}}, MERGE)
    eventually(lambda: not two.pods("app"), "no pod")


def test_the_pods_that_went_are_gone_for_good(two: Namespace) -> None:
    names = {each["metadata"]["name"] for each in two.pods("app")}
    where = two.path("deployments", "app")
    two.api.patch(where, {"spec": {"replicas": 0}}, MERGE)
    eventually(lambda: not two.pods("app"), "no pod")
    two.api.patch(where, {"spec": {"replicas": 1}}, MERGE)
    two.settled("app")
    (one,) = two.pods("app")
    assert one["metadata"]["name"] not in names


def test_an_image_set_at_zero_starts_nothing(none: Namespace) -> None:
    entry = {"containers": [container("main", "example.org/other:1")]}
    seen = none.api.patch(none.path("deployments", "app"), {"spec": {"template": {"spec": entry}}})
    none.deployment_until(
        "app", lambda d: d["status"].get("observedGeneration", 0) >= seen["metadata"]["generation"], "observed"
    )
    assert none.pods("app") == []


def test_autoscalers_are_listed_with_what_they_scale(none: Namespace) -> None:
    where = f"/apis/autoscaling/v1/namespaces/{none.name}/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "app"}
    scaler: JsonObject = {
        "apiVersion": "autoscaling/v1",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "more"},
        "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3},
    }
    none.api.create(where, scaler)
    (found,) = none.api.items(where)
    assert found["spec"]["scaleTargetRef"] == target
    assert found["spec"]["minReplicas"] == 2
    assert none.get("deployments", "app")["spec"]["replicas"] == 0


def test_what_is_not_served_is_not_found(space: Namespace) -> None:
    groups = {group["name"]: group["preferredVersion"]["version"] for group in space.api.get("/apis")["groups"]}
    assert groups["apps"] == "v1"
    assert "keda.sh" not in groups
    where = f"/apis/keda.sh/v1alpha1/namespaces/{space.name}/scaledobjects"
    assert space.api.send("GET", where).status == 404
