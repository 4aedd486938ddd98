"""Runs commands on a machine through ssh, or here, and ends them whatever happens to this process.

A command that is fed ends when its input does; any other is watched: when this process closes its end, is killed or
loses its connection, the command is ended.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from tasks.domain.errors import StoppedError, TemporaryError, UpgradeError
from tasks.images.remote import refusals
from tasks.images.remote.host import Host
from tasks.images.remote.line import Line, effective
from tasks.images.remote.process import FED, PIECE, WATCHED, keep_end, pipes, spawn

SLICE = 0.25
"""Seconds between two looks at whether the work is to go on."""
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended: its exit code (128 + n for signal n), standard output, and the end of standard error."""

    code: int
    stdout: bytes
    stderr: str


Judge = Callable[[Ran], UpgradeError | None]
"""Turns the end of a command into the error that it means, None where it is none of the judge's."""


class Remote:
    """A machine on which commands run.  Use it from any number of threads: the commands share one connection.

    `stop` is asked four times a second; once it says yes, what runs is ended and `StoppedError` raised.  Other errors
    of every method: `BlockedError` (host key unknown or changed), `UnauthorizedError` (key refused), `TemporaryError`
    (no connection, or cut), `NotFoundError` (command or host name), `ForbiddenError` (sudo, socket).
    """

    def __init__(self, host: Host, *, stop: Callable[[], bool] = lambda: False) -> None:
        self.host = host
        self.stop = stop
        self._line = Line(host)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, sudo: bool | None = None
    ) -> Ran:  # fmt: skip
        """Run a command to its end; its own non-zero exit code is returned, not raised.  `timeout` is in seconds."""
        end = time.monotonic() + timeout
        if stdin:
            with Sending(self, argv, sudo=self.host.sudo if sudo is None else sudo, end=end) as sending:
                sending.write(stdin)
                return sending.finish()
        with Receiving(self, argv, sudo=self.host.sudo if sudo is None else sudo, end=end) as receiving:
            output = b"".join(receiving)
            ran = receiving.finish()
        return Ran(ran.code, output, ran.stderr)

    def sending(self, argv: Sequence[str], *, judge: Judge | None = None, sudo: bool | None = None) -> "Sending":
        """A context in which `write` feeds the command; left without `finish` the command is ended."""
        return Sending(self, argv, sudo=self.host.sudo if sudo is None else sudo, judge=judge)

    def receiving(self, argv: Sequence[str], *, judge: Judge | None = None, sudo: bool | None = None) -> "Receiving":
        """A context that yields what the command writes; after it `finish` tells how the command ended."""
        return Receiving(self, argv, sudo=self.host.sudo if sudo is None else sudo, judge=judge)

    def close(self) -> None:
        """End the connection that commands share; the next command makes a new one."""
        self._line.close()

    def begin(self) -> None:
        """Make the connection before it is needed; how that fails is told to the first command."""

        def look() -> None:
            if self.stop():
                raise StoppedError(f"Stopped while {self.host.name} was connected to.")

        if not self.host.here:
            with contextlib.suppress(UpgradeError):
                self._line.begin(look)

    def line_said(self) -> str:
        """What the ssh that holds the shared connection had to say."""
        return self._line.said

    def shared(self, tick: Callable[[], None]) -> list[str]:
        """What ssh needs to take the shared connection, which is made where there is none."""
        if self.host.here:
            return []
        flags, failed = self._line.flags(tick)
        if failed:
            raise refusals.of_connection(self.host, failed[1], effective(self.host))
        return flags


class _Command:
    """A command that runs, here or there, with its standard streams as pipes."""

    def __init__(
        self, remote: Remote, argv: Sequence[str], script: str, *, sudo: bool, judge: Judge | None, end: float | None
    ) -> None:
        self._remote, self._judge, self._end = remote, judge, end
        self._program = _program(argv)
        self._said = bytearray()
        shared = remote.shared(self._look)
        self._process = spawn(remote.host, shared, script, [*(["sudo", "-n", "--"] if sudo else []), *argv])
        self._stdin, self._stdout, self._stderr = pipes(self._process)
        self._threads = [threading.Thread(target=keep_end, args=(self._stderr, self._said), daemon=True)]
        self._ran: Ran | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_input()
        if kind is not None:
            # Whoever leaves with an error does not wait for what the far side makes of it.
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for thread in self._threads:
            thread.join(_PATIENCE)
        for number in (self._stdout, self._stderr):
            os.close(number)

    def _look(self) -> None:
        if self._remote.stop():
            raise StoppedError(f"Stopped while {self._program} ran on {self._remote.host.name}.")
        if self._end is not None and time.monotonic() > self._end:
            raise TemporaryError(
                f"{self._program} on {self._remote.host.name} did not end in time.",
                observed=refusals.told(self._stderr_text()),
                next="See what keeps it busy there, and try again.",
            )

    def _wait(self, output: bytes = b"") -> Ran:
        """The end of the command; raise where it means that the command could not do its work."""
        while self._ran is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(SLICE)
                for thread in self._threads:
                    thread.join(_PATIENCE)
                # A process that a signal ended tells as a shell does.
                self._ran = Ran(code if code >= 0 else 128 - code, output, self._stderr_text())
                break
            self._look()
        if error := self._error(self._ran):
            raise error
        return self._ran

    def _error(self, ran: Ran) -> UpgradeError | None:
        host = self._remote.host
        if ran.code == refusals.SSH_FAILED and not host.here:
            return refusals.of_connection(host, self._remote.line_said() + ran.stderr, effective(host))
        if ran.code != 0 and (error := refusals.of_command(host, self._program, ran.code, ran.stderr)):
            return error
        return self._judge(ran) if self._judge else None

    def _stderr_text(self) -> str:
        return bytes(self._said).decode(errors="replace")

    def _close_input(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1


class Sending(_Command):
    """A command that is fed.  What it writes (up to 64 KiB of its end) is in the result of `finish`."""

    def __init__(
        self, remote: Remote, argv: Sequence[str], *, sudo: bool, judge: Judge | None = None, end: float | None = None
    ) -> None:
        super().__init__(remote, argv, FED, sudo=sudo, judge=judge, end=end)
        self._output = bytearray()
        self._threads.append(threading.Thread(target=keep_end, args=(self._stdout, self._output), daemon=True))
        os.set_blocking(self._stdin, False)
        self.sent = 0
        """Bytes written so far."""

    def write(self, content: bytes | memoryview) -> None:
        """Write all of it; where the command or the connection has ended, raise why."""
        rest = memoryview(content)
        while rest:
            self._look()
            try:
                written = os.write(self._stdin, rest)
            except BlockingIOError:
                select.select([], [self._stdin], [], SLICE)
                continue
            except BrokenPipeError:
                self._broken()
            self.sent += written
            rest = rest[written:]

    def finish(self) -> Ran:
        """End the input and wait for the command's own end."""
        self._close_input()
        ran = self._wait()
        self._ran = Ran(ran.code, bytes(self._output), ran.stderr)
        return self._ran

    def _broken(self) -> NoReturn:
        self._close_input()
        ran = self._wait()
        raise TemporaryError(
            f"{self._program} on {self._remote.host.name} ended before it had everything.",
            observed=refusals.told(ran.stderr) or f"Its exit code is {ran.code}, and it said nothing.",
            next="Try again.",
        )


class Receiving(_Command):
    """A command whose output is taken."""

    def __init__(
        self, remote: Remote, argv: Sequence[str], *, sudo: bool, judge: Judge | None = None, end: float | None = None
    ) -> None:
        super().__init__(remote, argv, WATCHED, sudo=sudo, judge=judge, end=end)

    def __iter__(self) -> Iterator[bytes]:
        """Standard output to its end, in pieces of up to 1 MiB; it ends as well where the connection was cut."""
        while True:
            self._look()
            ready, _, _ = select.select([self._stdout], [], [], SLICE)
            if ready:
                piece = os.read(self._stdout, PIECE)
                if not piece:
                    return
                yield piece

    def finish(self) -> Ran:
        """How the command ended; raise where it was cut or could not do its work."""
        return self._wait()


def _program(argv: Sequence[str]) -> str:
    """Whom an error names: the program; for `sh -c SCRIPT NAME ...`, NAME."""
    speaks = argv[3] if argv[:2] == ["sh", "-c"] and len(argv) > 3 else argv[0]
    return speaks.rpartition("/")[2]
