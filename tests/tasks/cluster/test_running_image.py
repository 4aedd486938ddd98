"""Which image a pod runs, by what kubelets report of it."""

import pytest

from tasks.cluster.running_image import expected_digests, runs_other
from tasks.domain.component import Component
from tasks.domain.inventory import DeploymentKey
from tasks.domain.step import ImageChange, RolloutStep

CONFIG, MANIFEST, OTHER = (f"sha256:{letter * 64}" for letter in "abc")
EXPECTED = {"worker": frozenset({CONFIG, MANIFEST})}


@pytest.mark.parametrize(
    ("said", "other"),
    [
        (CONFIG, False),
        (f"docker://{CONFIG}", False),
        (f"nexus.local:5000/apinizercloud/worker@{MANIFEST}", False),
        (f"docker-pullable://apinizercloud/worker@{MANIFEST}", False),
        (OTHER, True),
        (f"docker://{OTHER}", True),
        # An index, or a registry with a form of its own: it says nothing.
        (f"nexus.local:5000/apinizercloud/worker@{OTHER}", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_what_is_reported(said: str, *, other: bool, kind: str) -> None:
    pod = {"status": {kind: [{"name": "sidecar", "imageID": OTHER}, {"name": "worker", "imageID": said}]}}
    told = runs_other(pod, EXPECTED)
    assert bool(told) is other
    assert not other or (OTHER in told and CONFIG in told and "worker" in told)


def test_a_container_of_which_nothing_is_known() -> None:
    assert runs_other({"status": {"containerStatuses": [{"name": "worker", "imageID": OTHER}]}}, {}) == ""
    assert runs_other({}, EXPECTED) == ""


def test_what_a_step_expects_is_found_by_the_full_name() -> None:
    changes = (
        ImageChange(container="gw", old="apinizercloud/worker:1", new="apinizercloud/worker:2"),
        ImageChange(container="other", old="nexus.local:5000/x/cache:1", new="nexus.local:5000/x/cache:2"),
    )
    key = DeploymentKey(cluster="", namespace="prod", name="gw")
    step = RolloutStep(key=key, uid="u", resource_version="1", component=Component.WORKER, changes=changes, replicas=1)
    known = {"docker.io/apinizercloud/worker:2": frozenset({CONFIG})}
    assert expected_digests(step, known) == {"gw": frozenset({CONFIG})}
