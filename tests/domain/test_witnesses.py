"""What nodes and the product's own database are understood to say, and what nobody may conclude from them."""

from typing import Any

import pytest

from tasks.cluster.node_images import repositories_with
from tasks.database.environments import unseen_environments

BOTH = ("portal", "apiportal")


def node(*names: str) -> dict[str, Any]:
    return {"status": {"images": [{"names": [name], "sizeBytes": 1} for name in names]}}


@pytest.mark.parametrize(
    ("nodes", "held"),
    [
        ([], {}),
        ([{}], {}),
        ([{"status": {"images": None}}, {"status": {"images": [{"names": None}, {}]}}], {}),
        ([node("docker.io/apinizercloud/portal:2025.04.5")], {"portal": True}),
        ([node("nexus.local:5000/apinizercloud/apiportal:2025.04.5")], {"apiportal": True}),
        ([node("docker.io/apinizercloud/portal:2025.04.5"), node("a.b/apinizer/apiportal:2025.04.5")], dict.fromkeys(BOTH, True)),
        ([node("docker.io/apinizercloud/portal:2025.04.3", "docker.io/apinizercloud/apiportal:2025.07.0")], {}),
        ([node("docker.io/apinizercloud/portal@sha256:" + "a" * 64, "<none>:<none>", "")], {}),
        ([node("docker.io/liferay/portal:2025.04.5")], {}),
        ([node("docker.io/apinizercloud/worker:2025.04.5")], {}),
    ],
)  # fmt: skip
def test_a_node_says_what_it_holds_and_never_what_it_does_not(
    nodes: list[dict[str, Any]], held: dict[str, bool]
) -> None:
    assert repositories_with(nodes, BOTH, "2025.04.5") == held


def test_a_tag_is_its_text() -> None:
    assert repositories_with([node("apinizercloud/portal:2025.04.05")], BOTH, "2025.04.5") == {}


@pytest.mark.parametrize(
    ("documents", "named"),
    [
        ([], ""),
        ([{"name": "prod"}, {"name": "PROD"}, {"name": "Production", "namespace": "prod"}], ""),
        ([{"name": "far", "kubernetesNamespace": "far-ns"}, {"name": "dmz"}, {"name": "test"}], "dmz, far."),
        ([{"name": "x", "kubernetesNamespace": "Test"}], ""),
        ([{"_id": 1}, {"name": 7}, {"name": ""}, {"name": None, "namespace": ["a"]}, {"title": "dmz"}], ""),
    ],
)
def test_environments_of_the_database_that_no_cluster_shows(documents: list[dict[str, Any]], named: str) -> None:
    sentences = unseen_environments(documents, ["prod", "test"])
    assert len(sentences) == bool(named)
    assert all(f"as a namespace: {named}" in sentence for sentence in sentences)
