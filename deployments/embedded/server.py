"""The caller's side: start the server, wait until it answers, end it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from deployments.embedded.process import MEMORY, command, environment, tail
from tasks.domain.errors import UpgradeError

HOST = "127.0.0.1"
# Prefect opens a ":memory:" database through one connection, so its writers queue. On a file they collide: a flow
# that starts while the tasks of another are being recorded is answered 503, and tries again after two seconds.
DATABASE = f"{MEMORY}&uri=true&check_same_thread=false"
DRAIN_TIMEOUT = 5.0
"""Seconds for the client's last events; a tenth is usual."""
NO_SERVER = "Set PREFECT_API_URL to a Prefect server that runs, or mend the cause above and try again."


class EmbeddedServer(AbstractContextManager["EmbeddedServer"]):
    """A Prefect server on loopback for this process alone.

    `start` returns at once; `wait` before the first flow. The socket is bound here and handed over, so no
    port is guessed and none is raced for. Other users of the machine can reach a loopback port: every call
    but health and readiness needs the random password of `settings`. When this process ends, by whatever
    signal, the server ends and removes its files.
    """

    def __init__(self) -> None:
        self._password = f"apinizer-upgrade:{secrets.token_urlsafe(32)}"
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path()
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process; it is loading when this returns. Does nothing where it runs already."""
        if self._process is not None:
            return
        self._directory = Path(tempfile.mkdtemp(prefix="apinizer-upgrade-"))
        settings = environment(DATABASE, self._directory) | _lean(self._password)
        try:
            with socket.create_server((HOST, 0), backlog=128) as listener, self._log.open("wb") as log:
                self._port = listener.getsockname()[1]
                self._process = subprocess.Popen(
                    command("serve", str(listener.fileno()), str(self._directory)),
                    env=settings,
                    cwd=self._directory,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=(listener.fileno(),),
                    # Ctrl-C is for the flow, which still tells the server how it ended.
                    start_new_session=True,
                )
        except BaseException:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise

    def wait(self, timeout: float = 90.0) -> None:
        """Return when the API answers. Raises `UpgradeError` with the end of its log where it ended, or
        did not answer within `timeout` seconds (the first start on a machine makes its database: some 20 s).
        """
        if self._process is None:
            raise RuntimeError("The embedded server was not started.")
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            if self._healthy(left):
                return
            # The listening socket is open from the start: being refused means that its owner has ended.
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=min(1.0, left))
                raise self._failed("The embedded Prefect server ended while it was starting.", f"Exit code {code}.")
        raise self._failed("The embedded Prefect server did not start.", f"No answer within {timeout:g} s.")

    def settings(self) -> dict[str, str]:
        """The environment for the process that runs the flow, to be set before it imports Prefect.

        Names the server, keeps the client on loopback whatever proxy is configured, and leaves out what one
        local run does not need: logs sent to the server, results and profiles in the person's home, analytics.
        """
        no_proxy = ",".join(
            part for part in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY", ""), HOST) if part
        )
        return {
            "PREFECT_API_URL": f"http://{HOST}:{self._port}/api",
            "PREFECT_API_AUTH_STRING": self._password,
            "PREFECT_HOME": str(self._directory),
            "PREFECT_LOGGING_TO_API_ENABLED": "false",
            "PREFECT_LOGGING_LEVEL": os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def stop(self) -> None:
        """End the server and remove its files; its database is in memory, so nothing is left half-written.

        Not to be called from a coroutine: it waits for the client's last events.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            _drain_client()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._directory / "server.log"

    def _healthy(self, timeout: float) -> bool:
        from http.client import HTTPConnection, HTTPException

        # One question, asked before the server listens to it: the answer comes the moment it can be given.
        connection = HTTPConnection(HOST, self._port, timeout=timeout)
        try:
            connection.request("GET", "/api/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _failed(self, happened: str, observed: str) -> UpgradeError:
        return UpgradeError(happened, observed=f"{observed}\n{tail(self._log)}".strip(), next=NO_SERVER)


@contextmanager
def without_heartbeats() -> Iterator[None]:
    """Run flows without Prefect's heartbeat thread, which costs each sync flow a second when it is joined.

    Nobody watches the heartbeats of a run whose server ends with it. No environment variable can say
    "none", so this is a context of the calling process; it imports Prefect.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _drain_client() -> None:
    """Let Prefect's client in this process deliver its last events, where it was used.

    It would do so at the end of the process, find the server gone, and try again for seven seconds.
    """
    import logging

    worker = sys.modules.get("prefect.events.worker")
    if worker is not None:
        # Its "still processing items" is about events that nobody will miss.
        logging.getLogger("EventsWorker").setLevel(logging.ERROR)
        worker.EventsWorker.drain_all(timeout=DRAIN_TIMEOUT)


def _lean(password: str) -> dict[str, str]:
    """The server's settings: only what one run needs. Task runs are recorded from events, so those stay."""
    return {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_API_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
        "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
