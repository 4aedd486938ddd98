"""The client that everybody uses: what an operator types has to work, whatever it asks the server for behind the scenes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Release
from .world import REVISION, Namespace, container, deployment, ready

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(kubeconfig: Path, installed: Namespace, tmp_path: Path) -> Kubectl:
    def run(*words: str, stdin: str | None = None) -> str:
        where = ["--kubeconfig", str(kubeconfig), "--cache-dir", str(tmp_path), "--namespace", installed.name]
        done = subprocess.run(
            ["kubectl", *where, *words], input=stdin, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_rollout_and_back(installed: Namespace, kubectl: Kubectl) -> None:
    installed.roll_out(deployment("app", container("main", env=[{"name": "STEP", "value": "1"}])))
    kubectl("set", "env", "deployment/app", "STEP=2")
    said = kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert 'deployment "app" successfully rolled out' in said
    kubectl("annotate", "deployment/app", "kubernetes.io/change-cause=second")
    kubectl("rollout", "undo", "deployment/app")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    seen = installed.settled("app")
    assert seen["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "STEP", "value": "1"}]
    assert seen["metadata"]["annotations"][REVISION] == "3"
    assert "second" in kubectl("rollout", "history", "deployment/app")


def test_set_image(installed: Namespace, kubectl: Kubectl) -> None:
    installed.observed(deployment("app", container("main"), container("sidecar"), replicas=0))
    kubectl("set", "image", "deployment/app", "main=example.org/main:2")
    containers = installed.get("deployments", "app")["spec"]["template"]["spec"]["containers"]
    assert [each["image"] for each in containers] == ["example.org/main:2", "realcluster/pause:1"]


def test_scale_wait_and_get(installed: Namespace, kubectl: Kubectl) -> None:
    installed.create("deployments", deployment("app"))
    kubectl("wait", "--for=condition=Available", "deployment/app", "--timeout=60s")
    kubectl("scale", "deployment/app", "--replicas=2")
    kubectl("rollout", "status", "deployment/app", "--timeout=60s")
    assert len(kubectl("get", "pods", "--selector", "app=app", "--output", "name").split()) == 2
    assert {"manager", "worker-prod", "app"} <= {
        line.split()[1] for line in kubectl("get", "deployments", "--all-namespaces", "--no-headers").splitlines()
    }
    seen = json.loads(kubectl("get", "nodes", "--output", "json"))
    assert {"node-a", "node-b"} <= {each["metadata"]["name"] for each in seen["items"]}
    assert "NewReplicaSet" in kubectl("describe", "deployment/app")


def test_logs(installed: Namespace, release: Release, kubectl: Kubectl) -> None:
    installed.create("deployments", deployment("app", release.component("cache")))
    installed.pod_until("app", ready, "ready")
    assert kubectl("logs", "deployment/app", "--tail=1").rstrip().endswith(f"cache {release.version} ready")


def test_apply_and_delete(installed: Namespace, kubectl: Kubectl) -> None:
    made = deployment("app", replicas=0)
    kubectl("apply", "--filename=-", stdin=json.dumps(made))
    made["spec"]["minReadySeconds"] = 2
    assert "configured" in kubectl("apply", "--filename=-", stdin=json.dumps(made))
    assert installed.get("deployments", "app")["spec"]["minReadySeconds"] == 2
    assert "unchanged" in kubectl("apply", "--filename=-", stdin=json.dumps(made))
    kubectl("delete", "deployment", "app")
    assert not installed.api.exists(installed.path("deployments", "app"))
    assert kubectl("auth", "can-i", "patch", "deployments").strip() == "yes"
