"""The embedded Prefect server, by starting it for real."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from deployments.embedded import EmbeddedServer, prepare
from tasks.domain.errors import UpgradeError
from tests.flows.world import eventually

PREPARE = [sys.executable, "-m", "deployments.embedded", "prepare"]

FLOW = """
from prefect import flow, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY
from prefect.task_runners import ThreadPoolTaskRunner
from deployments.embedded import without_heartbeats

@task
def double(number):
    progress = create_progress_artifact(progress=0.0, key=f"progress-{number}")
    update_progress_artifact(progress, progress=100.0)
    return 2 * number

@flow(task_runner=ThreadPoolTaskRunner(max_workers=8))
def tiny(count):
    total = sum(future.result() for future in [double.submit(number) for number in range(count)])
    create_table_artifact([{"total": total}], key="table")
    return total

with without_heartbeats():
    print("heartbeats", PREFECT_FLOWS_HEARTBEAT_FREQUENCY.value())
    tiny(25)
    state = tiny(25, return_state=True)  # While the tasks of the first are still being recorded.
print("state", state.name)
with get_client(sync_client=True) as client:
    print("recorded", client.read_flow_run(state.state_details.flow_run_id).state.name)
    artifacts = client.read_artifacts()
    print("progress", sorted(artifact.data for artifact in artifacts if artifact.type == "progress"))
    print("tables", [artifact.data for artifact in artifacts if artifact.type == "table"])
"""

TABLE = '[{"total": 600}]'

SAME_PROCESS = """
import os
from deployments.embedded import EmbeddedServer, quick_imports, without_heartbeats
with EmbeddedServer() as server:
    os.environ.update(server.settings())
    with quick_imports():
        from prefect import flow, task
    server.wait()
    answer = task(lambda: 42, name="answer")
    with without_heartbeats():
        flow(lambda: answer(), name="question")()
"""

ABANDONED = """
import sys, time
from deployments.embedded import EmbeddedServer
server = EmbeddedServer()
server.start()
if sys.argv[1] == "serving":
    server.wait()
print(server._process.pid, server._directory, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that two processes were told to fill at the same time."""
    folder = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    both = [subprocess.Popen(PREPARE, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=240)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert printed == {str(path) for path in folder.rglob("*.db")}
    return folder


@pytest.fixture
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return cache


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[EmbeddedServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        with EmbeddedServer() as running:
            running.wait()
            yield running


def answer(server: EmbeddedServer, path: str, password: str | None = None) -> int:
    """The HTTP status of a GET."""
    headers = {} if password is None else {"Authorization": f"Basic {b64encode(password.encode()).decode()}"}
    request = Request(server.settings()["PREFECT_API_URL"] + path, headers=headers)
    try:
        with urlopen(request, timeout=30) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def migrated(template: Path) -> bool:
    """Whether the file is a whole database with Prefect's tables and block types in it."""
    with closing(sqlite3.connect(f"file:{template}?mode=ro", uri=True)) as connection:
        whole = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        revisions = connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0]
        types = connection.execute("SELECT count(*) FROM block_type").fetchone()[0]
    return whole and revisions == 1 and types > 0


def test_importing_it_costs_no_prefect() -> None:
    code = (
        "import sys, deployments.embedded; print([m for m in ('prefect', 'pydantic', 'uvicorn') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_two_at_once_make_one_template(cached: Path) -> None:
    assert migrated(prepare())
    assert sorted(path.name for path in prepare().parent.iterdir()) == ["lock", prepare().name]


def test_a_template_that_was_cut_short_is_made_again(
    cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / prepare().relative_to(cached)
    damaged.parent.mkdir(parents=True)
    shutil.copy(prepare(), damaged)
    os.truncate(damaged, damaged.stat().st_size // 2)
    (damaged.parent / "killed.partial").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = prepare()
    assert migrated(made)
    assert sorted(path.name for path in made.parent.iterdir()) == ["lock", made.name]


def test_health_is_open_and_all_else_wants_the_password(server: EmbeddedServer) -> None:
    password = server.settings()["PREFECT_API_AUTH_STRING"]
    assert answer(server, "/health") == 200
    assert answer(server, "/admin/version") == 401
    assert answer(server, "/admin/version", password + "x") == 401
    assert answer(server, "/admin/version", password) == 200


def test_its_password_is_in_no_process_list(server: EmbeddedServer) -> None:
    assert server._process is not None
    secret = server.settings()["PREFECT_API_AUTH_STRING"].partition(":")[2]
    assert secret.encode() not in Path(f"/proc/{server._process.pid}/cmdline").read_bytes()


def test_a_flow_runs_through_it(server: EmbeddedServer) -> None:
    # A proxy that nobody runs: loopback must not go through it. Debug logging tells of refused calls.
    environment = os.environ | {"HTTP_PROXY": "http://127.0.0.1:9", "PREFECT_LOGGING_LEVEL": "DEBUG"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_LOGGING_LEVEL", "DEBUG")
        settings = server.settings()
    ran = subprocess.run(
        [sys.executable, "-c", FLOW],
        env=environment | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.stdout.splitlines() == [
        "heartbeats None",
        "state Completed",
        "recorded Completed",
        f"progress {[100] * 50}",
        f"tables {[TABLE] * 2}",
    ], ran.stderr[-3000:]
    assert "status code 503" not in ran.stderr


def test_a_process_that_ran_a_flow_ends_without_looking_for_the_server(cached: Path) -> None:
    environment = os.environ | {"PREFECT_LOGGING_LEVEL": "DEBUG"}
    ran = subprocess.run(
        [sys.executable, "-c", SAME_PROCESS], env=environment, capture_output=True, text=True, timeout=240, check=True
    )
    # Left to the end of the process, the last events meet a closed port and are tried again, a second apart.
    assert "Sending event" in ran.stderr
    assert "Unable to connect" not in ran.stderr


def test_stop_leaves_nothing(cached: Path) -> None:
    with EmbeddedServer() as server:
        server.wait()
        assert server._process is not None
        pid, directory = server._process.pid, server._directory
        assert directory.is_dir()
    assert not running(pid)
    assert not directory.exists()
    with pytest.raises(URLError):
        answer(server, "/health")


@pytest.mark.parametrize("moment", ["loading", "serving"])
def test_it_goes_with_a_caller_that_is_killed(cached: Path, moment: str) -> None:
    caller = subprocess.Popen([sys.executable, "-c", ABANDONED, moment], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    with caller.stdout:
        pid, directory = caller.stdout.readline().split()
    assert running(int(pid))
    assert Path(directory).is_dir()
    os.kill(caller.pid, signal.SIGKILL)
    caller.wait()
    assert eventually(lambda: not running(int(pid)))
    assert not Path(directory).exists()


def test_a_server_that_ends_early_says_why(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import sys\nif 'serve' in sys.orig_argv: raise SystemExit('no luck today')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with EmbeddedServer() as server, pytest.raises(UpgradeError) as raised:
        server.wait()
    assert "ended while it was starting" in raised.value.happened
    assert "no luck today" in raised.value.observed
    assert "PREFECT_API_URL" in raised.value.next


def test_a_server_that_is_too_slow_is_an_error(cached: Path) -> None:
    with EmbeddedServer() as server, pytest.raises(UpgradeError, match="did not start"):
        server.wait(timeout=0.01)


def test_a_cache_that_cannot_be_written_only_costs_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with EmbeddedServer() as server:
        server.wait(timeout=240)
        assert answer(server, "/flows/name/none", server.settings()["PREFECT_API_AUTH_STRING"]) == 404


def test_settings_of_the_person_do_not_reach_the_server(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "postgresql+asyncpg://nobody@127.0.0.1:9/none")
    with EmbeddedServer() as server:
        server.wait()
        assert answer(server, "/flows/name/none", server.settings()["PREFECT_API_AUTH_STRING"]) == 404
