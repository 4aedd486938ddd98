"""`runs`, `runs show`, `runs abandon` on a sandbox: what is shown, what is refused, and that only the journal changes."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import config

from deployments.cli.main import app, exit_code_of
from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.domain.journal import Ended, Journal
from tasks.record.journal_store import JournalStore
from tasks.record.lease import Lease
from tests.cli.conftest import COMMAND, Ran, four_parts
from tests.domain.journals import NEW, OLD, OTHER, at, backup, journal, restore, rollback, scale, set_image
from tests.flows.world import World, clean_environment

Runs = Callable[..., Ran]
FAILED = {"happened": "The manager will not become Ready.", "observed": "It crashes.", "safe": "Old.", "next": "Look."}
DONE = journal("20260301-110000-aa", set_image(done=60), begun=-3600, backup=backup()).end(at(-3000), Ended.COMPLETE)
OPEN = journal("20260301-120000-bb", set_image(), backup=backup()).stop(at(90), FAILED)
NONE = journal("20260301-130000-cc", begun=3600).stop(at(3700), FAILED)


@pytest.fixture
def runs(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """`runs("show", ID)`; `answer` is what a person types at a terminal, None where there is none."""
    for name, value in (clean_environment() | sandbox.env()).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def run(*arguments: str, answer: str | None = None) -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO() if answer is None else Terminal(f"{answer}\n"))
        code = exit_code_of(app, ["runs", *arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def api(sandbox: Sandbox) -> KubernetesApi:
    return KubernetesApi(config.new_client_from_config(str(sandbox.kubeconfig)))


@pytest.fixture
def store(api: KubernetesApi) -> Iterator[JournalStore]:
    """The installation's journals; none when the test begins and ends."""
    store = JournalStore(api, "apinizer")
    yield store
    for thing in api.list("/api/v1/namespaces/apinizer/configmaps").items:
        if thing["metadata"]["name"].startswith("apinizer-upgrade-"):
            api.delete(f"/api/v1/namespaces/apinizer/configmaps/{thing['metadata']['name']}")


def keep(store: JournalStore, *journals: Journal) -> None:
    for one in journals:
        store.create(one)


def spoil(api: KubernetesApi, run: str, text: str) -> None:
    path = f"/api/v1/namespaces/apinizer/configmaps/apinizer-upgrade-{run}"
    api.patch(path, {"data": {"journal.json": text}}, "merge")


def rows(ran: Ran) -> dict[str, str]:
    """The table's lines by their first word."""
    assert ran.code == 0, ran
    head, *lines = [line for line in ran.out.splitlines() if line.strip()]
    assert head.split()[:3] == ["ID", "RUN", "STATE"]
    return {line.split()[0]: " ".join(line.split()) for line in lines}


# ---------------------------------------------------------------------------------------------------------- runs
def test_the_table(runs: Runs, store: JournalStore) -> None:
    keep(store, DONE, OPEN, NONE)
    found = rows(runs())
    assert list(found) == [NONE.id, OPEN.id, DONE.id], "newest first"
    assert (
        f"upgrade {OLD} -> {NEW} complete 2026-03-01 11:00:00 2026-03-01 11:10:00 1 ayse on bastion" in found[DONE.id]
    )
    assert f"upgrade {OLD} -> {NEW} unfinished" in found[OPEN.id]
    assert "nothing changed" in found[NONE.id]


def test_while_it_is_rolled_back(runs: Runs, store: JournalStore) -> None:
    keep(store, OPEN, rollback(OPEN, "20260301-140000-dd", scale()))
    found = rows(runs())
    assert "being rolled back" in found[OPEN.id]
    assert f"rollback {OLD} -> {OLD} unfinished" in found["20260301-140000-dd"]


def test_none(runs: Runs) -> None:
    assert (runs().code, runs().out) == (0, "No run is recorded.\n")
    assert runs("-o", "json").document == {"runs": [], "damaged": [], "lock": []}


def test_for_programs(runs: Runs, store: JournalStore) -> None:
    keep(store, DONE, OPEN)
    first, second = runs("-o", "json").document["runs"]
    assert (first["id"], first["state"], first["unfinished"], first["changes"]) == (OPEN.id, "unfinished", True, 1)
    assert (second["from"], second["to"], second["ended"]) == (OLD, NEW, DONE.ended.isoformat() if DONE.ended else "")
    assert first["by"] == {"user": "ayse", "host": "bastion", "pid": 4711}


def test_who_is_at_work_is_told(runs: Runs, store: JournalStore, api: KubernetesApi) -> None:
    keep(store, OPEN)
    lease = Lease(api, "apinizer", owner=OTHER, run=OPEN.id, doing="set the image of prod/worker")
    with lease:
        assert "The lock is held by ci on runner-7, process 22" in runs().out
        assert "set the image of prod/worker" in runs("show", OPEN.id).out
        assert runs("-o", "json").document["lock"][0]["run"] == OPEN.id
        assert runs("show", OPEN.id, "-o", "json").document["at_work"] is True
    assert "The lock is held" not in runs().out


def test_a_damaged_journal_is_told_beside_the_others(runs: Runs, store: JournalStore, api: KubernetesApi) -> None:
    keep(store, DONE, OPEN)
    spoil(api, OPEN.id, "rubbish")
    ran = runs()
    assert "cannot be read" in rows(ran)[OPEN.id]
    assert "complete" in rows(ran)[DONE.id]
    assert f"The journal apinizer-upgrade-{OPEN.id} cannot be read" in ran.err
    assert runs("-o", "json").document["damaged"][0]["configmap"] == f"apinizer-upgrade-{OPEN.id}"
    for command in (("show", OPEN.id), ("abandon", OPEN.id, "--reason", "x", "--yes")):
        ran = runs(*command)
        assert ran.code == 3
        four_parts(ran.err)
        assert "kubectl -n apinizer" in ran.err
    assert runs("show", DONE.id).code == 0


def test_without_a_manager_the_journals_are_still_found(runs: Runs, store: JournalStore, tmp_path: Path) -> None:
    """A manager that was deleted in mid-run; here, one that the configuration says to pass over."""
    keep(store, OPEN)
    nothing = tmp_path / "a.yaml"
    nothing.write_text("overrides: [{namespace: apinizer, deployment: manager, ignore: true}]")
    assert "unfinished" in rows(runs("--config", str(nothing)))[OPEN.id]
    assert runs("--namespace", "default").code == 0, "nor is an Apinizer needed"


# ---------------------------------------------------------------------------------------------------------- show
def test_a_page(runs: Runs, store: JournalStore) -> None:
    keep(store, DONE, OPEN)
    page = runs("show", "20260301-12").out
    for told in (
        f"{OPEN.id}: upgrade {OLD} -> {NEW}, unfinished",
        "1. ayse on bastion, process 4711, apinizer-upgrade 0.1.0: 2026-03-01 12:00:00 to 2026-03-01 12:01:30",
        "Error: The manager will not become Ready.",
        "Observed: It crashes.",
        "Safe then: Old.",
        "Next: Look.",
        "/var/backups/apinizer-backup--2025.04.3--2026-03-01--01.archive on bastion",
        "1,234 documents of apinizerdb at mongo-0:25080, mongo-1:25080",
        f"main: apinizercloud/manager:{OLD} -> apinizercloud/manager:{NEW}",
        "its outcome is not recorded",
        f"undo: kubectl -n apinizer set image deployment/manager main=apinizercloud/manager:{OLD}",
        f"apinizer-upgrade resume {OPEN.id}",
        f"apinizer-upgrade rollback {OPEN.id}   goes back to {OLD}",
        f"apinizer-upgrade runs abandon {OPEN.id} --reason TEXT",
    ):
        assert told in page


def test_the_page_of_a_rollback(runs: Runs, store: JournalStore) -> None:
    back = rollback(OPEN, "20260301-140000-dd", scale(done=45), restore(), safety=backup("safety.archive"))
    keep(store, OPEN, back)
    page = runs("show").out
    for told in (
        f"undoes   {OPEN.id}",
        "Safety backup, of before the restore",
        "/var/backups/safety.archive",
        "replicas: 1 -> 0",
        "undo: kubectl -n apinizer scale deployment/manager --replicas=1",
        f"apinizer-upgrade resume {back.id}",
    ):
        assert told in page
    assert f"apinizer-upgrade resume {back.id}   goes on with its rollback" in runs("show", OPEN.id).out


def test_a_page_for_programs_holds_the_journal_itself(runs: Runs, store: JournalStore) -> None:
    keep(store, OPEN)
    document = runs("show", "-o", "json").document
    assert Journal.model_validate(document["journal"]) == OPEN
    assert document["can_be_done"][0] == f"apinizer-upgrade resume {OPEN.id}"


@pytest.mark.parametrize(
    ("run", "told"),
    [
        pytest.param("2027", "There is no run 2027", id="unknown"),
        pytest.param("20260301", "means several runs", id="ambiguous"),
    ],
)
@pytest.mark.parametrize("command", [("show",), ("abandon", "--reason", "x", "--yes")])
def test_a_run_that_cannot_be_told(
    runs: Runs, store: JournalStore, command: tuple[str, ...], run: str, told: str
) -> None:
    keep(store, DONE, OPEN)
    ran = runs(*command, run, "-o", "json")
    assert ran.code == 2
    four_parts(ran.err)
    assert told in ran.err
    assert ran.document["error"]["observed"].startswith("Known: 20260301-120000-bb, ")


@pytest.mark.parametrize("arguments", [("show",), ("show", "x"), ("abandon", "x", "--reason", "y", "--yes")])
def test_nothing_recorded(runs: Runs, arguments: tuple[str, ...]) -> None:
    ran = runs(*arguments)
    assert ran.code == 2
    four_parts(ran.err)
    assert "The namespace apinizer holds no journal" in ran.err


MAY_LOOK = [
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]},
]


def test_who_may_not_read_configmaps_is_told_where_the_right_is(runs: Runs, sandbox: Sandbox, tmp_path: Path) -> None:
    kubeconfig = sandbox.restricted_kubeconfig(tmp_path / "blind", "blind", "", MAY_LOOK[:1])
    for arguments in ((), ("show", "x"), ("abandon", "x", "--reason", "y", "--yes")):
        ran = runs(*arguments, "--kubeconfig", str(kubeconfig))
        assert ran.code == 1
        four_parts(ran.err)
        assert "may not list configmaps in namespace apinizer" in ran.err
        assert "deployments/rbac.yaml" in ran.err


def test_who_may_only_look(runs: Runs, store: JournalStore, sandbox: Sandbox, tmp_path: Path) -> None:
    keep(store, OPEN)
    kubeconfig = sandbox.restricted_kubeconfig(tmp_path / "looker", "looker", "", MAY_LOOK)
    assert runs("show", "--kubeconfig", str(kubeconfig)).code == 0
    ran = runs("abandon", OPEN.id, "--reason", "y", "--yes", "--kubeconfig", str(kubeconfig))
    assert ran.code == 1
    four_parts(ran.err)
    assert "leases" in ran.err
    assert store.all() == (OPEN,)


def test_an_option_before_the_subcommand_is_not_passed_over(runs: Runs) -> None:
    ran = runs("--context", "sandbox", "show")
    assert ran.code == 2
    four_parts(ran.err)
    assert "runs show ... --context" in ran.err


def test_a_plan_shows_that_an_unfinished_run_stands_against_it(
    runs: Runs, store: JournalStore, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(store, OPEN)
    assert runs().code == 0
    for command in (["plan", "--to", "2025.11.1"], ["upgrade", "--to", "2025.11.1", "--dry-run"]):
        assert exit_code_of(app, command) == 3
        out, err = capsys.readouterr()
        four_parts(err)
        assert "apinizer/manager" in out, "the plan is shown all the same"
        assert f"The upgrade {OPEN.id} to {NEW} is unfinished" in err


# ------------------------------------------------------------------------------------------------------- abandon
def test_abandoning(runs: Runs, store: JournalStore, world: World) -> None:
    keep(store, OPEN)
    before = world.written()
    ran = runs("abandon", OPEN.id, "--reason", "mended\nby   hand", "--yes")
    assert ran.code == 0, ran
    assert "is abandoned" in ran.out
    (left,) = store.all()
    assert (left.how, left.unfinished) == (Ended.ABANDONED, False)
    assert left.reason.startswith("mended by hand (")
    assert left.entries == OPEN.entries
    assert world.written() == before, "the installation is left as it is"
    assert "abandoned" in rows(runs())[OPEN.id]
    again = runs("abandon", OPEN.id, "--reason", "x", "--yes")
    assert again.code == 3
    four_parts(again.err)
    assert "has ended: abandoned" in again.err


def test_a_person_is_asked_and_shown_what_it_means(runs: Runs, store: JournalStore) -> None:
    keep(store, OPEN)
    no = runs("abandon", OPEN.id, "--reason", "x", answer="n")
    assert no.code == 1
    assert "The run was not abandoned." in no.err
    assert f"Changed by the run {OPEN.id} before: apinizer/manager." in no.err
    assert "It changed apinizer/manager (its outcome is not known): that stays as it is" in no.out.replace("\n", " ")
    assert "/var/backups/" in no.out
    assert store.all() == (OPEN,)
    yes = runs("abandon", OPEN.id, "--reason", "x", "-o", "json", answer="y")
    assert yes.document["state"] == "abandoned"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param((OPEN.id, "--reason", " ", "--yes"), "without a reason", id="a blank reason"),
        pytest.param((OPEN.id, "--yes"), "--reason", id="no reason"),
        pytest.param((OPEN.id, "--reason", "x"), "--yes", id="nobody to ask"),
        pytest.param(("--reason", "x", "--yes"), "ID", id="no run"),
    ],
)
def test_what_it_wants_to_be_told(runs: Runs, store: JournalStore, arguments: tuple[str, ...], told: str) -> None:
    keep(store, OPEN)
    ran = runs("abandon", *arguments)
    assert ran.code == 2
    four_parts(ran.err)
    assert told in ran.err
    assert store.all() == (OPEN,)


def test_a_run_that_is_at_work_is_not_abandoned(runs: Runs, store: JournalStore, api: KubernetesApi) -> None:
    keep(store, OPEN)
    with Lease(api, "apinizer", owner=OTHER, run=OPEN.id, doing="wait for the manager"):
        ran = runs("abandon", OPEN.id, "--reason", "x", "--yes")
    assert ran.code == 3
    four_parts(ran.err)
    assert "ci on runner-7" in ran.err
    assert "wait for the manager" in ran.err
    assert store.all() == (OPEN,)
    assert runs("abandon", OPEN.id, "--reason", "x", "--yes").code == 0, "the lock is free again"


def test_its_rollback_is_to_be_abandoned_first(runs: Runs, store: JournalStore) -> None:
    back = rollback(OPEN, "20260301-140000-dd", scale())
    keep(store, OPEN, back)
    ran = runs("abandon", OPEN.id, "--reason", "x", "--yes")
    assert ran.code == 3
    four_parts(ran.err)
    assert back.id in ran.err
    assert runs("abandon", back.id, "--reason", "x", "--yes").code == 0
    assert [j.unfinished for j in store.all()] == [False, True]
    assert runs("abandon", OPEN.id, "--reason", "x", "--yes").code == 0


def test_a_run_that_went_on_while_the_person_thought(
    runs: Runs, store: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, OPEN)

    def think(*_: Any, **__: Any) -> bool:
        store.save(OPEN.take_up(OTHER, at(500)))
        return True

    monkeypatch.setattr("typer.confirm", think)
    ran = runs("abandon", OPEN.id, "--reason", "x", answer="y")
    assert ran.code == 1
    four_parts(ran.err)
    assert "went on while it was looked at" in ran.err
    assert store.all()[0].unfinished
    monkeypatch.undo()


def test_two_that_abandon_at_once(sandbox: Sandbox, store: JournalStore, tmp_path: Path) -> None:
    keep(store, OPEN)
    ends: list[int] = []

    def one(name: str) -> None:
        command = [COMMAND, "runs", "abandon", OPEN.id, "--reason", name, "--yes"]
        environment = clean_environment() | sandbox.env()
        ends.append(subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False).returncode)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 in ends, ends
    assert all(end in (0, 1, 3) for end in ends)
    assert sorted(ends)[1] != 0, "only one of them did it"
    assert store.all()[0].how is Ended.ABANDONED


# --------------------------------------------------------------------------------------------------------- start
@pytest.mark.parametrize("arguments", [["--help"], ["show"], [], ["abandon", "x", "--reason", "y", "--yes"]])
def test_prefect_is_not_loaded(sandbox: Sandbox, tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", COMMAND, "runs", *arguments],
        env=sandbox.env() | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "deployments.cli.runs_commands" in loaded
    assert not {name for name in loaded if name.partition(".")[0] == "prefect"}
    assert ("deployments.cli.runs_look" in loaded) is (arguments != ["--help"])
