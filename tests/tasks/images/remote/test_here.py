"""The same commands on this machine, where no ssh is in between."""

import time
from pathlib import Path

import pytest

from tasks.domain.errors import ForbiddenError, NotFoundError, StoppedError, TemporaryError
from tasks.images.remote import Host, Ran, Remote, Sending

HERE = Remote(Host("this machine"))


def test_a_command_is_run() -> None:
    ran = HERE.run(["sh", "-c", 'printf "%s" "$1$LC_ALL"; exit 3', "x", "it's $HOME "])
    assert (ran.code, ran.stdout) == (3, b"it's $HOME C")


def test_a_signal_is_told_as_a_shell_does() -> None:
    assert HERE.run(["sh", "-c", "kill -KILL $$"]).code == 137


def test_what_is_fed_arrives_whole() -> None:
    with HERE.sending(["sh", "-c", "wc -c"]) as sending:
        for _ in range(50):
            sending.write(b"x" * 300_001)
        assert sending.sent == 50 * 300_001
        assert sending.finish() == Ran(0, b"15000050\n", "")


def test_what_is_written_arrives_whole() -> None:
    with HERE.receiving(["head", "-c", "7000001", "/dev/zero"]) as receiving:
        assert sum(map(len, receiving)) == 7_000_001
        assert receiving.finish().code == 0


def _flood(sending: Sending) -> None:
    for _ in range(1000):
        sending.write(b"x" * 100_000)


def test_a_command_that_ends_before_it_has_everything_is_told_with_its_own_words() -> None:
    command = ["sh", "-c", "head -c 10 >/dev/null; echo no more >&2; exit 4", "node"]
    with (
        pytest.raises(TemporaryError, match="node on this machine ended before it had everything") as caught,
        HERE.sending(command) as sending,
    ):
        _flood(sending)
    assert "no more" in caught.value.observed


def test_the_judge_says_what_a_failure_means() -> None:
    def judge(ran: Ran) -> ForbiddenError | None:
        return ForbiddenError("judged") if ran.code == 5 else None

    with pytest.raises(ForbiddenError, match="judged"), HERE.sending(["sh", "-c", "exit 5"], judge=judge) as sending:
        sending.finish()


def test_a_command_left_early_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "grows"
    with HERE.receiving(["sh", "-c", f"while :; do echo >>{file}; sleep 0.1; done"]):
        while not file.exists():
            time.sleep(0.05)
    size = file.stat().st_size
    time.sleep(0.5)
    assert file.stat().st_size == size


def test_a_missing_program_is_named() -> None:
    with pytest.raises(NotFoundError, match="nosuchprogram was not found on this machine"):
        HERE.run(["nosuchprogram", "--version"])
    with pytest.raises(NotFoundError, match=r"(sudo|ctr) was not found"):
        Remote(Host("this machine", sudo=True)).run(["/nonexistent/ctr"])


def test_time_is_limited_and_stopping_is_heard() -> None:
    with pytest.raises(TemporaryError, match="sleep on this machine did not end in time"):
        HERE.run(["sleep", "98763"], timeout=0.3)
    with pytest.raises(StoppedError):
        Remote(Host("this machine"), stop=lambda: True).run(["sleep", "98764"])
