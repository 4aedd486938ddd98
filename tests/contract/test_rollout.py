"""The Deployment controller: revisions, the limits of a rolling update, Recreate, scaling, hopeless rollouts."""

from collections.abc import Callable, Iterator

import pytest

from .api import MERGE, Event, JsonObject, eventually
from .world import (
    RECREATE,
    REVISION,
    Namespace,
    complete,
    condition,
    container,
    deployment,
    env_of,
    ready,
    rolling,
    waiting_for,
)

HASH = "pod-template-hash"
CAUSE = "kubernetes.io/change-cause"


def reason(obj: JsonObject, kind: str) -> str | None:
    return condition(obj, kind).get("reason")


World = dict[str, JsonObject]


def listed(space: Namespace, resource: str) -> tuple[World, str]:
    """What there is of app ``app``, by name, and the version of that knowledge."""
    seen = space.api.get(space.path(resource), labelSelector="app=app")
    return {each["metadata"]["name"]: each for each in seen["items"]}, seen["metadata"]["resourceVersion"]


def replayed(space: Namespace, resource: str, before: tuple[World, str]) -> Iterator[tuple[Event, World]]:
    """Each event from ``before`` until now, and what there was after it."""
    there, since = dict(before[0]), before[1]
    until = max(int(each["metadata"]["resourceVersion"]) for each in listed(space, resource)[0].values())
    for event in space.api.watch(space.path(resource), since, labels="app=app"):
        if event.type == "DELETED":
            there.pop(event.name, None)
        else:
            there[event.name] = event.object
        yield event, dict(there)
        if int(event.version) >= until:
            return


def test_a_first_rollout(space: Namespace) -> None:
    made = deployment("app", replicas=2)
    made["metadata"]["annotations"] = {CAUSE: "made by hand"}
    seen = space.roll_out(made)
    assert seen["metadata"]["annotations"][REVISION] == "1"
    status = seen["status"]
    assert [status[key] for key in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")] == [2] * 4
    assert "unavailableReplicas" not in status
    assert (condition(seen, "Available")["status"], reason(seen, "Available")) == ("True", "MinimumReplicasAvailable")
    done = space.deployment_until("app", lambda it: reason(it, "Progressing") == "NewReplicaSetAvailable", "progressed")
    (owned,) = space.replicasets("app").values()
    assert (
        f'ReplicaSet "{owned["metadata"]["name"]}" has successfully progressed.'
        in condition(done, "Progressing")["message"]
    )


def test_what_owns_what(space: Namespace) -> None:
    seen = space.roll_out(deployment("app"))
    (replicaset,) = space.replicasets("app").values()
    pod = space.pod("app")
    label = replicaset["metadata"]["labels"][HASH]
    assert replicaset["metadata"]["name"] == f"app-{label}"
    assert pod["metadata"]["name"].startswith(f"app-{label}-")
    assert pod["metadata"]["labels"] == {"app": "app", HASH: label}
    assert replicaset["spec"]["selector"]["matchLabels"] == {"app": "app", HASH: label}
    for owned, owner, kind in ((replicaset, seen, "Deployment"), (pod, replicaset, "ReplicaSet")):
        (reference,) = owned["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["apiVersion"]) == (kind, "apps/v1")
        assert (reference["name"], reference["uid"]) == (owner["metadata"]["name"], owner["metadata"]["uid"])
        assert reference["controller"] is True
        assert reference["blockOwnerDeletion"] is True
    annotations = replicaset["metadata"]["annotations"]
    assert annotations["deployment.kubernetes.io/desired-replicas"] == "1"


def test_the_cause_of_a_change_reaches_its_revision(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    patch = env_of("STEP", "2")
    patch["metadata"] = {"annotations": {CAUSE: "to two"}}
    space.api.patch(space.path("deployments", "app"), patch)
    space.settled("app")
    revisions = space.replicasets("app")
    assert revisions.keys() == {"1", "2"}
    assert revisions["2"]["metadata"]["annotations"][CAUSE] == "to two"
    assert CAUSE not in revisions["1"]["metadata"]["annotations"]
    assert revisions["1"]["spec"]["replicas"] == 0
    assert space.get("deployments", "app")["metadata"]["annotations"][REVISION] == "2"


def test_going_back_takes_the_old_replicaset_again(space: Namespace) -> None:
    space.roll_out(deployment("app", container("main", env=[{"name": "STEP", "value": "1"}])))
    where = space.path("deployments", "app")
    space.api.patch(where, env_of("STEP", "2"))
    space.settled("app")
    old = space.replicasets("app")["1"]
    space.api.patch(where, env_of("STEP", "1"))
    seen = space.settled("app")
    assert seen["metadata"]["annotations"][REVISION] == "3"
    revisions = space.replicasets("app")
    assert revisions.keys() == {"2", "3"}
    assert revisions["3"]["metadata"]["uid"] == old["metadata"]["uid"]
    assert revisions["3"]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


def test_old_revisions_are_kept_as_many_as_asked(space: Namespace) -> None:
    space.roll_out(deployment("app", revisionHistoryLimit=1))
    for step in "23":
        space.api.patch(space.path("deployments", "app"), env_of("STEP", step))
        space.settled("app")
    # The real controller looks at old revisions when it next looks at the Deployment, which nothing may make it do.
    space.api.patch(space.path("deployments", "app"), {"metadata": {"annotations": {"looked-at": "again"}}})
    space.deployment_until("app", lambda _: space.replicasets("app").keys() == {"2", "3"}, "one old revision")


@pytest.mark.parametrize(
    ("replicas", "strategy", "most", "fewest"),
    [
        (3, rolling(surge=1, unavailable=1), 4, 2),
        # 25% of 3: surge is rounded up, the unavailable are rounded down
        (3, rolling(surge="25%", unavailable="25%"), 4, 3),
        (2, rolling(surge=0, unavailable=1), 2, 1),
    ],
    ids=["numbers", "percents", "no surge"],
)
def test_a_rolling_update_stays_within_its_limits(
    space: Namespace, replicas: int, strategy: JsonObject, most: int, fewest: int
) -> None:
    space.roll_out(deployment("app", replicas=replicas, strategy=strategy))
    sets, pods = listed(space, "replicasets"), listed(space, "pods")
    space.api.patch(space.path("deployments", "app"), env_of("STEP", "2"))
    space.settled("app")
    asked = [
        sum(each["spec"]["replicas"] for each in there.values()) for _, there in replayed(space, "replicasets", sets)
    ]
    available = [sum(ready(each) for each in there.values()) for _, there in replayed(space, "pods", pods)]
    assert max(asked) <= most, asked
    assert min(available) >= fewest, available
    assert len(asked) > 2
    assert len(available) > 2 * replicas


def test_recreate_ends_every_old_pod_before_it_makes_a_new_one(space: Namespace) -> None:
    space.roll_out(deployment("app", replicas=2, strategy=RECREATE))
    before = listed(space, "pods")
    old = set(before[0])
    (first,) = space.replicasets("app").values()
    space.api.patch(space.path("deployments", "app"), env_of("STEP", "2"))
    space.settled("app")
    new: set[str] = set()
    for _, there in replayed(space, "pods", before):
        new |= there.keys() - old
        running = [name for name in there.keys() & old if there[name]["status"]["phase"] == "Running"]
        assert not (new and running), f"{new} beside {running}"
    assert len(new) == 2
    assert not there.keys() & old
    assert space.get("replicasets", first["metadata"]["name"])["spec"]["replicas"] == 0


def test_an_old_pod_is_terminating_before_it_is_gone(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    since = space.api.version(space.path("pods"))
    space.api.patch(space.path("deployments", "app", "scale"), {"spec": {"replicas": 0}}, MERGE)
    for event in space.api.watch(space.path("pods"), since, labels="app=app"):
        if "deletionTimestamp" in event.object["metadata"]:
            break
    assert event.type == "MODIFIED"
    assert event.object["metadata"]["deletionGracePeriodSeconds"] == 2
    assert event.object["status"]["phase"] == "Running"
    seen = space.settled("app")
    assert "replicas" not in seen["status"]
    assert "availableReplicas" not in seen["status"]
    space.deployment_until("app", lambda _: not space.pods("app"), "without pods")


def test_scaling_makes_no_revision(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    space.api.patch(space.path("deployments", "app", "scale"), {"spec": {"replicas": 3}}, MERGE)
    assert space.settled("app")["metadata"]["annotations"][REVISION] == "1"
    assert len(space.pods("app")) == 3
    assert len(space.replicasets("app")) == 1


def test_a_paused_deployment_keeps_its_pods_until_it_goes_on(space: Namespace) -> None:
    space.roll_out(deployment("app"))
    where = space.path("deployments", "app")
    patch = env_of("STEP", "2")
    patch["spec"]["paused"] = True
    want = space.api.patch(where, patch)["metadata"]["generation"]

    def paused(seen: JsonObject) -> bool:
        return reason(seen, "Progressing") == "DeploymentPaused" and seen["status"]["observedGeneration"] == want

    seen = space.deployment_until("app", paused, "paused")
    assert seen["status"].get("updatedReplicas", 0) == 0
    assert len(space.replicasets("app")) == 1
    space.api.patch(where, {"spec": {"paused": False}})
    assert space.settled("app")["metadata"]["annotations"][REVISION] == "2"


def test_a_pod_has_to_stay_ready_to_be_available(space: Namespace) -> None:
    # A busy controller may sum the status up only when the wait is over: a longer wait shows it then.
    for seconds in (3, 8, 20):
        since = space.create("deployments", deployment("app", minReadySeconds=seconds))["metadata"]["resourceVersion"]
        space.settled("app")
        seen = [
            event.object
            for event, _ in replayed(space, "deployments", ({}, since))
            if event.object["status"].get("readyReplicas") == 1
        ]
        if "availableReplicas" not in seen[0]["status"]:
            break
        space.api.delete(space.path("deployments", "app"))
        eventually(lambda: not listed(space, "deployments")[0], "the Deployment is gone")
    assert "availableReplicas" not in seen[0]["status"]
    assert seen[0]["status"]["unavailableReplicas"] == 1
    assert condition(seen[0], "Available")["status"] == "False"
    assert seen[-1]["status"]["availableReplicas"] == 1


def hopeless(rule: str) -> Callable[[JsonObject], bool]:
    return lambda seen: reason(seen, "Progressing") == rule


def test_a_rollout_past_its_deadline(space: Namespace) -> None:
    missing = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "not-there", "key": "x"}}}]
    space.create("deployments", deployment("app", container("main", env=missing), progressDeadlineSeconds=2))
    seen = space.deployment_until("app", hopeless("ProgressDeadlineExceeded"), "past its deadline")
    progress = condition(seen, "Progressing")
    (owned,) = space.replicasets("app").values()
    name = owned["metadata"]["name"]
    assert (progress["status"], progress["message"]) == ("False", f'ReplicaSet "{name}" has timed out progressing.')
    assert (condition(seen, "Available")["status"], reason(seen, "Available")) == (
        "False",
        "MinimumReplicasUnavailable",
    )
    assert seen["status"]["unavailableReplicas"] == 1
    # It is not given up: what was missing makes it whole.
    space.create(
        "secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "not-there"}, "stringData": {"x": "1"}}
    )
    seen = space.settled("app")
    space.deployment_until("app", hopeless("NewReplicaSetAvailable"), "progressed after all")


def test_the_old_pod_stays_while_the_new_one_cannot_start(space: Namespace) -> None:
    space.roll_out(deployment("app", strategy=rolling(surge=1, unavailable=0)))
    (old,) = space.pods("app")
    missing = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "not-there", "key": "x"}}}]
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": missing}]}}}}
    space.api.patch(space.path("deployments", "app"), patch)

    def stuck(_: JsonObject) -> bool:
        return any(waiting_for("CreateContainerConfigError")(pod) for pod in space.pods("app"))

    seen = space.deployment_until("app", stuck, "stuck")
    status = space.deployment_until("app", lambda it: it["status"].get("updatedReplicas") == 1, "one new")["status"]
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (2, 1, 1)
    assert ready(space.get("pods", old["metadata"]["name"]))
    assert not complete(seen)


def test_a_quota_that_is_used_up_fails_the_replicaset(space: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"pods": "1"}},
    }
    space.create("resourcequotas", quota)
    space.until("resourcequotas", "tight", lambda it: "hard" in it.get("status", {}), "counted")
    space.create("deployments", deployment("app", replicas=2))
    seen = space.deployment_until("app", lambda it: condition(it, "ReplicaFailure") != {}, "a replica failure")
    failure = condition(seen, "ReplicaFailure")
    assert (failure["status"], failure["reason"]) == ("True", "FailedCreate")
    for part in ("is forbidden: exceeded quota: tight", "requested: pods=1", "used: pods=1", "limited: pods=1"):
        assert part in failure["message"], failure["message"]
    (replicaset,) = space.replicasets("app").values()
    assert space.event("FailedCreate", kind="ReplicaSet", name=replicaset["metadata"]["name"])["type"] == "Warning"
    assert condition(replicaset, "ReplicaFailure") or condition(
        space.get("replicasets", replicaset["metadata"]["name"]), "ReplicaFailure"
    )
    assert len(space.pods("app")) == 1
