"""Scaling: conditional on the count that was seen, never over somebody else's, never repeated blindly."""

from collections.abc import Callable
from typing import Any

import pytest

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.conditional_write import AlreadyThere, Patch, Refuse
from tasks.cluster.planning import Connections
from tasks.cluster.scaling import UNTOLD, decide_scale, scale, who_scaled
from tasks.domain.errors import ConflictError, DriftError, ForbiddenError, StoppedError, TemporaryError
from tasks.domain.inventory import DeploymentFacts

Json = dict[str, Any]
PATH = "/apis/apps/v1/namespaces/prod/deployments/worker-prod"


def deployment(replicas: int | None = 2, uid: str = "u", **meta: object) -> Json:
    spec = {} if replicas is None else {"replicas": replicas}
    return {"metadata": {"name": "w", "uid": uid, "resourceVersion": "7", **meta}, "spec": spec}


@pytest.mark.parametrize(
    ("now", "wanted", "expect", "decision"),
    [
        (deployment(2), 0, 2, Patch({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 0}})),
        (deployment(None), 0, 1, Patch({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"replicas": 0}})),
        (deployment(0), 0, 2, AlreadyThere()),
        (deployment(None), 1, 0, AlreadyThere()),
        (deployment(3), 0, 2, Refuse("somebody else scaled it to 3, seen was 2")),
        (deployment(2, uid="v"), 0, 2, Refuse("it was deleted and made anew")),
        (deployment(0, uid="v"), 0, 2, Refuse("it was deleted and made anew")),
        (deployment(2, deletionTimestamp="2026-01-01T00:00:00Z"), 0, 2, Refuse("it is being deleted")),
    ],
)
def test_the_decision(now: Json, wanted: int, expect: int, decision: object) -> None:
    assert decide_scale(now, "u", wanted, expect) == decision


def _entry(manager: str, time: str, *, replicas: bool = True, **more: str) -> Json:
    fields: Json = {"f:replicas": {}} if replicas else {"f:template": {}}
    return {"manager": manager, "time": time, "operation": "Update", "fieldsV1": {"f:spec": fields}, **more}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ([], ""),
        ([_entry("helm", "2026-01-01T00:00:00Z", replicas=False)], ""),
        (
            [
                _entry("kubectl", "2026-01-01T00:00:01Z"),
                _entry("k", "2026-01-01T00:00:02Z", replicas=False, subresource="status"),
            ],
            "The number of its pods was last written by kubectl at 2026-01-01T00:00:01Z.",
        ),
        (
            [_entry("kubectl", "2026-01-01T00:00:01Z")],
            f"The number of its pods was last written by kubectl at 2026-01-01T00:00:01Z, {UNTOLD}.",
        ),
        (
            [
                _entry("kubectl", "2026-01-01T00:00:01Z"),
                _entry("kube-controller-manager", "2026-01-01T00:00:02Z", subresource="scale"),
                _entry("argocd", "2026-01-01T00:00:03Z", replicas=False),
            ],
            "The number of its pods was last written by kube-controller-manager through its scale at 2026-01-01T00:00:02Z.",
        ),
    ],
)
def test_who_it_was(fields: list[Json], told: str) -> None:
    assert who_scaled(deployment(managedFields=fields)) == told


def replicas(connections: Connections) -> int:
    return int(connections.apis[""].get(PATH)["spec"]["replicas"])


def meddling(connections: Connections, *deeds: Callable[[], object]) -> Callable[[], None]:
    """A guard during which somebody else does something, once each."""
    left = list(deeds)

    def guard() -> None:
        if left:
            left.pop(0)()

    return guard


def test_it_scales_and_the_second_time_does_nothing(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    api, asked = connections.apis[""], []
    first = scale(api, worker.key, worker.uid, 0, guard=lambda: asked.append(1))
    assert (first.changed, first.replicas_before, first.replicas_after) == (True, 2, 0)
    assert first.generation_after == first.generation_before + 1 == api.get(PATH)["metadata"]["generation"]
    again = scale(api, worker.key, worker.uid, 0, guard=lambda: asked.append(1), expect=2)
    assert (again.changed, again.generation_after) == (False, first.generation_after)
    assert asked == [1], "the guard is asked once, right before the only write"


def test_the_guard_ends_it_before_anything_is_written(connections: Connections, worker: DeploymentFacts) -> None:
    def lost() -> None:
        raise StoppedError("The lock was lost.")

    with pytest.raises(StoppedError):
        scale(connections.apis[""], worker.key, worker.uid, 0, guard=lost)
    assert replicas(connections) == 2


def test_another_count_than_was_seen_is_somebody_else_s(connections: Connections, worker: DeploymentFacts) -> None:
    with pytest.raises(DriftError, match="somebody else scaled it to 2, seen was 3"):
        scale(connections.apis[""], worker.key, worker.uid, 0, guard=lambda: None, expect=3)
    assert replicas(connections) == 2


def test_a_count_written_between_the_look_and_the_patch_is_left(
    connections: Connections, worker: DeploymentFacts
) -> None:
    api = connections.apis[""]
    guard = meddling(connections, lambda: api.patch(PATH, {"spec": {"replicas": 5}}, "merge"))
    with pytest.raises(DriftError, match="somebody else scaled it to 5, seen was 2"):
        scale(api, worker.key, worker.uid, 0, guard=guard)
    assert replicas(connections) == 5


def test_another_write_in_between_is_borne(connections: Connections, worker: DeploymentFacts) -> None:
    api = connections.apis[""]
    note = {"metadata": {"annotations": {"somebody": "was here"}}}
    assert scale(
        api, worker.key, worker.uid, 0, guard=meddling(connections, lambda: api.patch(PATH, note, "merge"))
    ).changed
    assert api.get(PATH)["metadata"]["annotations"]["somebody"] == "was here"


def test_one_who_always_writes_in_between_wins(connections: Connections, worker: DeploymentFacts) -> None:
    api, count = connections.apis[""], iter(range(100))

    def meddle() -> None:
        api.patch(PATH, {"metadata": {"annotations": {"somebody": str(next(count))}}}, "merge")

    with pytest.raises(ConflictError) as raised:
        scale(api, worker.key, worker.uid, 0, guard=meddle)
    assert "nothing was changed" in raised.value.safe
    assert replicas(connections) == 2


def test_an_answer_that_was_lost_is_looked_up(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    before = len(sandbox.audit())
    sandbox.fail_requests(code=504, path=PATH, methods=("PATCH",), count=1, landed=True, retry_after=0)
    evidence = scale(connections.apis[""], worker.key, worker.uid, 0, guard=lambda: None)
    assert evidence.changed
    assert len([w for w in sandbox.audit()[before:] if w["method"] == "PATCH" and w["path"] == PATH]) == 1


def test_a_write_that_did_not_land_is_made_again(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    sandbox.fail_requests(code=504, path=PATH, methods=("PATCH",), count=1, retry_after=0)
    assert scale(connections.apis[""], worker.key, worker.uid, 0, guard=lambda: None).changed
    assert replicas(connections) == 0


def test_one_that_never_answers_is_told_as_unknown(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    sandbox.fail_requests(code=504, path=PATH, methods=("PATCH",), retry_after=0)
    with pytest.raises(TemporaryError) as raised:
        scale(connections.apis[""], worker.key, worker.uid, 0, guard=lambda: None)
    assert "is not known" in raised.value.safe


def test_the_guard_is_asked_before_every_try(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    sandbox.fail_requests(code=429, path=PATH, methods=("PATCH",), count=3, retry_after=0)
    asked: list[int] = []
    assert scale(connections.apis[""], worker.key, worker.uid, 0, guard=lambda: asked.append(1)).changed
    assert len(asked) == 4


def test_the_guard_forbids_between_two_tries(
    sandbox: Sandbox, connections: Connections, worker: DeploymentFacts
) -> None:
    """The lock is lost while a busy API server is waited for."""
    sandbox.fail_requests(code=429, path=PATH, methods=("PATCH",), count=1, retry_after=0)
    asked: list[int] = []

    def once() -> None:
        asked.append(1)
        if len(asked) > 1:
            raise StoppedError("The lock was lost.")

    with pytest.raises(StoppedError):
        scale(connections.apis[""], worker.key, worker.uid, 0, guard=once)
    assert replicas(connections) == 2


def test_a_deployment_made_anew_or_gone(connections: Connections, worker: DeploymentFacts) -> None:
    api = connections.apis[""]
    with pytest.raises(DriftError, match="made anew"):
        scale(api, worker.key, "another-uid", 0, guard=lambda: None)
    gone = worker.key.model_copy(update={"name": "nobody"})
    with pytest.raises(DriftError, match="it is gone"):
        scale(api, gone, worker.uid, 0, guard=lambda: None)


def test_the_right_that_lacks_is_named(sandbox: Sandbox, worker: DeploymentFacts, tmp_path: Any) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]
    config = sandbox.restricted_kubeconfig(tmp_path / "config", "reader", "prod", rules)
    settings = ClusterSettings(kubeconfig_path=str(config))
    api = Connections.open(InstallationSettings(clusters=(settings,))).apis[""]
    with pytest.raises(ForbiddenError, match="may not patch deployments"):
        scale(api, worker.key, worker.uid, 0, guard=lambda: None)
