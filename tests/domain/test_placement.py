"""Placement by tables (placements/*.yaml): a pod template's spec and a node in, whether its pods can run there."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.domain.placement import MOST_IMAGES_REPORTED, NodeFacts, eligible, node_facts

CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted((Path(__file__).parent / "placements").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]
OUTCOMES = {"can", "away", "never"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def node_object(name: str = "n", **given: Any) -> dict[str, Any]:
    """A Node as the API serves it."""
    system = given.get("system", "linux")
    ready = given.get("ready", "True")
    return {
        "metadata": {"name": name, "labels": given.get("labels")},
        "spec": {
            "taints": [_taint(text) for text in given.get("taints", [])],
            **({"unschedulable": True} if given.get("unschedulable") else {}),
        },
        "status": {
            "conditions": [{"type": "MemoryPressure", "status": "False"}]
            + ([{"type": "Ready", "status": ready}] if ready else []),
            "nodeInfo": {"operatingSystem": system, "architecture": "amd64"},
        },
    }


def _taint(text: str) -> dict[str, str]:
    head, _, effect = text.rpartition(":")
    key, equals, value = head.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if equals else {})}


def pod_of(case: dict[str, Any]) -> dict[str, Any]:
    pod = dict(case.get("pod", {}))
    if "terms" in case:
        terms = [{"matchExpressions": term} if isinstance(term, list) else term for term in case["terms"]]
        pod["affinity"] = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}
    return pod


@pytest.mark.parametrize("case", CASES)
def test_where_pods_can_run(case: dict[str, Any]) -> None:
    assert case.keys() <= {"name", "pod", "terms", "node", *OUTCOMES}
    (outcome,) = OUTCOMES & case.keys()
    placement = eligible(pod_of(case), [node_facts(node_object(**case["node"]))])
    seen = {"can": placement.nodes, "away": placement.away, "never": placement.passed_over}
    assert [kind for kind, nodes in seen.items() if "n" in nodes] == [outcome]
    if outcome != "can":
        reason = {**placement.away, **placement.passed_over}["n"]
        assert case[outcome] in reason


def test_the_order_is_that_of_the_nodes_and_every_node_is_told_once() -> None:
    nodes = [
        node_facts(node_object("c")),
        node_facts(node_object("a")),
        node_facts(node_object("b", unschedulable=True)),
        node_facts(node_object("d", ready="Unknown")),
    ]
    placement = eligible({}, nodes)
    assert placement.nodes == ("c", "a")
    assert placement.passed_over == {"b": "it is cordoned"}
    assert placement.away == {"d": "it is not ready"}


def test_the_facts_of_a_node() -> None:
    node = node_object("w1", labels={"disk": "ssd"}, taints=["gpu=yes:NoSchedule", "db:NoExecute"])
    node["status"] |= {
        "addresses": [{"type": "Hostname", "address": "w1"}, {"type": "InternalIP", "address": "10.0.0.5"}],
        "allocatable": {"cpu": "3920m", "ephemeral-storage": 1000},
        "images": [
            {
                "names": [
                    "docker.io/apinizercloud/worker@sha256:" + "a" * 64,
                    "docker.io/apinizercloud/worker:2025.07.0",
                ]
            },
            {"sizeBytes": 5, "names": None},
        ],
    }
    node["status"]["nodeInfo"]["containerRuntimeVersion"] = "containerd://1.6.20~ds1"
    facts = node_facts(node, "remote")
    assert (facts.name, facts.cluster, facts.labels, facts.platform) == ("w1", "remote", {"disk": "ssd"}, "linux/amd64")
    assert [str(t) for t in facts.taints] == ["gpu=yes:NoSchedule", "db:NoExecute"]
    assert (facts.engine, facts.runtime) == ("containerd", "containerd://1.6.20~ds1")
    assert facts.address("InternalIP", "Hostname") == "10.0.0.5"
    assert facts.address("ExternalIP", "Hostname") == "w1"
    assert facts.address("ExternalIP") == ""
    assert facts.allocatable == {"cpu": "3920m", "ephemeral-storage": "1000"}
    assert "docker.io/apinizercloud/worker:2025.07.0" in facts.reported
    assert [i.size for i in facts.images] == [0, 5]
    assert facts.lists_all


def test_a_list_of_images_that_is_cut_or_missing_proves_no_absence() -> None:
    def with_images(count: int) -> NodeFacts:
        node = node_object()
        node["status"]["images"] = [{"names": [f"docker.io/x/y:{n}"], "sizeBytes": 1} for n in range(count)]
        return node_facts(node)

    assert with_images(MOST_IMAGES_REPORTED - 1).lists_all
    assert not with_images(MOST_IMAGES_REPORTED).lists_all
    assert not with_images(0).lists_all


def test_a_node_that_has_just_joined() -> None:
    facts = node_facts({"metadata": {"name": "new"}})
    assert (facts.ready, facts.platform, facts.engine, facts.images) == (False, "", "", ())
    assert eligible({}, [facts]).away == {"new": "it is not ready"}
