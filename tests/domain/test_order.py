"""Which environment comes when, and that no more run at once than was asked for."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.component import Component
from tasks.domain.errors import UsageError
from tasks.domain.inventory import DeploymentKey
from tasks.domain.order import environment_order, lanes
from tasks.domain.step import RolloutStep
from tests.domain.installation import inventory_of

V = "apinizercloud"
ONE_CLUSTER = inventory_of(
    [
        {"at": "apinizer/m", "runs": f"{V}/manager:2025.04.3"},
        {"at": "prod/w", "runs": f"{V}/worker:2025.04.3", "pods": 6},
        {"at": "prod/w2", "runs": f"{V}/worker:2025.04.3", "pods": 1},
        {"at": "prod/c", "runs": f"{V}/cache:2025.04.3", "pods": 1},
        {"at": "test/w", "runs": f"{V}/worker:2025.04.3", "pods": 2},
        {"at": "test/c", "runs": f"{V}/cache:2025.04.3", "pods": 30},
        {"at": "dev/c", "runs": f"{V}/cache:2025.04.3", "pods": 3},
        {"at": "uat/w", "runs": f"{V}/worker:2025.04.3", "pods": 2},
    ]
)
TWO_CLUSTERS = inventory_of(
    [
        {"cluster": "near", "at": "apinizer/m", "runs": f"{V}/manager:2025.04.3"},
        {"cluster": "near", "at": "prod/w", "runs": f"{V}/worker:2025.04.3", "pods": 4},
        {"cluster": "far", "at": "prod/w", "runs": f"{V}/worker:2025.04.3", "pods": 2},
        {"cluster": "far", "at": "test/w", "runs": f"{V}/worker:2025.04.3", "pods": 1},
    ]
)


@pytest.mark.parametrize(
    ("wanted", "known", "order"),
    [
        ([], [], "dev test uat prod"),  # worker pods: 0, 2, 2 (then by name), 7
        (["prod"], [], "prod dev test uat"),
        (["prod", "dev"], [], "prod dev test uat"),
        ([], ["uat", "test"], "uat test dev prod"),
        (["prod"], ["uat", "gone", "prod"], "prod uat dev test"),
        (["prod", "prod"], [], "prod dev test uat"),
        (["/prod"], [], "prod dev test uat"),
    ],
)
def test_the_order_in_one_cluster(wanted: list[str], known: list[str], order: str) -> None:
    assert [name for _, name in environment_order(ONE_CLUSTER, wanted, known)] == order.split()


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ([], "far/test far/prod near/prod"),
        (["prod"], "far/prod near/prod far/test"),
        (["near/prod", "test"], "near/prod far/test far/prod"),
        (["near/prod", "prod"], "near/prod far/prod far/test"),
    ],
)
def test_the_order_in_two_clusters(wanted: list[str], order: str) -> None:
    assert ["/".join(e) for e in environment_order(TWO_CLUSTERS, wanted)] == order.split()


@pytest.mark.parametrize("name", ["prd", "PROD", "apinizer", "near", "far/uat", ""])
def test_a_name_that_no_cluster_shows_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        environment_order(TWO_CLUSTERS, [name])
    assert repr(name) in caught.value.happened
    assert "far/prod, far/test, near/prod." in caught.value.observed
    with pytest.raises(UsageError, match="dev, prod, test, uat"):
        environment_order(ONE_CLUSTER, ["prod", "nowhere"])
    with pytest.raises(UsageError, match="none"):
        environment_order(inventory_of([]), ["prod"])


def step(number: int) -> RolloutStep:
    key = DeploymentKey(cluster="", namespace="n", name=f"d{number}")
    return RolloutStep(
        key=key, uid="u", resource_version="1", component=Component.WORKER, changes=(), replicas=1, interrupts=False
    )


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 12))
def test_never_more_than_asked_for_run_at_once_however_long_each_takes(minutes: list[int], parallel: int) -> None:
    """Every step starts the moment the one before it in its lane has ended, which is the most that can overlap."""
    steps = [step(n) for n in range(len(minutes))]
    made = lanes(steps, parallel)
    assert sorted(s.key.name for lane in made for s in lane) == sorted(s.key.name for s in steps)
    assert all(lanes(steps, parallel)), "an empty lane"
    spans = []
    for lane in made:
        clock = 0
        for one in lane:
            end = clock + minutes[steps.index(one)]
            spans.append((clock, end))
            clock = end
    running: list[int] = []
    for begin, end in sorted(spans):
        while running and running[0] <= begin:
            heapq.heappop(running)
        heapq.heappush(running, end)
        assert len(running) <= parallel


@given(st.integers(0, 40), st.integers(1, 12))
def test_lanes_keep_the_order_and_use_all_that_is_allowed(count: int, parallel: int) -> None:
    steps = [step(n) for n in range(count)]
    made = lanes(steps, parallel)
    assert len(made) == min(count, parallel)
    assert [lane[0] for lane in made] == steps[: len(made)]
    assert all(list(lane) == sorted(lane, key=steps.index) for lane in made)
    assert max(map(len, made), default=0) - min(map(len, made), default=0) <= 1
