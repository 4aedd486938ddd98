"""What of a cluster belongs to the installation, by tables of images and Deployments (discoveries/*.yaml)."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.domain.component import Component
from tasks.domain.discovery import deployment_facts, lookalikes, recognised, resembles, selector_text
from tests.domain.installation import corrections_of, deployment_object

FOLDER = Path(__file__).parent / "discoveries"
IMAGES = yaml.safe_load((FOLDER / "recognition.yaml").read_text())
DEPLOYMENTS = yaml.safe_load((FOLDER / "deployments.yaml").read_text())


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case["image"] or "none")
def test_what_an_image_is(case: dict[str, Any]) -> None:
    assert recognised(case["image"]) == case["is"]
    assert resembles(case["image"]) == case.get("like", False)


@pytest.mark.parametrize("case", DEPLOYMENTS, ids=lambda case: case["name"])
def test_what_a_deployment_is(case: dict[str, Any]) -> None:
    deployment, corrections = deployment_object(case["deployment"]), corrections_of(case)
    facts = deployment_facts(deployment, "near", corrections)
    said = lookalikes([deployment], corrections)
    assert len(said) == len(case.get("said", []))
    assert all(sentence.startswith(wanted) for sentence, wanted in zip(said, case.get("said", []), strict=True))
    if facts is None:
        assert case["found"] is None
        return
    assert {("+" if c.init else "") + c.name: c.component.value for c in facts.containers} == case["found"]
    assert str(facts.key) == f"{case['deployment']['at']} in near"
    seen = {
        "main": facts.main.name,
        "version": str(facts.version) if facts.version else None,
        "environment": facts.environment,
        "kept_by": facts.kept_by,
        "serves": facts.serves,
        "named": [c.name for c in facts.containers if c.named],
        "ports": list(facts.main.ports),
    }
    assert {k: v for k, v in seen.items() if k in case} == {k: case[k] for k in seen if k in case}


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"updatedReplicas": 1}, False),
        ({"replicas": 3}, False),  # an old one is still there
        ({"availableReplicas": 1, "readyReplicas": 1}, False),
        ({"updatedReplicas": None}, False),
    ],
)
def test_what_is_rolled_out_whole(status: dict[str, Any], *, settled: bool) -> None:
    deployment = deployment_object({"at": "prod/gw", "runs": "apinizercloud/worker:2025.04.3", "pods": 2})
    deployment["status"] = {k: v for k, v in {**deployment["status"], **status}.items() if v is not None}
    facts = deployment_facts(deployment, "")
    assert facts is not None
    assert facts.settled is settled


def test_a_deployment_that_no_controller_has_seen_yet() -> None:
    deployment = deployment_object({"at": "prod/gw", "runs": "apinizercloud/worker:2025.04.3", "pods": 2})
    del deployment["status"]
    facts = deployment_facts(deployment, "")
    assert facts is not None
    assert (facts.ready, facts.settled, facts.replicas) == (0, False, 2)
    assert (facts.uid, facts.resource_version) == ("uid-prod-gw", "100")
    assert facts.component is Component.WORKER
    assert str(facts.key) == "prod/gw"


def test_udp_ports_are_no_place_to_ask() -> None:
    deployment = deployment_object({"at": "prod/gw", "runs": "apinizercloud/worker:2025.04.3"})
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 8091}]
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    facts = deployment_facts(deployment, "")
    assert facts is not None
    assert facts.main.ports == (8091,)


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "gw", "tier": "1"}}, "app=gw,tier=1"),
        (
            {
                "matchLabels": {"app": "gw"},
                "matchExpressions": [
                    {"key": "env", "operator": "In", "values": ["a", "b"]},
                    {"key": "old", "operator": "NotIn", "values": ["yes"]},
                    {"key": "live", "operator": "Exists"},
                    {"key": "dead", "operator": "DoesNotExist"},
                ],
            },
            "app=gw,env in (a,b),old notin (yes),live,!dead",
        ),
    ],
)
def test_a_selector_as_the_api_takes_it(selector: dict[str, Any], text: str) -> None:
    assert selector_text(selector) == text
