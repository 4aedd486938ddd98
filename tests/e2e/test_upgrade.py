"""An upgrade of real pods, on to the next release, and what stops it."""

import json
import re

import pytest

from .conftest import SEVEN, Cluster


def repository(name: str, version: str) -> str:
    """The image that a Deployment of the installation should run, by the release notes."""
    component = {
        "worker-prod": "worker",
        "cache-prod": "cache",
        "apinizer-portal": "portal",
        "apinizer-integration": "integration",
    }
    kind = component.get(name.rpartition("/")[2], name.rpartition("/")[2])
    renamed = {"manager": ("2025.11.1", "apimanager"), "portal": ("2025.04.6", "apiportal")}
    numbers = [int(part) for part in version.split(".")]
    if kind in renamed and numbers >= [int(part) for part in renamed[kind][0].split(".")]:
        kind = renamed[kind][1]
    return f"apinizercloud/{kind}:{version}"


def test_all_seven_reach_the_target_and_then_the_next_across_the_managers_new_name(cluster: Cluster) -> None:
    cluster.reset()
    cluster.import_images("2025.07.0")
    limited = cluster.limited_kubeconfig()
    run = cluster.start("upgrade", "--to", "2025.07.0", KUBECONFIG=limited)
    code, _ = run.wait()
    assert code == 0, run.text
    assert cluster.images() == {name: repository(name, "2025.07.0") for name in SEVEN}
    assert cluster.versions() == {name: {"2025.07.0"} for name in SEVEN}
    assert run.at("apinizer/manager: 1 of 1 pods answer") < run.at("test/worker: image set")
    assert run.at("test/cache: 1 of 1 pods answer") < run.at("prod/worker-prod: image set")
    assert run.at("migrating the database from 2025.04.3 to 2025.07.0")
    backup = next((cluster.backups / "backups").glob("*.archive"))
    assert backup.stat().st_mode & 0o777 == 0o600

    history = cluster.kubectl("rollout", "history", "-n", "apinizer", "deployment/manager")
    assert "apinizer-upgrade: 2025.04.3 to 2025.07.0" in history

    assert_status_agrees_with_kubectl(cluster, "2025.07.0")
    code, text = cluster.run("upgrade", "--to", "2025.07.0")
    assert (code, "Nothing to do" in text) == (0, True), text

    cluster.import_images("2025.11.1")
    together = cluster.start("upgrade", "--to", "2025.11.1", "--together")
    code, _ = together.wait()
    assert code == 0, together.text
    assert cluster.images() == {name: repository(name, "2025.11.1") for name in SEVEN}
    assert cluster.versions() == {name: {"2025.11.1"} for name in SEVEN}
    seconds = together.at("report: 7 of 7") - together.at("apinizer/manager: image set")
    print(f"manager's image set to last verification, together: {seconds:.1f} s")


def assert_status_agrees_with_kubectl(cluster: Cluster, version: str) -> None:
    code, text = cluster.run("status", "-o", "json")
    assert code == 0, text
    wide = cluster.kubectl("get", "deployments", "-Ao", "wide", "--no-headers").splitlines()
    listed = {}
    for line in wide:
        namespace, name, ready, _, _, _, container, image, _ = line.split()
        listed[f"{namespace}/{name}"] = (container, image, ready)
    shown = {
        f"{row['namespace']}/{row['deployment']}": (row["container"], row["image"], f"{row['ready']}/{row['replicas']}")
        for row in json.loads(text)["components"]
    }
    assert shown == listed
    assert {row["version"] for row in json.loads(text)["components"]} == {version}


def test_an_image_missing_on_one_node_ends_it_soon_and_nothing_after_the_manager_is_touched(cluster: Cluster) -> None:
    cluster.reset()
    cluster.import_images("2025.07.0", ["A"])
    cluster.kubectl("cordon", "node-a")  # so that the new manager's pod lands where the image is not
    before = cluster.generations()
    run = cluster.start("upgrade", "--to", "2025.07.0")
    patched = run.at("apinizer/manager: image set")
    code, ended = run.wait()
    print(f"image missing: said {ended - patched:.1f} s after the manager's patch")
    assert code == 1
    assert ended - patched < 30
    pod = re.search(r"manager-[a-z0-9]+-[a-z0-9]+", run.text)
    assert pod, run.text
    assert "node-b" in run.text
    assert "apinizercloud/manager:2025.07.0" in run.text
    assert "Next:" in run.text
    assert "images import" in run.text or "registry" in run.text
    after = cluster.generations()
    assert {name for name in SEVEN if before[name] != after[name]} == {"apinizer/manager"}

    cluster.import_images("2025.07.0", ["B"])
    cluster.kubectl("uncordon", "node-a")
    code, text = cluster.run("resume")
    assert code == 0, text
    assert cluster.versions() == {name: {"2025.07.0"} for name in SEVEN}


def test_a_manager_that_crashes_is_said_with_its_last_words_and_workers_are_untouched(cluster: Cluster) -> None:
    cluster.reset()
    cluster.import_images("2025.08.0")
    before = cluster.generations()
    run = cluster.start("upgrade", "--to", "2025.08.0")
    patched = run.at("apinizer/manager: image set")
    code, ended = run.wait()
    print(f"crashing manager: said {ended - patched:.1f} s after its patch")
    assert code == 1
    assert ended - patched < 40
    error = run.text.partition("Error: ")[2]
    assert "migration V2025_08 left an index build unfinished" in error
    assert "Not touched: " in error
    assert ".archive" in error
    after = cluster.generations()
    assert {name for name in SEVEN if before[name] != after[name]} == {"apinizer/manager"}


@pytest.mark.part
def test_an_api_server_that_restarts_in_mid_rollout_does_not_end_the_run(cluster: Cluster) -> None:
    cluster.reset()
    cluster.import_images("2025.07.0")
    run = cluster.start("upgrade", "--to", "2025.07.0", "--together")
    run.at("apinizer/manager: image set")
    first = cluster.restart("kube-apiserver", 5)
    run.at("test/worker: image set")
    assert first.wait(90) == 0
    code, _ = run.wait()
    assert code == 0, run.text
    assert cluster.versions() == {name: {"2025.07.0"} for name in SEVEN}
