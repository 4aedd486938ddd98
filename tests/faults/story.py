"""One sandbox, one folder, and the processes of the command that work on it, watched through the driver's records."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.sandbox.launch import Sandbox
from tests.flows.world import World, clean_environment

ROOT = Path(__file__).resolve().parents[2]
AGENT = "apinizer-upgrade"
PATIENCE = 240.0
JsonObject = dict[str, Any]


class StoryError(AssertionError):
    """The story did not come to the point at which the fault was to happen: it has shown nothing."""


@dataclass
class Run:
    """One process of the command, and what the driver wrote of it."""

    process: subprocess.Popen[bytes]
    record: Path
    begun: float = field(default_factory=time.monotonic)
    code: int | None = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0

    def lines(self) -> list[JsonObject]:
        """Every boundary so far, in order."""
        text = self.record.read_text() if self.record.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def last(self) -> str:
        """The boundary that was passed last, "" before the first."""
        lines = self.lines()
        return str(lines[-1]["at"]) if lines else ""

    def passed(self, at: str) -> bool:
        """Looked for as text, for it is asked often."""
        return self.record.exists() and f'"at": {json.dumps(at)},' in self.record.read_text()

    def wait_at(self, at: str, seconds: float = PATIENCE) -> None:
        """Return when the boundary is reached; raise where the command ends or nothing comes instead."""
        end = time.monotonic() + seconds
        while not self.passed(at):
            if self.process.poll() is not None or time.monotonic() > end:
                self.finish()
                raise StoryError(f"{at} was never reached; exit code {self.code}; {self.err[-1500:]}")
            time.sleep(0.02)

    def go_on(self, at: float = 0.0) -> None:
        """Let the thread that is held go on, at a moment (seconds since 1970) that is to come."""
        partial = self.record.with_suffix(".word")
        partial.write_text(str(at))
        partial.rename(self.record.with_suffix(".go"))

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def frozen(self) -> bool:
        """Whether every thread of it stands still."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return all((each / "stat").read_text().rpartition(")")[2].split()[0] in "Tt" for each in tasks)

    def finish(self, seconds: float = PATIENCE) -> "Run":
        """Wait for its end; one that does not come to it is killed, which is told."""
        ended = True
        try:
            self.code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            ended = False
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
            self.process.kill()
            self.code = self.process.wait()
        self.seconds = time.monotonic() - self.begun
        # Files, for a pipe ends only when its Prefect server has ended too.
        self.out, self.err = (self.record.with_suffix(end).read_text() for end in (".out", ".err"))
        if not ended:
            raise StoryError(f"no end after {seconds:.0f} s; last at {self.last()!r}; {self.err[-12000:]}")
        return self

    def died_at(self, at: str) -> None:
        """Raise unless it was killed just there: whatever else happened, the fault did not land."""
        if self.code != -signal.SIGKILL or self.last() != at:
            raise StoryError(
                f"killed at {at!r} was asked; exit code {self.code}, last at {self.last()!r}; {self.err[-1500:]}"
            )


class Story:
    """What happens in one sandbox; `folder` is where the command is typed and its backups are."""

    def __init__(self, sandbox: Sandbox, folder: Path, env: Mapping[str, str] = {}) -> None:
        self.sandbox, self.folder, self.world = sandbox, folder, World(sandbox)
        self.backups = folder / "backups"
        self.runs: list[Run] = []
        self._since = self._first = 0
        self._kept: dict[str, Any] = {}
        self._env = clean_environment() | sandbox.env() | {"PYTHONPATH": str(ROOT)} | dict(env)

    def start(self, *command: str, do: str = "", at: str = "", env: Mapping[str, str] = {}) -> Run:
        """Begin the command; at the boundary `at` the driver does `do`."""
        record = self.folder / f"run{len(self.runs) + 1}.record"
        with record.with_suffix(".out").open("w") as out, record.with_suffix(".err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.driver", str(record), do, at, *command],
                env=self._env | dict(env), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        self.runs.append(Run(process, record))
        return self.runs[-1]

    def run(self, *command: str, do: str = "", at: str = "", env: Mapping[str, str] = {}) -> Run:
        """The command to its end."""
        return self.start(*command, do=do, at=at, env=env).finish()

    def meddle(self, run: Run, at: str, act: Callable[[], object]) -> None:
        """Do something to the world while the run stands at a boundary (it was started with `hold` there)."""
        run.wait_at(at)
        act()
        run.go_on()

    def begin_here(self) -> None:
        """What was done so far was preparation: it is not counted."""
        self._since = max((one["seq"] for one in self.sandbox.audit()), default=0)
        self._first = len(self.runs)

    def watched(self) -> list[Run]:
        """The processes since then."""
        return self.runs[self._first :]

    def keep(self, name: str, value: Any) -> None:
        self._kept[name] = value

    def kept(self, name: str) -> Any:
        return self._kept[name]

    def end(self) -> None:
        """No process of this story stays."""
        for run in self.runs:
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()

    # ------------------------------------------------------------------ what is there
    def writes(self) -> list[JsonObject]:
        """What the command's processes wrote to the cluster since the story began, as its API server saw it."""
        return [one for one in self.sandbox.audit(self._since) if one["agent"].startswith(AGENT)]

    def journals(self) -> list[JsonObject]:
        """The journals in the cluster, newest first."""
        maps = self.world.get("/api/v1/namespaces/apinizer/configmaps")["items"]
        found = []
        for one in maps:
            if (one["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "journal":
                found += [json.loads(text) for text in one["data"].values() if text.startswith("{")]
        return sorted(found, key=lambda journal: str(journal["begun"]), reverse=True)

    def unfinished(self, kind: str) -> str:
        """The ID of the run of that kind that has not ended; a rollback goes on beside its unfinished upgrade."""
        (found,) = [str(one["id"]) for one in self.journals() if one["kind"] == kind and not one.get("ended")]
        return found

    def holder(self) -> str:
        """Who holds the lock now; "" for nobody."""
        status, body = self.world.ask("GET", "/apis/coordination.k8s.io/v1/namespaces/apinizer/leases/apinizer-upgrade")
        return str(json.loads(body)["spec"].get("holderIdentity") or "") if status == 200 else ""

    def database(self) -> dict[str, str]:
        """Every collection of the database: a hash of its documents, each byte of them, its options and its indexes."""
        return database_now(self.sandbox.mongo_uri)


def database_now(uri: str) -> dict[str, str]:
    """Collections by name: the SHA-256 of their documents by _id, options and indexes; what a restore keeps for itself left out."""
    import pymongo
    from bson import encode
    from bson.raw_bson import RawBSONDocument

    found = {}
    with pymongo.MongoClient[JsonObject](uri, serverSelectionTimeoutMS=20000) as client:
        database = client["apinizerdb"]
        for info in database.list_collections():
            name = info["name"]
            if name.startswith(("apinizer-restore", "system.")):
                continue
            documents = client.get_database("apinizerdb")[name].with_options(
                client.codec_options.with_options(document_class=RawBSONDocument)
            )
            digest = hashlib.sha256(json.dumps(info.get("options", {}), sort_keys=True, default=str).encode())
            for document in sorted(
                (each.raw for each in documents.find()), key=lambda raw: hashlib.sha256(raw).digest()
            ):
                digest.update(document)
            indexes = sorted((dict(each) for each in database[name].list_indexes()), key=lambda each: str(each["name"]))
            digest.update(b"".join(encode({k: v for k, v in each.items() if k != "ns"}) for each in indexes))
            found[name] = digest.hexdigest()
    return found


def enlarge(uri: str, documents: int) -> None:
    """More of what there is in the log collections, so that reading them takes its time."""
    import pymongo

    with pymongo.MongoClient[JsonObject](uri, serverSelectionTimeoutMS=20000) as client:
        for name in ("apinizer_log", "audit_event"):
            collection = client["apinizerdb"][name]
            for start in range(0, documents, 2000):
                rows = range(start, min(start + 2000, documents))
                collection.insert_many(
                    [{"name": f"more-{row}", "spec": {"body": os.urandom(400).hex()}} for row in rows]
                )
