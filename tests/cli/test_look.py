"""`status` and `plan`: what they show, where their settings come from, and that they change nothing."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.flows.world import ALL, MANAGER, NEW, OLD, World


def test_status_is_what_the_api_shows(cli: Cli, world: World) -> None:
    rows = cli("status", "-o", "json").document["components"]
    seen = {
        f"{r['namespace']}/{r['deployment']}": (r["container"], r["image"], r["version"], r["ready"], r["replicas"])
        for r in rows
    }
    there = {}
    for key, deployment in world.deployments().items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        status = deployment["status"]
        image = container["image"]
        version = image.rpartition(":")[2]
        there[key] = (container["name"], image, version, status["readyReplicas"], deployment["spec"]["replicas"])
    assert seen == there
    assert set(seen) == ALL


def test_status_as_a_table(cli: Cli, world: World) -> None:
    ran = cli("status")
    assert ran.code == 0
    head, *lines = ran.out.splitlines()
    assert head.split() == ["COMPONENT", "NAMESPACE", "DEPLOYMENT", "CONTAINER", "IMAGE", "VERSION", "READY"]
    shown = {"/".join(line.split()[1:3]): line.split()[4:7] for line in lines if line.strip()}
    assert shown["prod/worker-prod"] == [f"apinizercloud/worker:{OLD}", OLD, "2/2"]
    assert set(shown) == ALL
    assert ran.err == ""


def test_help_and_version_do_not_need_a_cluster(cli: Cli) -> None:
    nowhere = {"KUBECONFIG": "/nowhere"}
    assert "upgrade" in cli("--help", env=nowhere).out
    assert cli("--version", env=nowhere).out.startswith("apinizer-upgrade ")
    for command in ("status", "plan", "upgrade", "demo", "deploy"):
        assert cli(command, "--help", env=nowhere).code == 0


def test_a_plan_changes_nothing(cli: Cli, world: World) -> None:
    def versions() -> dict[str, str]:
        return {key: d["metadata"]["resourceVersion"] for key, d in world.deployments().items()}

    before = versions()
    ran = cli("plan", "--to", NEW)
    assert ran.code == 0
    assert versions() == before
    order = [ran.out.index(key) for key in (MANAGER, "test/worker", "prod/worker-prod", "portal/apinizer-portal")]
    assert order == sorted(order)
    assert f"apinizercloud/apiportal:{NEW}" in ran.out


def test_a_plan_for_programs(cli: Cli) -> None:
    plan = cli("plan", "--to", NEW, "-o", "json").document
    assert (plan["current"], plan["to"], plan["blocked"], plan["nothing_to_do"]) == (OLD, NEW, False, False)
    first, *others = plan["steps"]
    assert first["component"] == "manager"
    assert [step["after"] for step in others] == ["manager"] * 6
    assert [step["changes"][0]["new"] for step in plan["steps"] if step["component"] == "portal"] == [
        f"apinizercloud/apiportal:{NEW}"
    ]


def test_dry_run_is_the_plan(cli: Cli, world: World, tmp_path: Path) -> None:
    before = world.written()
    options = ("--to", NEW, "-o", "json", "--environments", "prod,test")
    assert cli("upgrade", "--dry-run", *options).document == cli("plan", *options).document
    assert world.written() == before
    assert list(tmp_path.iterdir()) == []


def stages(ran: str) -> list[str]:
    return list(dict.fromkeys(step["stage"] for step in json.loads(ran)["steps"]))


CONFIG = """
clusters:
  - name: ""
    kubeconfig_path: {kubeconfig}
    context: sandbox
    namespaces: [apinizer, prod, test, portal]
database:
  secret: mongo-db-credentials
  name: apinizerdb
images:
  kind: registry
  prefix: nexus.local:5000/apinizercloud
environments: [prod, test, stage]
overrides:
  - namespace: portal
    deployment: apinizer-portal
    ignore: true
backup_dir: {folder}/kept
upgrade:
  together: false
  parallel: 2
  manager_timeout: 100
  timeout: 90
  repositories:
    worker: gateway
"""


@pytest.fixture
def config(world: World, tmp_path: Path) -> Path:
    path = tmp_path / "apinizer.yaml"
    path.write_text(CONFIG.format(kubeconfig=world.sandbox.kubeconfig, folder=tmp_path))
    return path


def test_a_file_with_every_field(cli: Cli, config: Path) -> None:
    ran = cli("plan", "--config", config, "--to", NEW, "-o", "json", env={"KUBECONFIG": "/nowhere"})
    plan = ran.document
    images = {f"{s['key']['namespace']}/{s['key']['name']}": s["changes"][0]["new"] for s in plan["steps"]}
    # The integration's namespace is not listed, the portal is to be ignored.
    assert images == {
        MANAGER: f"nexus.local:5000/apinizercloud/manager:{NEW}",
        "prod/worker-prod": f"nexus.local:5000/apinizercloud/gateway:{NEW}",
        "prod/cache-prod": f"nexus.local:5000/apinizercloud/cache:{NEW}",
        "test/worker": f"nexus.local:5000/apinizercloud/gateway:{NEW}",
        "test/cache": f"nexus.local:5000/apinizercloud/cache:{NEW}",
    }
    assert stages(ran.out) == ["manager", "environment prod", "environment test"]
    assert [f["what"] for f in plan["findings"] if f["code"] == "environment-unseen"] != []


def test_an_option_wins_over_the_environment_and_that_over_the_file(cli: Cli, config: Path) -> None:
    env = {"APINIZER_UPGRADE_CONFIG": str(config), "KUBECONFIG": "/nowhere"}
    plan = ("plan", "--to", NEW, "-o", "json")
    test_first = {"APINIZER_UPGRADE_ENVIRONMENTS": "test,prod"}
    assert stages(cli(*plan, env=env).out)[1] == "environment prod"
    assert stages(cli(*plan, env=env | test_first).out)[1] == "environment test"
    assert stages(cli(*plan, "--environments", "prod", env=env | test_first).out)[1] == "environment prod"
    together = env | {"APINIZER_UPGRADE_TOGETHER": "1"}
    assert stages(cli(*plan, env=together).out) == ["manager", "all components together"]
    assert len(stages(cli(*plan, "--one-by-one", env=together).out)) == 3
    prefixed = env | {"APINIZER_UPGRADE_IMAGE_PREFIX": "harbor.local/apinizer"}
    new = cli(*plan, "--image-prefix", "quay.local/apinizer", env=prefixed).document["steps"][0]["changes"][0]["new"]
    assert new == f"quay.local/apinizer/manager:{NEW}"
    new = cli(*plan, env=prefixed).document["steps"][0]["changes"][0]["new"]
    assert new == f"harbor.local/apinizer/manager:{NEW}"
    new = cli(*plan, "--repository", "worker=worker", env=env).document["steps"][1]["changes"][0]["new"]
    assert new.endswith(f"/worker:{NEW}")


def test_every_option_of_the_plan_by_the_environment(cli: Cli, world: World) -> None:
    env = {
        "APINIZER_UPGRADE_KUBECONFIG": str(world.sandbox.kubeconfig),
        "APINIZER_UPGRADE_CONTEXT": "sandbox",
        "APINIZER_UPGRADE_NAMESPACES": "apinizer test",
        "APINIZER_UPGRADE_TO": NEW,
        "APINIZER_UPGRADE_OUTPUT": "json",
        "APINIZER_UPGRADE_PARALLEL": "3",
        "KUBECONFIG": "/nowhere",
    }
    steps = cli("plan", env=env).document["steps"]
    assert {s["key"]["namespace"] for s in steps} == {"apinizer", "test"}
