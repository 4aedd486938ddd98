"""A restore by mongorestore: planned and checked as the native one, but done in place by the tool."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from pydantic import SecretStr
from pymongo.errors import PyMongoError

from tasks.database.connection import Client, open_database
from tasks.database.connection import explain as driver_error
from tasks.database.foreign_writes import ForeignWrites, watch_for_others
from tasks.database.holdings import Contents
from tasks.database.restore.dropping import drop_extra, require_held, what_it_holds
from tasks.database.restore.lock import hold
from tasks.database.restore.look import Survey, survey
from tasks.database.restore.names import extra_name, is_own
from tasks.database.restore.patience import Patience
from tasks.database.restore.plan import Action, RestorePlan, RestoreRequest, Verb
from tasks.database.restore.progress import RestoreEvidence, RestoreProgress
from tasks.database.restore.work import Work, data_name
from tasks.database.tools.address import Address, config, parse
from tasks.database.tools.dumping import refuse_files
from tasks.database.tools.expected import Expected, check, expected
from tasks.database.tools.failure import Ended, explain, unfinished
from tasks.database.tools.find import Tool
from tasks.database.tools.job import Feed, Job
from tasks.database.tools.options import restore_options
from tasks.database.tools.refusals import need_safety, refuse, refuse_loopback, refuse_merge, refuse_oplog
from tasks.database.tools.told import Bar, Finished, Indexing, Summary, Told
from tasks.database.tools.watchdog import SILENCE
from tasks.domain.errors import NOTHING_CHANGED, StoppedError, UpgradeError, before_any_change

_GUARD_SECONDS = 0.5


def restore_with_tool(
    tool: Tool,
    uri: SecretStr,
    archive: Path,
    request: RestoreRequest,
    *,
    guard: Callable[[], None] = lambda: None,
    safety: Path | None = None,
    progress: Callable[[RestoreProgress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RestoreEvidence:
    """Put the database back as `archive` has it, or what `request` selects of it, with `mongorestore --drop`.

    The tool drops and fills each collection in its place, so `safety`, a proved backup of what is there now, is
    needed as soon as anything would be replaced.  `guard` raises UpgradeError when the run may not go on; it is
    asked before the start and about twice a second until the end, and the tool is ended when it does.
    Afterwards every collection is compared with the archive by options, indexes, count and fingerprint.

    Raises the plan's refusal, UsageError (a merge), BlockedError (no safety backup, an oplog to be applied)
    and what the connection is before anything is changed; DriftError, StoppedError, TemporaryError, UnprovenError.
    """
    address = parse(uri.get_secret_value())
    with before_any_change():
        tool.refuse_old()
        refuse_files(tool, address)
        refuse_loopback(tool, address)
        refuse_merge(request)
    with open_database(uri.get_secret_value()) as client:
        with before_any_change(), ExitStack() as stack:
            found = survey(client, archive, request, safety, progress=_proving(archive, progress), stop=stop, now=now)
            refuse(found.plan)
            need_safety(found.plan, found.safety, lambda action: _count(client, action))
            wanted = {found.data(action) for action in found.plan.loads}
            hoped = expected(archive, wanted)
            refuse_oplog(hoped, request)
            guard()
            lock = stack.enter_context(hold(client, request.database, archive.name, stop=stop))
            kept = stack.pop_all()
        with kept:
            run = _Run(tool, address, client, found, _both(guard, lock.check), stop, progress, safety)
            return run.restore(archive, hoped)


class _Run:
    """One run of mongorestore and what is done around it."""

    def __init__(
        self,
        tool: Tool,
        address: Address,
        client: Client,
        found: Survey,
        guard: Callable[[], None],
        stop: Callable[[], bool],
        progress: Callable[[RestoreProgress], None],
        safety: Path | None,
    ) -> None:
        self._tool, self._address, self._client = tool, address, client
        self._found, self._plan = found, found.plan
        self._guard, self._stop, self._progress = guard, stop, progress
        self._safety, self._safe = safety, NOTHING_CHANGED
        self._bytes: dict[str, int] = {}
        self._documents: dict[str, int] = {}
        self._failures = 0
        self._guarded = 0.0

    def restore(self, archive: Path, hoped: Expected) -> RestoreEvidence:
        """Run the tool, drop what an exact restore drops, compare."""
        filled = [*self._plan.of(Verb.REPLACE), *self._plan.of(Verb.CREATE)]
        dropped = self._plan.of(Verb.DROP)
        with self._told(), watch_for_others(self._client, self._plan.database, self._found.run) as others:
            work = Work(
                self._client, self._plan.database, guard=lambda: self._go_on(others), stop=self._stop,
                patience=Patience(self._client, stop=self._stop),
            )  # fmt: skip
            held = self._held(work, dropped)
            others.own(*_names(filled), data=True)
            others.own(*_names(dropped))
            self._safe = _half(self._plan, self._safety)
            if filled:
                self._run(archive, filled, others)
            for action, aside in zip(dropped, self._asides(work), strict=False):
                self._say("drop", action.target.collection)
                drop_extra(work, action, held, aside)
            self._say("check", "")
            notes = check(work, self._found, filled, hoped)
            others.settle()
        return RestoreEvidence(
            database=self._plan.database,
            archive=archive,
            sha256=self._found.proof.sha256,
            replaced=_names(self._plan.of(Verb.REPLACE)),
            created=_names(self._plan.of(Verb.CREATE)),
            dropped=_names(dropped),
            left=_names(self._plan.of(Verb.LEAVE)),
            documents=self._plan.documents,
            bytes=self._plan.bytes,
            notes=(*self._plan.sentences, *notes, *others.evidence()),
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever goes wrong in it is told with what is safe then."""
        try:
            yield
        except UpgradeError as error:
            raise error.with_safe(self._safe) from None
        except PyMongoError as problem:
            raise driver_error(problem, self._address.hosts).with_safe(self._safe) from None
        except Exception as problem:
            raise UpgradeError(
                "The restore failed in a way that was not foreseen.",
                observed=f"{type(problem).__name__}.",
                safe=self._safe,
                next="Restore again. If it fails again, keep this text and the log for whoever maintains this software.",
            ) from problem

    def _held(self, work: Work, dropped: Sequence[Action]) -> Contents:
        """What the backup of what is there now holds; what is to be dropped is held against it while all can still end."""
        if not dropped:
            return Contents({}, {})
        held = what_it_holds(self._safety, stop=self._stop)
        for action in dropped:
            require_held(work, action, held)
        return held

    def _asides(self, work: Work) -> Iterator[str]:
        names = (extra_name(self._found.run, number) for number in count())
        return (name for name in names if work.info(name) is None)

    def _run(self, archive: Path, filled: list[Action], others: ForeignWrites) -> None:
        hello = self._client.admin.command("hello")
        command = [self._tool.program, *self._options(filled)]
        with (
            archive.open("rb") as file,
            Job(
                command,
                config=config(self._address, set_name=str(hello.get("setName", ""))),
                ssh=self._tool.ssh,
                feed=Feed(file, self._found.proof.size),
                tick=lambda: self._tick(others),
                hear=self._hear,
                output=False,
                silence=SILENCE,
            ) as job,
        ):
            code = job.finish()
            ended = Ended(
                self._tool.program, code, list(job.lines), self._address.hosts, self._tool.ssh, self._address.secrets
            )
        if code:
            raise explain(ended, safe=self._safe)
        if self._failures:
            raise unfinished(ended, self._failures, safe=self._safe)

    def _options(self, filled: list[Action]) -> list[str]:
        source = self._plan.source_database
        names = [(a.source.collection, a.target.collection) for a in filled if a.source]
        series = [f"system.buckets.{a.source.collection}" for a in filled if a.source and a.kind == "timeseries"]
        held = {
            record.collection
            for record in self._found.proof.namespaces
            if record.db == source and not is_own(record.collection)
        }
        return restore_options(
            [*names, *((name, name) for name in series)],
            source=source,
            target=self._plan.database,
            gzip=self._found.proof.gzip,
            everything=held == {old for old, _ in names} and all(old == new for old, new in names),
        )

    def _tick(self, others: ForeignWrites) -> None:
        if self._stop():
            raise StoppedError("The restore was stopped.", observed="mongorestore was ended.", safe=self._safe)
        if time.monotonic() - self._guarded >= _GUARD_SECONDS:
            self._go_on(others)
            self._guarded = time.monotonic()

    def _go_on(self, others: ForeignWrites) -> None:
        self._guard()
        others.check()

    def _hear(self, told: Told) -> None:
        match told:
            case Bar(name, done, _):
                self._bytes[name] = done
                self._say("load", name)
            case Finished(name, documents, failures):
                self._documents[name] = documents
                self._failures += failures
                self._say("load", name)
            case Indexing(name):
                self._say("index", name)
            case Summary(_, failures):
                self._failures = max(self._failures, failures)
            case _:
                pass

    def _say(self, phase: str, name: str) -> None:
        self._progress(
            RestoreProgress(
                phase,  # type: ignore[arg-type]  # one of the phases
                name.removeprefix(f"{self._plan.database}."),
                len(self._documents),
                len(self._plan.loads),
                sum(self._documents.values()),
                min(sum(self._bytes.values()), self._plan.bytes),
                self._plan.bytes,
            )
        )


def _half(plan: RestorePlan, safety: Path | None) -> str:
    kept = f" What was there is in the backup {safety}." if safety else " Nothing of it was there before."
    return (
        f"mongorestore works in place: collections of {plan.database} may be missing or hold a part of their "
        f"documents now.{kept} Start nothing on this database before it is restored again."
    )


def _count(client: Client, action: Action) -> int:
    data = data_name(action.target.collection, action.kind_now)
    return client[action.target.db][data].count_documents({})


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    def asked() -> None:
        first()
        second()

    return asked


def _names(actions: Sequence[Action]) -> tuple[str, ...]:
    return tuple(action.target.collection for action in actions)


def _proving(archive: Path, progress: Callable[[RestoreProgress], None]) -> Callable[[int, int], None]:
    return lambda done, total: progress(RestoreProgress("prove", archive.name, 0, 0, 0, done, total))
