"""The lock against a real API server, with real processes that are killed and frozen."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes import config

from deployments.sandbox.launch import Sandbox
from tasks.cluster.api import KubernetesApi
from tasks.domain.errors import BlockedError, ForbiddenError, NotFoundError, StoppedError
from tasks.domain.journal import Ended, Owner
from tasks.record import stopping, whereabouts
from tasks.record.feed import Event, listening
from tasks.record.lease import Lease, LeaseLostError, holder, lease_path, since_boot
from tasks.record.run_record import RunRecord
from tests.domain.journals import journal as a_journal

SPACE = "apinizer"
ROOT = Path(__file__).parents[3]
OWNER = Owner(user="anna", host="here", pid=os.getpid(), tool="test")
LEASES = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(speed=4.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def api(sandbox: Sandbox) -> KubernetesApi:
    return connect(sandbox.kubeconfig)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A Lease of the test's own."""
    return "lock-" + str(abs(hash(request.node.nodeid)))


def connect(kubeconfig: Path) -> KubernetesApi:
    return KubernetesApi(config.new_client_from_config(str(kubeconfig)))


@pytest.fixture
def lease(api: KubernetesApi, name: str) -> Iterator[Callable[..., Lease]]:
    """Makes Leases that are given back after the test."""
    made: list[Lease] = []

    def make(seconds: float = 30.0, **options: object) -> Lease:
        wanted = {"owner": OWNER, "run": "20261122-a", "doing": "looking", "name": name} | options
        made.append(Lease(api, SPACE, seconds=seconds, **wanted))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.release()


class Process:
    """A process of `lease_holder`; `name`, `seconds`, `place` and `hours` as there."""

    def __init__(self, forker: subprocess.Popen[str], folder: Path, **wants: object) -> None:
        assert forker.stdin
        assert forker.stdout
        for pipe in ("orders", "answers"):
            os.mkfifo(folder / pipe)
        forker.stdin.write(json.dumps({**wants, "folder": str(folder)}) + "\n")
        forker.stdin.flush()
        self.pid = int(forker.stdout.readline())
        self._orders = (folder / "orders").open("w")
        self._answers = (folder / "answers").open()

    def order(self, text: str) -> None:
        print(text, file=self._orders, flush=True)

    def answer(self) -> dict[str, object]:
        answer: dict[str, object] = json.loads(self._answers.readline())
        return answer

    def does(self, text: str) -> dict[str, object]:
        self.order(text)
        return self.answer()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        self.signal(signal.SIGKILL)
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._orders.close()


@pytest.fixture(scope="module")
def forker() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("lease_holder.py"))]
    here = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here) as process:
        yield process
        process.kill()


@pytest.fixture
def process(
    sandbox: Sandbox, forker: subprocess.Popen[str], tmp_path: Path, name: str
) -> Iterator[Callable[..., Process]]:
    """Starts processes; `place` is where they say they run ("" for the truth)."""
    started: list[Process] = []

    def start(seconds: float = 30.0, place: str = "", hours: float = 0.0) -> Process:
        folder = tmp_path / f"process-{len(started)}"
        folder.mkdir()
        wants = {
            "kubeconfig": str(sandbox.kubeconfig),
            "name": name,
            "seconds": seconds,
            "place": place,
            "hours": hours,
        }
        started.append(Process(forker, folder, **wants))
        return started[-1]

    yield start
    for each in started:
        each.end()


def version(api: KubernetesApi, name: str) -> str:
    return str(api.get(lease_path(SPACE, name))["metadata"]["resourceVersion"])


def edit(api: KubernetesApi, name: str, **spec: object) -> None:
    api.patch(lease_path(SPACE, name), {"spec": spec}, "merge")


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def take_in_the_end(lease: Lease) -> tuple[list[float], list[str]]:
    """Take as somebody does who calls again while a holder looks alive; when lines of progress came, and what they said."""
    at: list[float] = []
    said: list[str] = []

    def progress(text: str) -> None:
        at.append(time.monotonic())
        said.append(text)

    end = time.monotonic() + 60
    while True:
        try:
            lease.take(progress=progress)
        except BlockedError:
            assert time.monotonic() < end
            at.clear()
            said.clear()
            time.sleep(0.05)
        else:
            return at, said


# ------------------------------------------------------------------------- holding it
def test_it_is_held_told_and_given_back(api, name, lease) -> None:
    with lease(1.0) as mine:
        mine.require()
        mine.doing("manager: waiting until it is Ready")
        first = version(api, name)
        wait_for(lambda: (found := holder(api, SPACE, name)) is not None and found.doing.startswith("manager:"))
        assert version(api, name) != first, "it is renewed"
        mine.require()
        mine.take()  # again: nothing
        with pytest.raises(BlockedError) as caught:
            lease(run="20261122-b").take()
        assert "20261122-a" in caught.value.happened
        assert f"anna on here, process {os.getpid()}" in caught.value.observed
        assert "manager: waiting until it is Ready" in caught.value.observed
        assert caught.value.exit_code == 3
    with pytest.raises(LeaseLostError, match="lost the lock"):
        mine.require()
    assert holder(api, SPACE, name) is None
    assert not stopping.asked(), "to give it back is not to lose it"
    with lease() as other:
        other.require()


def test_before_it_is_taken_nothing_may_be_changed(api, name, lease) -> None:
    with pytest.raises(LeaseLostError):
        lease().require()
    assert holder(api, SPACE, name) is None


def test_it_is_held_for_many_durations(lease) -> None:
    with lease(1.2) as mine:
        for _ in range(30):
            time.sleep(0.1)
            mine.require()


def test_who_gives_it_back_lets_the_next_in_at_once(process, lease) -> None:
    one, two = process(), process()
    for _ in range(3):
        assert one.does("take at once") == {"ok": None}
        assert two.does("take at once")["error"] == "BlockedError"
        one.does("release")
        assert two.does("take at once") == {"ok": None}
        two.does("release")
    assert one.does("require")["error"] == "LeaseLostError"


def test_giving_back_what_cannot_be_given_back_is_no_error(sandbox, api, name, lease) -> None:
    """Deleted meanwhile; and a server that is away when the run ends: the Lease then ends by itself."""
    with lease():
        api.delete(lease_path(SPACE, name))
    assert holder(api, SPACE, name) is None
    mine = lease(1.5)
    mine.take()
    sandbox.api_down(2.0)
    mine.release()
    with pytest.raises(LeaseLostError):
        mine.require()
    take_in_the_end(lease(1.5))


# ------------------------------------------------------------------------------ races
def test_two_that_start_together_fifty_times(api, name, process) -> None:
    """A Lease that is made, and one that is free, in turn; each time exactly one has it, and the other says who."""
    both = process(), process()
    won = []
    for round_ in range(50):
        if round_ % 2 == 0:
            with contextlib.suppress(NotFoundError):
                api.delete(lease_path(SPACE, name))
        for one in both:
            one.order("take")
        answers = [one.answer() for one in both]
        winners = [i for i in (0, 1) if answers[i] == {"ok": None}]
        assert len(winners) == 1, answers
        loser = answers[1 - winners[0]]
        assert loser["error"] == "BlockedError"
        assert f"run-of-{both[winners[0]].pid}" in str(loser["text"])
        assert both[winners[0]].does("require") == {"ok": None}
        assert both[1 - winners[0]].does("require")["error"] == "LeaseLostError"
        won.append(winners[0])
        both[winners[0]].does("release")


def test_many_that_wait_for_one_that_died(sandbox, name, process, lease) -> None:
    dead = process(1.0, place="elsewhere")
    dead.does("take")
    dead.end()
    time.sleep(0.5)  # its last renewal looks old to all of them
    waiting = [Lease(connect(sandbox.kubeconfig), SPACE, owner=OWNER, run=str(i), doing="", name=name, seconds=1.0)
               for i in range(4)]  # fmt: skip

    def take(one: Lease) -> bool:
        try:
            one.take()
        except BlockedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, waiting))
    assert taken.count(True) == 1
    assert [not one.lost() for one in waiting] == taken
    for one in waiting:
        one.release()


# -------------------------------------------------------------- holders that are gone
def test_a_holder_that_was_killed_elsewhere(api, name, process, lease) -> None:
    dead = process(1.5, place="elsewhere")
    dead.does("take")
    time.sleep(0.7)
    dead.end()
    mine = lease(1.5)
    at, said = take_in_the_end(mine)
    ended = time.monotonic()
    mine.require()
    assert 1.5 <= ended - at[0] < 12.0, "its whole duration by our clock, and a retry"
    assert f"host-of-{dead.pid}" in said[0]
    assert said[0].endswith("silent for 0 s of 2")
    assert "restore: 3 of 40 MB" in said[0]
    assert len(said) > 2
    assert api.get(lease_path(SPACE, name))["spec"]["leaseTransitions"] == 1


def test_the_longer_duration_counts(api, name, process, lease) -> None:
    """Somebody edits it to a second, so that it may be taken sooner: it may not."""
    dead = process(2.0, place="elsewhere")
    dead.does("take")
    dead.end()
    edit(api, name, leaseDurationSeconds=1)
    at, _ = take_in_the_end(lease(2.0))
    assert time.monotonic() - at[0] >= 2.0


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_holder_does_not_matter(api, name, process, lease, hours) -> None:
    one = process(1.5, place="elsewhere", hours=hours)
    one.does("take")
    told: list[str] = []
    with pytest.raises(BlockedError) as caught:
        lease(1.5).take(progress=told.append)
    assert told, "it was watched, and seen to renew"
    assert f"host-of-{one.pid}" in caught.value.observed
    assert one.does("require") == {"ok": None}
    one.end()
    begun = time.monotonic()
    lease(1.5).take()
    assert time.monotonic() - begun >= 1.5


def test_our_own_clock_does_not_matter_either(process, lease) -> None:
    one = process(1.5, place="elsewhere")
    one.does("take")
    with pytest.raises(BlockedError):
        lease(1.5, now=lambda: datetime.now(UTC) + timedelta(hours=1)).take()
    assert one.does("require") == {"ok": None}


def test_a_process_that_is_gone_on_this_machine_is_taken_over_at_once(api, name, process, lease) -> None:
    dead = process(300.0)
    dead.does("take")
    with pytest.raises(BlockedError):
        lease().take(wait=False)
    dead.signal(signal.SIGKILL)  # and nobody asks how it ended: its remains count for nothing
    wait_for(lambda: holder(api, SPACE, name) is None)
    with lease() as mine:
        mine.require()


def test_a_process_that_ends_while_it_is_waited_for(process, lease) -> None:
    one = process(300.0, hours=-1)
    one.does("take")
    one.signal(signal.SIGSTOP)
    mine = lease()
    with ThreadPoolExecutor(1) as pool:
        taking = pool.submit(mine.take)
        time.sleep(1.0)
        assert not taking.done(), "it only stands still"
        one.signal(signal.SIGKILL)
        taking.result(30)
    mine.require()


def test_who_waits_can_be_stopped(api, name, process, lease) -> None:
    one = process(300.0, hours=-1)
    one.does("take")
    one.signal(signal.SIGSTOP)
    before = version(api, name)
    told: list[str] = []
    with pytest.raises(StoppedError) as caught:
        lease().take(progress=told.append, stop=lambda: bool(told))
    assert caught.value.safe == "Nothing was changed."
    with pytest.raises(BlockedError):
        lease().take(wait=False)
    assert version(api, name) == before


def test_the_wait_is_told_to_whoever_listens(process, lease) -> None:
    one = process(300.0, hours=-1)
    one.does("take")
    one.signal(signal.SIGSTOP)
    heard: list[Event] = []
    with listening(heard.append), pytest.raises(StoppedError):
        lease().take(stop=lambda: bool(heard))
    assert "silent for" in heard[0].text


# ------------------------------------------------------------- holders that are late
def test_a_holder_that_was_frozen_for_longer_changes_nothing_more(api, name, process, lease) -> None:
    frozen = process(1.5, place="elsewhere")
    frozen.does("take")
    assert frozen.does("require") == {"ok": None}
    assert frozen.does("asked") == {"ok": False}
    frozen.signal(signal.SIGSTOP)
    mine = lease(1.5)
    take_in_the_end(mine)
    for order in ("require", "asked", "require", "lost"):  # they wait for it when it wakes
        frozen.order(order)
    frozen.signal(signal.SIGCONT)
    first, asked, again, lost = (frozen.answer() for _ in range(4))
    assert first["error"] == again["error"] == "LeaseLostError"
    assert asked == lost == {"ok": True}
    assert "Nothing was changed" not in str(first["text"])
    for order in ("release", "release, complete"):
        frozen.does(order)
        found = holder(api, SPACE, name)
        assert found is not None
        assert found.run == "20261122-a", "what another has is not given back"
    mine.require()


def test_a_holder_that_was_frozen_and_not_taken_over(api, name, process) -> None:
    """It may be that another came and went: it stops all the same."""
    frozen = process(0.9)
    frozen.does("take")
    frozen.signal(signal.SIGSTOP)
    time.sleep(1.2)
    frozen.signal(signal.SIGCONT)
    answer = frozen.does("require")
    assert answer["error"] == "LeaseLostError"
    assert "stood still" in str(answer["text"])
    before = version(api, name)
    time.sleep(0.6)
    frozen.does("release")
    assert version(api, name) == before, (
        "it does not renew what it lost, nor give it back: it may be at something still"
    )
    frozen.does("release, complete")
    assert holder(api, SPACE, name) is None, "a run that is complete is at nothing any more"


@pytest.mark.parametrize("complete", [True, False])
def test_a_run_gives_back_a_lock_that_expired_only_where_it_is_complete(api, name, lease, complete) -> None:
    record, mine = RunRecord(OWNER), lease(0.9)
    mine.take()
    record._lease, journal = mine, a_journal("20261122-a")
    record.journal = journal.end(datetime.now(UTC), Ended.COMPLETE) if complete else journal
    mine._ended.set()  # as where its renewals do not arrive
    wait_for(mine.lost)
    record.release()
    assert (holder(api, SPACE, name) is None) == complete


# --------------------------------------------------------------------- the API server
def test_an_api_server_that_restarts(sandbox, lease) -> None:
    """Away for half a duration, which is more than the third that a renewal more would leave."""
    with lease(5.0) as mine:
        time.sleep(0.7)
        sandbox.api_down(2.5)
        end = time.monotonic() + 4.0
        while time.monotonic() < end:
            mine.require()
            assert not stopping.asked()
            time.sleep(0.05)


def test_an_api_server_that_is_away_for_longer(sandbox, api, name, lease) -> None:
    with lease(0.9) as mine:
        sandbox.api_down(1.5)
        wait_for(stopping.asked)
        with pytest.raises(LeaseLostError) as caught:
            mine.require()
        assert "could not be renewed for 1 of its 1 seconds" in caught.value.observed
        assert "could not be reached" in caught.value.observed
        assert "apinizer-upgrade resume 20261122-a" in caught.value.next
        before = version(api, name)
        time.sleep(0.6)
        assert version(api, name) == before, "when the server is back it stays lost"
        assert mine.lost()
    assert stopping.asked()
    stopping.clear()
    take_in_the_end(lease(0.9))


def test_a_right_counts_from_when_it_was_asked_for(sandbox, lease) -> None:
    """However long the answer took: another may count from when the server wrote it."""
    passed = 0.0
    sandbox.faults(latency_seconds=1.0)
    try:
        with lease(30.0, clock=lambda: time.monotonic() + passed) as mine:
            mine.require()
            passed = 26.5
            assert mine.lost()
    finally:
        sandbox.faults(latency_seconds=0.0)


def test_an_api_server_that_is_away_while_it_is_taken(sandbox, lease) -> None:
    sandbox.api_down(1.0)
    with lease() as mine:
        mine.require()


def test_answers_that_are_errors(sandbox, name, lease) -> None:
    """503 to every second request about the Lease, with a wish of the server's that would be too late for it."""
    sandbox.fail_requests(code=503, path=f"leases(/{name}|$)", probability=0.5, retry_after=5)
    try:
        with lease(3.0) as mine:
            for _ in range(60):
                time.sleep(0.05)
                mine.require()
    finally:
        sandbox.faults(answers=[])


def test_answers_that_are_lost(sandbox, api, name, lease) -> None:
    """Each write is made and its answer lost: when it is made, renewed, given back, and taken when it is free."""

    def lose(method: str) -> None:
        sandbox.fail_requests(code=504, path=f"leases(/{name}|$)", methods=(method,), count=1, landed=True)

    lose("POST")
    with lease(1.5) as mine:
        mine.require()
        for _ in range(3):
            lose("PUT")
            before = version(api, name)
            wait_for(lambda: int(version(api, name)) >= int(before) + 2)  # noqa: B023 - it is asked in this round
        time.sleep(1.5)
        mine.require()
        lose("PUT")
    assert holder(api, SPACE, name) is None
    lose("PUT")
    with lease() as other:
        other.require()
    assert not any(answer["count"] for answer in sandbox.faults()["answers"]), "each was met"


def test_a_server_that_takes_requests_and_does_not_answer(sandbox, lease) -> None:
    with lease(1.5) as mine:
        sandbox.faults(latency_seconds=1.0)
        try:
            wait_for(stopping.asked)
            with pytest.raises(LeaseLostError, match="The connection to the Kubernetes API broke"):
                mine.require()
        finally:
            sandbox.faults(latency_seconds=0.0)


# ------------------------------------------------------------------------ other hands
def test_a_lease_that_is_deleted_under_its_holder_is_made_again(api, name, lease) -> None:
    with lease(1.5) as mine:
        api.delete(lease_path(SPACE, name))
        wait_for(lambda: holder(api, SPACE, name) is not None)
        time.sleep(1.5)
        mine.require()


def test_a_lease_that_is_deleted_and_taken_by_another(api, name, process, lease) -> None:
    """The other has it, the first finds out at its next renewal; at no time after does either change what the other has."""
    first = process(3.0)
    first.does("take")
    api.delete(lease_path(SPACE, name))
    with lease(3.0) as mine:
        wait_for(lambda: first.does("asked") == {"ok": True})
        answer = first.does("require")
        assert answer["error"] == "LeaseLostError"
        assert "taken over by anna on here" in str(answer["text"])
        mine.require()


def test_what_somebody_edits_is_written_over(api, name, lease) -> None:
    with lease(1.5) as mine:
        api.patch(lease_path(SPACE, name), {"metadata": {"labels": {"team": "a"}}}, "merge")
        for spec in ({"leaseDurationSeconds": 1}, {"renewTime": None}, {"holderIdentity": None}):
            edit(api, name, **spec)
            with pytest.raises(BlockedError):
                lease(1.5).take()
            edited = version(api, name)
            wait_for(lambda: version(api, name) != edited)  # noqa: B023 - it is asked in this round
        time.sleep(1.5)
        mine.require()
        found = api.get(lease_path(SPACE, name))
        assert found["spec"]["leaseDurationSeconds"] == 2
        assert found["spec"]["holderIdentity"]
        assert found["metadata"]["labels"] == {"team": "a"}, "what is not ours stays"


def test_who_is_written_out_of_it_stops(api, name, lease) -> None:
    with lease(3.0) as mine:
        edit(api, name, holderIdentity="kubectl")
        wait_for(mine.lost)
        wait_for(stopping.asked)
        with pytest.raises(LeaseLostError, match="taken over by kubectl"):
            mine.require()
    assert api.get(lease_path(SPACE, name))["spec"]["holderIdentity"] == "kubectl"


def test_a_holder_whose_name_was_cleared_is_waited_for(api, name, process, lease) -> None:
    dead = process(1.5, place="elsewhere")
    dead.does("take")
    dead.end()
    edit(api, name, holderIdentity=None)
    begun = time.monotonic()
    take_in_the_end(lease(1.5))
    assert time.monotonic() - begun >= 1.5


# ----------------------------------------------------------------------------- rights
@pytest.mark.parametrize("verbs", [[], ["get"]])
def test_no_right_to_leases(sandbox, api, name, tmp_path, verbs) -> None:
    rules = [{**LEASES, "verbs": verbs}] if verbs else []
    sandbox.restricted_kubeconfig(tmp_path / "config", "reader", SPACE, rules)
    with pytest.raises(ForbiddenError) as caught:
        Lease(connect(tmp_path / "config"), SPACE, owner=OWNER, run="r", doing="", name=name).take()
    error = caught.value
    assert "leases" in error.happened
    assert "deployments/rbac.yaml" in error.next
    assert "kubectl auth can-i" in error.next
    assert error.safe == "Nothing was changed."
    assert error.observed
    assert holder(api, SPACE, name) is None


def test_the_rights_that_are_needed(sandbox, name, tmp_path) -> None:
    rules = [{**LEASES, "verbs": ["create"]}, {**LEASES, "verbs": ["get", "update"], "resourceNames": [name]}]
    sandbox.restricted_kubeconfig(tmp_path / "config", "runner", SPACE, rules)
    for _ in range(2):
        with Lease(connect(tmp_path / "config"), SPACE, owner=OWNER, run="r", doing="", name=name, seconds=0.9) as mine:
            time.sleep(1.2)
            mine.require()


def test_a_namespace_that_is_not_there(api, lease) -> None:
    with pytest.raises(NotFoundError):
        Lease(api, "nowhere", owner=OWNER, run="r", doing="").take()


# ------------------------------------------------------------------------------ itself
def test_the_clock_goes_on_in_sleep() -> None:
    assert since_boot() >= time.monotonic() - 0.001, "as long as the machine was awake, and longer where it slept"


def test_its_thread_ends(lease) -> None:
    with lease(0.6):
        assert "lock" in {thread.name for thread in threading.enumerate()}
    wait_for(lambda: "lock" not in {thread.name for thread in threading.enumerate()})


def test_the_marks_that_are_needed_to_see_that_a_holder_is_gone_are_written(api, name, lease) -> None:
    with lease():
        found = holder(api, SPACE, name)
        assert found is not None
        assert {key: found.marks[key] for key in ("place", "pid", "started")} == whereabouts.here()
