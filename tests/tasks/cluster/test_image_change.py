"""Set image: conditional on what was judged, never over somebody else's edit, never repeated blindly."""

import copy

import pytest

from tasks.cluster.conditional_write import AlreadyThere, Patch, Refuse
from tasks.cluster.image_change import decide, set_images
from tasks.domain.component import Component
from tasks.domain.errors import ConflictError, DriftError, ForbiddenError, StoppedError, UpgradeError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.step import ImageChange, RolloutStep

OLD, NEW = "apinizercloud/worker:2025.04.3", "apinizercloud/worker:2025.07.0"


def image(server, container: int = 0) -> str:
    return server.objects["deployments"]["gw"]["spec"]["template"]["spec"]["containers"][container]["image"]


def edit(server, change) -> None:
    thing = copy.deepcopy(server.objects["deployments"]["gw"])
    change(thing)
    server.put("deployments", thing)


def test_it_changes_that_container_only_and_says_why(server, api, controllers, step) -> None:
    evidence = set_images(api, step, "apinizer-upgrade: 2025.04.3 -> 2025.07.0")
    assert (evidence.changed, evidence.generation_before, evidence.generation_after) == (True, 3, 4)
    assert evidence.images_before == {"gateway": OLD}
    assert evidence.images_after == {"gateway": NEW}
    assert int(evidence.resource_version_after) > int(evidence.resource_version_before)
    assert (image(server), image(server, 1)) == (NEW, "istio/proxyv2:1")
    notes = server.objects["deployments"]["gw"]["metadata"]["annotations"]
    assert notes["kubernetes.io/change-cause"] == "apinizer-upgrade: 2025.04.3 -> 2025.07.0"


def test_twice_does_nothing(server, api, controllers, step) -> None:
    set_images(api, step)
    again = set_images(api, step)
    assert not again.changed
    assert server.count("PATCH", "gw") == 1


def test_a_write_in_between_is_read_and_decided_again(server, api, controllers, step) -> None:
    edits = iter([lambda d: d["spec"].update(replicas=5)])

    def meddle() -> None:
        change = next(edits, None)
        if change:
            edit(server, change)

    server.before_patch = meddle
    assert set_images(api, step).changed
    assert server.objects["deployments"]["gw"]["spec"]["replicas"] == 5, "the other edit stands"
    assert server.count("PATCH", "gw") == 2


def test_an_image_set_by_somebody_else_in_between_is_left(server, api, controllers, step) -> None:
    def hotfix(thing) -> None:
        thing["spec"]["template"]["spec"]["containers"][0]["image"] = "apinizercloud/worker:hotfix"
        thing["metadata"]["managedFields"] = [
            {
                "manager": "kubectl-set",
                "operation": "Update",
                "time": "2026-11-22T09:00:00Z",
                "fieldsV1": {"f:spec": {}},
            },
            {
                "manager": "kube-controller-manager",
                "operation": "Update",
                "time": "2026-11-22T09:01:00Z",
                "fieldsV1": {"f:status": {}},
            },
        ]

    server.before_patch = lambda: edit(server, hotfix)
    with pytest.raises(DriftError, match="runs apinizercloud/worker:hotfix") as caught:
        set_images(api, step)
    assert "kubectl-set at 2026-11-22T09:00:00Z" in caught.value.observed
    assert image(server) == "apinizercloud/worker:hotfix"


def test_endless_conflicts_end(server, api, controllers, step) -> None:
    server.before_patch = lambda: edit(server, lambda d: d["spec"].update(replicas=d["spec"]["replicas"] + 1))
    with pytest.raises(ConflictError):
        set_images(api, step)
    assert image(server) == OLD


def test_a_patch_whose_answer_was_lost_is_looked_at(server, api, controllers, step) -> None:
    server.faults.extend(["", "lost"])
    evidence = set_images(api, step)
    assert evidence.changed
    assert evidence.generation_after == 4
    assert server.count("PATCH", "gw") == 1


def test_a_patch_that_failed_with_500_is_looked_at_and_made(server, api, controllers, step) -> None:
    server.faults.extend(["", 500])
    assert set_images(api, step).changed
    assert server.count("PATCH", "gw") == 2


def test_no_permission_is_said(server, api, controllers, step) -> None:
    server.faults.extend(["", 403])
    with pytest.raises(ForbiddenError, match=r"kubectl auth can-i patch deployments\.apps/gw --namespace prod"):
        set_images(api, step)


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_refused_look_after_a_lost_answer_says_that_it_is_not_known(server, api, controllers, step, code) -> None:
    server.faults.extend(["", "lost", code])
    with pytest.raises(UpgradeError) as caught:
        set_images(api, step)
    assert image(server) == NEW
    assert "is not known" in caught.value.safe


def test_somebody_else_s_image_after_a_lost_answer_says_that_it_is_not_known(server, api, controllers, step) -> None:
    """Ours was there for a moment."""
    server.faults.extend(["", "lost"])
    put, lost = server.put, []

    def hotfix(kind, thing):
        made = put(kind, thing)
        if kind == "deployments" and image(server) == NEW and not lost:
            lost.append(1)
            edit(server, lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image="worker:hotfix"))
        return made

    server.put = hotfix
    with pytest.raises(DriftError, match="runs worker:hotfix") as caught:
        set_images(api, step)
    assert "is not known" in caught.value.safe


class Guard:
    """Allows so many writes, then forbids."""

    def __init__(self, allowed: int) -> None:
        self.allowed, self.asked = allowed, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked > self.allowed:
            raise StoppedError("the right to write is lost")


def test_a_guard_that_forbids_is_asked_before_the_patch(server, api, controllers, step) -> None:
    with pytest.raises(StoppedError, match="the right to write is lost"):
        set_images(api, step, guard=Guard(0))
    assert server.count("PATCH", "gw") == 0
    assert image(server) == OLD


def test_a_guard_is_asked_before_every_try(server, api, controllers, step) -> None:
    server.faults.extend(["", 429, 429, 500])
    guard = Guard(10)
    assert set_images(api, step, guard=guard).changed
    assert guard.asked == server.count("PATCH", "gw") == 4


@pytest.mark.parametrize("fault", [429, 500])
def test_a_guard_that_forbids_between_two_tries(server, api, controllers, step, fault) -> None:
    server.faults.extend(["", fault])
    with pytest.raises(StoppedError):
        set_images(api, step, guard=Guard(1))
    assert server.count("PATCH", "gw") == 1
    assert image(server) == OLD


def test_where_nothing_is_to_do_no_guard_is_asked(server, api, controllers, step) -> None:
    set_images(api, step)
    assert not set_images(api, step, guard=Guard(0)).changed


def test_gone(server, api, step) -> None:
    with pytest.raises(DriftError, match="it is gone"):
        set_images(api, step)


def base() -> dict:
    spec = {
        "initContainers": [{"name": "setup", "image": "a/manager:1"}],
        "containers": [{"name": "m", "image": "a/manager:1"}],
    }
    return {"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"template": {"spec": spec}}}


def plan(*changes: ImageChange) -> RolloutStep:
    return RolloutStep(
        key=DeploymentKey(cluster="", namespace="n", name="d"), uid="u", resource_version="7",
        component=Component.MANAGER, changes=changes, replicas=1,
    )  # fmt: skip


BOTH = plan(
    ImageChange(container="m", old="a/manager:1", new="a/apimanager:2"),
    ImageChange(container="setup", init=True, old="a/manager:1", new="a/apimanager:2"),
)


def test_decide_patches_by_name_under_the_version_judged() -> None:
    assert decide(base(), BOTH, "why") == Patch(
        {
            "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"kubernetes.io/change-cause": "why"}},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "m", "image": "a/apimanager:2"}],
                        "initContainers": [{"name": "setup", "image": "a/apimanager:2"}],
                    }
                }
            },
        }
    )


def test_decide_finishes_a_half_done_change() -> None:
    half = base()
    half["spec"]["template"]["spec"]["containers"][0]["image"] = "a/apimanager:2"
    decision = decide(half, BOTH)
    assert isinstance(decision, Patch)
    assert list(decision.body["spec"]["template"]["spec"]) == ["initContainers"]


def test_decide_is_done() -> None:
    done = base()
    for kind in ("containers", "initContainers"):
        done["spec"]["template"]["spec"][kind][0]["image"] = "a/apimanager:2"
    assert decide(done, BOTH) == AlreadyThere()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d["metadata"].update(uid="other"), "made anew"),
        (lambda d: d["metadata"].update(deletionTimestamp="2026-11-22T09:00:00Z"), "being deleted"),
        (lambda d: d["spec"].update(paused=True), "paused"),
        (lambda d: d["spec"]["template"]["spec"]["containers"][0].update(name="x"), "container m is gone"),
        (
            lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image="a/manager:3"),
            "planned was a/manager:1",
        ),
    ],
)
def test_decide_refuses_what_was_not_planned(change, why) -> None:
    thing = base()
    change(thing)
    decision = decide(thing, BOTH)
    assert isinstance(decision, Refuse)
    assert why in decision.why
