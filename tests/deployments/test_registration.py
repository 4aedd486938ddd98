"""The upgrade as a deployment: a Prefect server, a process worker, and runs that are created by REST as CI does."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.embedded import prepare
from deployments.sandbox.launch import Sandbox
from tests.flows.world import ALL, MANAGER, NEW, OLD, World, archives, clean_environment, journals, lock_holder

BIN = Path(sys.executable).parent
AUTH = ("ci", "a-password-of-the-test")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
FLOWS = ("upgrade", "resume", "rollback", "undo", "stage", "load", "bundle", "backup", "verify", "restore")
DEPLOY = ("deploy", "--installation", "site", "--pool", "gateways")


@dataclass(frozen=True)
class Site:
    """A sandbox, a Prefect server of its own and the environment of whoever uses it."""

    world: World
    api: httpx.Client
    environment: dict[str, str]
    folder: Path

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "apinizer-upgrade"), *DEPLOY, "--config", str(self.folder / "site.yaml"), *options],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def deployment(self, flow: str = "upgrade") -> dict[str, Any]:
        found: dict[str, Any] = self.api.get(f"/deployments/name/{flow}/site").raise_for_status().json()
        return found

    def create_run(self, key: str = "", flow: str = "upgrade", **parameters: Any) -> httpx.Response:
        body = {"parameters": parameters, **({"idempotency_key": key} if key else {})}
        for _ in range(20):
            answer = self.api.post(f"/deployments/{self.deployment(flow)['id']}/create_flow_run", json=body)
            if answer.status_code != 503:  # SQLite is busy: again with the same key, as CI would
                break
            time.sleep(0.5)
        return answer

    def ended(self, run: str) -> dict[str, Any]:
        """The run when it has ended."""

        def state() -> str:
            return str(self.api.get(f"/flow_runs/{run}").json().get("state_type"))

        assert until(lambda: state() in ENDED, 150), (self.folder / "worker.log").read_text()[-3000:]
        found: dict[str, Any] = self.api.get(f"/flow_runs/{run}").raise_for_status().json()
        return found


def until(true: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if true():
                return True
        time.sleep(0.3)
    return False


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """A process and whatever it starts, while the context lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, cwd=log.parent, start_new_session=True
        )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


CONFIG = """
clusters: [{{kubeconfig_path: {kubeconfig}}}]
database: {{uri: "{uri}"}}
backup_dir: {folder}/backups
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shutil.copy(prepare(), folder / "prefect.db")
    url = f"http://127.0.0.1:{port}/api"
    environment = clean_environment() | {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": ":".join(AUTH),
        "PREFECT_SERVER_API_AUTH_STRING": ":".join(AUTH),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (
        Sandbox(version=OLD, speed=10) as sandbox,
        running(server, environment, folder / "server.log"),
        httpx.Client(base_url=url, auth=AUTH, timeout=30, trust_env=False) as api,
    ):
        (folder / "site.yaml").write_text(
            CONFIG.format(kubeconfig=sandbox.kubeconfig, uri=sandbox.mongo_uri, folder=folder)
        )
        assert until(lambda: api.get("/health").status_code == 200, 120), (folder / "server.log").read_text()
        made = Site(World(sandbox), api, environment, folder)
        first = made.deploy()
        assert first.returncode == 0, first.stderr
        with running(
            [str(BIN / "prefect"), "worker", "start", "--pool", "gateways", "--limit", "2"],
            environment,
            folder / "worker.log",
        ):
            yield made


def test_it_may_be_deployed_again(site: Site) -> None:
    before = site.deployment()
    again = site.deploy()
    assert again.returncode == 0, again.stderr
    after = site.deployment()
    assert after["id"] == before["id"]
    assert (after["parameters"], after["parameter_openapi_schema"]) == (
        before["parameters"],
        before["parameter_openapi_schema"],
    )
    found = site.api.post("/deployments/filter", json={}).json()
    assert {each["entrypoint"] for each in found} == {f"flows.{flow}.{flow}" for flow in FLOWS}


@pytest.mark.parametrize("flow", FLOWS)
def test_one_run_at_a_time(site: Site, flow: str) -> None:
    deployment = site.deployment(flow)
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deployment["work_pool_name"] == "gateways"


def test_the_form_explains_every_field(site: Site) -> None:
    schema = site.deployment()["parameter_openapi_schema"]
    assert set(schema["properties"]) >= {"to", "installation", "order", "environments", "timeout"}
    for name, field in schema["properties"].items():
        assert len(field.get("description", "")) > 20, name
    assert schema["required"] == ["to"]
    assert schema["definitions"]["Order"]["enum"] == ["one environment after another", "all components together"]


@pytest.mark.parametrize(
    ("flow", "required"),
    [
        ("stage", ["to"]),
        ("load", ["bundle"]),
        ("bundle", ["to"]),
        ("backup", None),
        ("verify", ["archive"]),
        ("restore", ["archive"]),
        ("resume", None),
        ("rollback", None),
        ("undo", ["deployment", "to"]),
    ],
)
def test_the_forms_of_the_others(site: Site, flow: str, required: list[str] | None) -> None:
    schema = site.deployment(flow)["parameter_openapi_schema"]
    assert schema.get("required") == required
    for name, field in schema["properties"].items():
        assert len(field.get("description", "")) > 20, name
    assert site.deployment(flow)["parameters"] == {"installation": "site"}


@pytest.mark.parametrize(
    "parameters",
    [
        {"to": "latest"},
        {},
        {"to": NEW, "order": "backwards"},
        {"to": NEW, "parallel": 0},
        {"to": NEW, "environments": "prod"},
        {"to": NEW, "repositories": {"gateway": "x"}},
    ],
    ids=str,
)
def test_bad_parameters_are_refused_at_once(site: Site, parameters: dict[str, Any]) -> None:
    assert site.create_run(**parameters).status_code == 409


@pytest.fixture(scope="module")
def finished(site: Site) -> dict[str, Any]:
    """The run that upgraded the sandbox."""
    answer = site.create_run(key=f"release-{NEW}", to=NEW)
    assert answer.status_code == 201, answer.text
    again = site.create_run(key=f"release-{NEW}", to=NEW)
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    return site.ended(answer.json()["id"])


def test_a_run_by_rest_upgrades_the_installation(site: Site, finished: dict[str, Any]) -> None:
    assert finished["state_type"] == "COMPLETED", (finished["state"], (site.folder / "worker.log").read_text()[-3000:])
    assert finished["name"] == f"upgrade site to {NEW}"
    assert site.world.at(NEW) == ALL
    assert all(NEW in answer for answer in site.world.answered().values())
    assert len(archives(site.folder / "backups")) == 1


def test_the_graph_shows_the_order(site: Site, finished: dict[str, Any]) -> None:
    nodes = site.api.get(f"/flow_runs/{finished['id']}/graph-v2").raise_for_status().json()["nodes"]
    labels = {identity: node["label"] for identity, node in nodes}
    manager = {i for i, label in labels.items() if label.endswith(f" {MANAGER}")}
    set_images = {label: node for _, node in nodes if (label := node["label"]).startswith("set image: ")}
    assert {label.rpartition(" ")[2] for label in set_images} == ALL
    for label, node in set_images.items():
        parents = {parent["id"] for parent in node["parents"]}
        if label.endswith(MANAGER):
            assert {labels[parent] for parent in parents} >= {"images at hand", "backup proved"}
        else:
            assert parents & manager, f"no edge from the manager to {label}"
    prod = next(node for label, node in set_images.items() if label.endswith("prod/worker-prod"))
    assert {labels[parent["id"]] for parent in prod["parents"]} >= {
        "verify: worker test/worker",
        "verify: cache test/cache",
    }


def test_the_artifacts_are_there(site: Site, finished: dict[str, Any]) -> None:
    found = site.api.post("/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [finished["id"]]}}}).json()
    by_key = {artifact["key"]: artifact for artifact in found}
    assert {"plan", "backup", "before-and-after", "report"} <= set(by_key)
    rollouts = [a for key, a in by_key.items() if key.startswith("progress-rollout-")]
    assert len(rollouts) == len(ALL)
    assert {artifact["data"] for artifact in rollouts} == {100.0}
    assert f"# Upgrade from {OLD} to {NEW}" in by_key["plan"]["data"]
    assert by_key["before-and-after"]["data"].count(f":{NEW}") == len(ALL)


def test_no_secret_is_to_be_seen(site: Site, finished: dict[str, Any]) -> None:
    run = finished["id"]
    logs: list[dict[str, Any]] = []

    def logged() -> bool:
        """Lines are sent in batches, and given in pages; the report's is one of the last."""
        wish = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_DESC"}
        logs[:] = site.api.post("/logs/filter", json=wish).json()
        return any("7 of 7" in line["message"] for line in logs)

    assert until(logged, 30), logs
    tasks = site.api.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [run]}}}).json()
    blocks = site.api.post("/block_documents/filter", json={}).json()
    artifacts = site.api.post("/artifacts/filter", json={}).json()
    shown = str([logs, tasks, blocks, artifacts, finished, site.deployment()])
    assert "worker-prod" in shown
    assert not any(secret in shown for secret in site.world.secrets())
    worker = (site.folder / "worker.log").read_text()
    assert not any(secret in worker for secret in site.world.secrets())


def test_a_second_run_finds_nothing_to_do(site: Site, finished: dict[str, Any]) -> None:
    before = site.world.written()
    ended = site.ended(site.create_run(to=NEW).json()["id"])
    assert ended["state_type"] == "COMPLETED", ended["state"]
    assert site.world.written() == before
    assert len(archives(site.folder / "backups")) == 1


def test_a_backup_and_its_proof_by_rest(site: Site, finished: dict[str, Any]) -> None:
    before = set(archives(site.folder / "backups"))
    ended = site.ended(site.create_run(flow="backup", apinizer_version="by-rest").json()["id"])
    assert ended["state_type"] == "COMPLETED", (ended["state"], (site.folder / "worker.log").read_text()[-3000:])
    (made,) = set(archives(site.folder / "backups")) - before
    assert "--by-rest--" in made.name
    ended = site.ended(site.create_run(flow="verify", archive=str(made), rehearse=True).json()["id"])
    assert ended["state_type"] == "COMPLETED", (ended["state"], (site.folder / "worker.log").read_text()[-3000:])
    manifest = json.loads(made.with_name(f"{made.name}.json").read_text())
    assert manifest["rehearsal"]["collections"] == len(manifest["namespaces"])
    ended = site.ended(site.create_run(flow="restore", archive=str(made)).json()["id"])
    assert ended["state_type"] == "FAILED"
    assert "The manager runs" in ended["state"]["message"]
    for each in (made, made.with_name(f"{made.name}.json")):
        each.unlink()


def test_a_run_that_may_not_be_fails(site: Site, finished: dict[str, Any]) -> None:
    before = site.world.written()
    ended = site.ended(site.create_run(to="2025.04.5").json()["id"])
    assert ended["state_type"] == "FAILED"
    assert "downgrad" in ended["state"]["message"]
    assert site.world.written() == before


def test_a_schedule_with_a_time_zone(site: Site, finished: dict[str, Any]) -> None:
    done = site.deploy("--to", "2025.11.1", "--cron", "0 2 * * 6", "--timezone", "Europe/Istanbul")
    assert done.returncode == 0, done.stderr
    (schedule,) = site.deployment()["schedules"]
    assert schedule["active"]
    assert (schedule["schedule"]["cron"], schedule["schedule"]["timezone"]) == ("0 2 * * 6", "Europe/Istanbul")
    assert schedule["parameters"] == {"to": "2025.11.1"}
    assert site.deployment("backup")["schedules"] == []


def test_schedules_stay_until_they_are_taken_away(site: Site, finished: dict[str, Any]) -> None:
    def crons() -> dict[str, list[str]]:
        return {flow: [s["schedule"]["cron"] for s in site.deployment(flow)["schedules"]] for flow in FLOWS}

    assert site.deploy("--to", "2025.11.1", "--cron", "0 3 * * 6").returncode == 0
    done = site.deploy("--backup-cron", "0 1 * * *")
    assert "Deployment backup/site: registered, scheduled: 0 1 * * *" in done.stdout
    both: dict[str, list[str]] = {flow: [] for flow in FLOWS}
    both |= {"upgrade": ["0 3 * * 6"], "backup": ["0 1 * * *"]}
    assert crons() == both
    assert site.deployment()["schedules"][0]["parameters"] == {"to": "2025.11.1"}
    assert site.deploy("--no-schedule").returncode == 0
    assert not any(crons().values())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--cron", "0 2 * * 6"), "--to"),
        (("--cron", "every day", "--to", NEW), "cron"),
        (("--backup-cron", "every night"), "cron"),
        (("--cron", "0 2 * * 6", "--to", NEW, "--timezone", "Mars/Base"), "Mars/Base"),
        (("--to", "newest"), "newest"),
    ],
)
def test_a_schedule_that_cannot_be(site: Site, options: tuple[str, ...], told: str) -> None:
    before = site.deployment()["schedules"]
    done = site.deploy(*options)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert site.deployment()["schedules"] == before


def test_a_server_that_is_away(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    away = Site(
        site.world, site.api, site.environment | {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}, site.folder
    )
    done = away.deploy()
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "does not answer" in upgrade_here(away, "2025.11.1").stderr


def test_a_login_that_is_refused(site: Site) -> None:
    environment = site.environment | {"PREFECT_API_AUTH_STRING": "ci:another-passw0rd"}
    stranger = Site(site.world, site.api, environment, site.folder)
    done = stranger.deploy()
    assert done.returncode == 1
    assert "refused the login" in done.stderr
    assert "another-passw0rd" not in done.stdout + done.stderr


def upgrade_here(site: Site, to: str) -> subprocess.CompletedProcess[str]:
    """The command line's own upgrade, with the server in its environment."""
    options = ["upgrade", "--config", "site.yaml", "--to", to, "--together", "--yes"]
    return subprocess.run(
        [str(BIN / "apinizer-upgrade"), *options],
        env=site.environment,
        cwd=site.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_cancelled_run_stops_at_a_boundary_and_its_retry_goes_on(site: Site, finished: dict[str, Any]) -> None:
    """As the buttons of the UI do it; the journal is the run's, so its retry is the same run."""
    to = "2025.11.1"
    known = len(journals(site.world))
    site.world.sandbox.set_speed(1)  # the manager's migration takes seconds
    run = site.create_run(to=to).json()["id"]
    assert until(lambda: site.world.images()[MANAGER].endswith(to), 120)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    assert site.api.post(f"/flow_runs/{run}/set_state", json=cancelling).json()["status"] == "ACCEPT"
    ended = site.ended(run)
    assert ended["state_type"] == "CANCELLED", ended["state"]
    (journal,) = journals(site.world)[known:]
    assert not journal.get("ended")
    assert journal["tries"][-1]["ended"], "the run itself said where it stopped: it was not killed"
    said = journal["tries"][-1]["error"]
    assert "interrupted" in said["happened"]
    assert f"apinizer-upgrade resume {journal['id']}" in said["next"]
    assert lock_holder(site.world) == ""
    assert site.world.at(NEW) == ALL - {MANAGER}
    site.world.sandbox.set_speed(10)
    retry = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    assert site.api.post(f"/flow_runs/{run}/set_state", json=retry).json()["status"] == "ACCEPT"
    assert until(lambda: site.api.get(f"/flow_runs/{run}").json()["state_type"] not in (*ENDED, "SCHEDULED"), 60)
    ended = site.ended(run)
    assert ended["state_type"] == "COMPLETED", (ended["state"], (site.folder / "worker.log").read_text()[-3000:])
    assert site.world.at(to) == ALL
    (journal,) = journals(site.world)[known:]
    assert (journal["how"], len(journal["tries"])) == ("complete", 2)
    assert sum(entry["kind"] == "set-image" for entry in journal["entries"]) == len(ALL)
    assert sum(f"{NEW}--" in made.name for made in archives(site.folder / "backups")) == 1


def test_a_run_of_the_command_line_appears_on_the_server(site: Site, finished: dict[str, Any]) -> None:
    to = "2025.11.1"
    # Something is left to do, also where the run before this one came there already.
    site.world.set_image("portal/apinizer-portal", f"apinizercloud/apiportal:{NEW}")
    done = upgrade_here(site, to)
    assert done.returncode == 0, done.stderr
    assert site.world.at(to) == ALL
    name = f"upgrade command-line to {to}"
    (run,) = site.api.post("/flow_runs/filter", json={"flow_runs": {"name": {"any_": [name]}}}).json()
    assert run["state_type"] == "COMPLETED"
    assert not any(secret in str(run) for secret in site.world.secrets())
