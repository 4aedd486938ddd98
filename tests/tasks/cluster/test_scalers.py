"""Who would scale a Deployment up again: the rule by a table, the reading against a whole API and its refusals."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blocks.settings import ClusterSettings, InstallationSettings
from deployments.sandbox.launch import Sandbox
from tasks.cluster.planning import Connections
from tasks.cluster.scaler_reading import read_scalers
from tasks.cluster.scalers import Keeper, findings, keeper
from tasks.domain.component import Component
from tasks.domain.finding import Finding
from tasks.domain.inventory import DeploymentFacts, DeploymentKey

CASES = yaml.safe_load(Path(__file__).with_name("scalers.yaml").read_text())
KEY = DeploymentKey(cluster="", namespace="apinizer", name="manager")
HPAS = "/apis/autoscaling/v1/namespaces/apinizer/horizontalpodautoscalers"
DEPLOYMENT = "/apis/apps/v1/namespaces/apinizer/deployments/manager"


def _made(things: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"metadata": {"name": name, "namespace": "apinizer", **thing.get("meta", {})}, "spec": thing["spec"]}
        for name, thing in things.items()
    ]


def _codes(found: tuple[Finding, ...]) -> list[list[str]]:
    return [[f.severity.value, f.code] for f in found]


@pytest.mark.parametrize("case", CASES, ids=[c["case"] for c in CASES])
def test_the_rule(case: dict[str, Any]) -> None:
    found = findings(
        KEY,
        {"metadata": {"name": "manager", "namespace": "apinizer", **case.get("meta", {})}},
        _made(case.get("hpas", {})),
        _made(case.get("scaled", {})),
        {"spec": case["kept"]} if "kept" in case else None,
        case.get("unread", ""),
    )
    assert _codes(found) == case["found"]
    if found:
        assert case.get("says", "") in found[0].what
        assert case.get("next", "") in found[0].next


@pytest.mark.parametrize(
    ("marks", "kept"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "team_shop:apps/Deployment:a/b"}},
            ("application", "team", "shop"),
        ),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:a/b"}}, ("application", "", "shop")),
        ({"labels": {"argocd.argoproj.io/instance": "shop"}}, ("application", "", "shop")),
        (
            {"labels": {"helm.toolkit.fluxcd.io/name": "x", "helm.toolkit.fluxcd.io/namespace": "y"}},
            ("helmrelease", "y", "x"),
        ),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, None),
        ({}, None),
    ],
)
def test_the_marks_name_the_keeper(marks: dict[str, Any], kept: tuple[str, str, str] | None) -> None:
    assert keeper({"metadata": marks}) == (Keeper(*kept) if kept else None)


def connect(kubeconfig: Path) -> Connections:
    settings = ClusterSettings(kubeconfig_path=str(kubeconfig), namespaces=("apinizer",))
    return Connections.open(InstallationSettings(clusters=(settings,)))


def managers(connections: Connections) -> tuple[DeploymentFacts, ...]:
    return connections.inventory().of(Component.MANAGER)


def test_it_is_read_from_a_cluster_that_has_neither_keda_nor_gitops(sandbox: Sandbox) -> None:
    connections = connect(sandbox.kubeconfig)
    assert read_scalers(connections, managers(connections)) == ()
    api = connections.apis[""]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "manager"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3}
    kind = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}
    api.create(HPAS, {**kind, "metadata": {"name": "more"}, "spec": spec})
    api.patch(DEPLOYMENT, {"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}}, "merge")
    found = read_scalers(connections, managers(connections))
    assert _codes(found) == [["warning", "autoscaler-later"], ["warning", "keeper-unseen"]]
    assert "brings it to 2 pods" in found[0].what
    assert "does not serve argoproj.io" in found[1].what


def test_a_right_that_lacks_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list"]}]
    config = sandbox.restricted_kubeconfig(tmp_path / "config", "blind", "apinizer", rules)
    connections = connect(config)
    (found,) = [f for f in read_scalers(connections, managers(connections)) if f.code == "scalers-unseen"]
    assert found.severity.value == "warning"
    assert "may not list horizontalpodautoscalers.autoscaling" in found.what
    assert "kubectl get hpa -n apinizer" in found.next
