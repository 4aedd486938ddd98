"""Whether a process that ran here is gone: only when that is sure."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tasks.record import whereabouts
from tasks.record.whereabouts import here, is_gone

SAYS_WHERE = "from tasks.record.whereabouts import here; import json; print(json.dumps(here()), flush=True); input()"


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    command = [sys.executable, "-c", SAYS_WHERE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        yield process, said
        process.kill()


def test_it_lives_stands_still_dies_and_is_buried(other) -> None:
    process, said = other
    assert not is_gone(said)
    process.send_signal(signal.SIGSTOP)
    assert not is_gone(said)
    process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while not is_gone(said) and time.monotonic() < end:
        time.sleep(0.01)
    assert is_gone(said), "its remains are not itself"
    process.wait()
    assert is_gone(said)


def test_this_process_is_there() -> None:
    assert here()["pid"] == str(os.getpid())
    assert here() == here()
    assert not is_gone(here())


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"started": "1"}, True),  # another process has its id now
        ({"started": ""}, False),
        ({"place": ""}, False),
        ({"place": "another boot"}, False),
        ({"pid": ""}, False),
        ({"pid": "-1"}, False),
        ({"pid": "²"}, False),
        ({"pid": "9" * 40}, False),
        ({"pid": "0"}, False),
    ],
)
def test_what_is_not_sure_is_not_gone(changes, gone) -> None:
    assert is_gone({**here(), **changes}) is gone


def test_nothing_said_is_nothing_known() -> None:
    assert not is_gone({})


def test_a_process_that_may_not_be_looked_at_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc mounted with hidepid shows nothing of other users' processes."""
    monkeypatch.setattr(whereabouts, "_stat", lambda _: [])
    assert not is_gone({**here(), "started": "1"})


def test_a_process_whose_first_thread_ended_is_there() -> None:
    """Its state is that of remains, and its other threads may write."""
    stat = whereabouts._stat(os.getpid())
    assert not whereabouts._only_remains(["Z", *stat[1:17], "2", *stat[18:]])
    assert whereabouts._only_remains(["Z", *stat[1:17], "1", *stat[18:]])
    assert not whereabouts._only_remains(stat)


def test_a_thread_is_counted_where_it_is_looked_for() -> None:
    before = int(whereabouts._stat(os.getpid())[17])
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    assert int(whereabouts._stat(os.getpid())[17]) == before + 1
    ended.set()
    thread.join()
