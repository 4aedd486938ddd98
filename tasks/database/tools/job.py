"""One run of a tool, here or over SSH, that ends whatever happens to the one who started it.

A small `sh` script is put around the tool, the same here and there.  It reads the tool's configuration from its
own standard input into a file of mode 0600 whose name is gone before the first byte is in it, starts the tool
with that file, feeds it what follows on standard input, and then waits: when the input ends, because this
process closed it, was killed, or lost its connection, the tool is ended.  So neither a password nor a tool is
left behind, on this machine or the other, and none is ever in an argument or in the environment.
"""

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, BinaryIO, Self

from tasks.database.tools.told import Told, parse
from tasks.database.tools.watchdog import Watchdog
from tasks.domain.errors import UsageError

SLICE = 0.25
"""Seconds between two looks at whether the run is to go on."""
_PIECE = 1024 * 1024
_PATIENCE = 12.0  # Longer than the script's own, which asks the tool and, after five seconds, kills it.
_KEPT_LINES = 200
_LONGEST_LINE = 4096

# One line, without single quotes and backslashes, a blank after each exclamation mark (csh): every login shell
# passes it on as it is.
# Its arguments: bytes of configuration, bytes to feed, the tool and its options.
_SCRIPT = (
    "umask 077; d=$(mktemp -d) || exit 97; "
    'mkfifo "$d/in" && exec 4>"$d/config" 5<"$d/config" 6<>"$d/in" 7>"$d/in" 8<"$d/in" || exit 97; '
    'rm -rf "$d"; dd bs=1 count="$1" >&4 2>/dev/null; size=$2; shift 2; exec 3<&0 4>&- 6>&-; '
    '"$@" --config /dev/fd/5 <&8 3<&- 7>&- 8<&- & tool=$! ; '
    '(head -c "$size" <&3 >&7; exec 7>&-; while read -r line; do :; done <&3; kill -TERM "$tool"; '
    'for i in 1 2 3 4 5; do sleep 1; kill -0 "$tool" || exit 0; done; kill -KILL "$tool") '
    ">/dev/null 2>&1 5<&- 8<&- & watch=$! ; exec </dev/null 3<&- 5<&- 7>&- 8<&-; "
    'end() { kill -TERM "$tool" 2>/dev/null; }; trap end HUP INT TERM; '
    'wait "$tool"; code=$?; while kill -0 "$tool" 2>/dev/null; do wait "$tool"; code=$?; done; '
    'kill "$watch" 2>/dev/null; exit "$code"'
)
_VERSION = 'command -v "$1" >/dev/null 2>&1 || exit 127; exec "$1" --version'


@dataclass(frozen=True, slots=True)
class Feed:
    """What the tool reads on its standard input: `size` bytes of `file`."""

    file: BinaryIO
    size: int


class Job:
    """A tool at work; use it as a context, whose end is the tool's end.

    `tick` is called at least four times a second from the thread that uses the job; what it raises ends it.  With
    `silence` the tool is ended too when this process stood still for so many seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        config: bytes,
        ssh: str = "",
        feed: Feed | None = None,
        tick: Callable[[], None] = lambda: None,
        hear: Callable[[Told], None] = lambda _: None,
        output: bool = True,
        silence: float = 0.0,
    ) -> None:
        sizes = [str(len(config)), str(feed.size if feed else 0)]
        self._tick, self._hear = tick, hear
        self._pending = memoryview(config)
        self._feed = feed
        self._heard: deque[Told] = deque()
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
        """The last lines that the tool, the shell or ssh wrote to standard error."""
        self._process = subprocess.Popen(
            wrapped(_SCRIPT, [*sizes, *command], ssh),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            # A Ctrl-C of the terminal is this process's to handle, in order.
            start_new_session=True,
        )
        self._watchdog = Watchdog(self._process.pid, silence) if silence else None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                os.set_blocking(pipe.fileno(), False)
        self._listener = threading.Thread(target=self._listen, name="tool-listener", daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def pieces(self) -> Iterator[bytes]:
        """Standard output to its end, in pieces of up to 1 MiB."""
        stdout = self._process.stdout
        if stdout is None:
            raise ValueError("this job's output is not kept")
        while True:
            self._look()
            ready, _, _ = select.select([stdout], self._waiting(), [], SLICE)
            self._pass_on()
            if ready:
                piece = stdout.read(_PIECE)
                if piece == b"":
                    return
                if piece:
                    yield piece

    def finish(self) -> int:
        """Feed what is to be fed, wait for the end: the exit code."""
        while True:
            self._look()
            if self._process.poll() is None and (waiting := self._waiting()):
                select.select([], waiting, [], SLICE)
                self._pass_on()
                continue
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(SLICE)
                self._listener.join(_PATIENCE)
                self._tell()
                # A wrapper that was killed itself tells as a shell does.
                return code if code >= 0 else 128 - code

    def end(self) -> None:
        """End the tool, if it still runs: its input first, which ends it on the far side too."""
        if self._watchdog:
            self._watchdog.close()
        with contextlib.suppress(OSError):
            if self._process.stdin:
                self._process.stdin.close()
        # A tool that waits for its output to be taken could not say that it is going.
        deadline = time.monotonic() + _PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            self._drain()
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(1)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe and not (pipe is self._process.stderr and self._listener.is_alive()):
                pipe.close()

    def _drain(self) -> None:
        stdout = self._process.stdout
        if stdout is None or not select.select([stdout], [], [], SLICE)[0] or not stdout.read(_PIECE):
            time.sleep(SLICE / 5)

    def _look(self) -> None:
        self._tell()
        self._tick()

    def _tell(self) -> None:
        while self._heard:
            self._hear(self._heard.popleft())

    def _waiting(self) -> list[IO[bytes]]:
        """Standard input, while there is something to write to it."""
        stdin = self._process.stdin
        return [stdin] if stdin and (self._pending or self._feed) else []

    def _pass_on(self) -> None:
        """Write as much as the pipe takes now."""
        try:
            while waiting := self._waiting():
                if not self._pending and not self._refill():
                    return
                written = waiting[0].write(self._pending)
                if not written:
                    return
                self._pending = self._pending[written:]
        except BrokenPipeError:
            # The tool is gone; its exit code says why.
            self._pending, self._feed = memoryview(b""), None

    def _refill(self) -> bool:
        self._pending = memoryview(self._feed.file.read(_PIECE) if self._feed else b"")
        if not self._pending:
            self._feed = None
        return bool(self._pending)

    def _listen(self) -> None:
        stderr = self._process.stderr
        if stderr is None:
            return
        rest = b""
        while piece := stderr.read(65536):
            *lines, rest = (rest + piece).replace(b"\r", b"\n").split(b"\n")
            rest = rest[:_LONGEST_LINE]
            for line in lines:
                self._note(line)
        self._note(rest)

    def _note(self, raw: bytes) -> None:
        line = raw[:_LONGEST_LINE].decode(errors="replace").strip()
        if not line:
            return
        self.lines.append(line)
        if told := parse(line):
            self._heard.append(told)


def version_command(program: str, ssh: str) -> list[str]:
    """The command that asks a tool for its version."""
    return wrapped(_VERSION, [program], ssh)


def wrapped(script: str, arguments: Sequence[str], ssh: str) -> list[str]:
    """The command that runs `script` with `arguments`, here or at `ssh`.

    Raises UsageError for a destination that ssh would take for an option.
    """
    local = ["sh", "-c", script, "apinizer-upgrade", *arguments]
    if not ssh:
        return local
    if ssh.startswith("-") or not ssh.strip() or any(character.isspace() for character in ssh):
        raise UsageError(
            "The machine for mongodump is not an SSH destination.",
            next="Write it as user@host, as ssh://user@host:port, or as a name of ~/.ssh/config.",
        )
    options = ("BatchMode=yes", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ClearAllForwardings=yes",
               "ConnectTimeout=15", "RemoteCommand=none")  # fmt: skip
    flags = [part for option in options for part in ("-o", option)]
    return ["ssh", "-T", *flags, "--", ssh, "exec " + " ".join(shlex.quote(part) for part in local)]
