"""The live record of a run: the lock that it holds, and its journal, written before each change and after it.

Before anything is written, in the journal too, the lock is asked: of two processes that hold themselves for the run only
one may, and what the other writes would only be in its way.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tasks.cluster.api import KubernetesApi
from tasks.domain.errors import DriftError, StoppedError, UpgradeError, as_failure
from tasks.domain.inventory import DeploymentKey
from tasks.domain.journal import BackupMade, Ended, Entry, Journal, Kind, Owner, idle, ways_on
from tasks.domain.safe_before import standing
from tasks.record import stopping
from tasks.record.feed import Event, State, publish
from tasks.record.journal_store import JournalStore, beside
from tasks.record.lease import Lease
from tasks.record.owner import present_owner

Evidence = dict[str, str | int]
UNTOUCHED = "Run it again when that is mended: nothing was changed, so nothing stands in its way."


@dataclass
class Done:
    """What was seen after a change, to be filled in by who made it.

    `refused` says why, where it failed and surely was not made: then its entry counts for nothing.
    """

    evidence: Evidence = field(default_factory=dict)
    refused: str = ""


class RunRecord:
    """One run of one process.  Safe to share between threads.

    `journals` are those that were there when the lock was taken, newest first; `journal` is the run's own, None until
    `create` or `adopt`.
    """

    def __init__(self, owner: Owner, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.owner, self.now = owner, now
        self.id = ""
        self.manager: DeploymentKey | None = None
        self.journals: tuple[Journal, ...] = ()
        self.journal: Journal | None = None
        self._lease: Lease | None = None
        self._store: JournalStore | None = None
        self._over = False
        self._untold = True
        self._writing = threading.RLock()

    def take(self, api: KubernetesApi, manager: DeploymentKey, run: str, doing: str) -> tuple[Journal, ...]:
        """Take the lock of the manager's namespace for the run of that ID, then read the journals; those.

        `api` is that of the manager's cluster.  May be called again after a failure.  Raises `BlockedError` where a
        living run holds the lock or a journal cannot be read, `ForbiddenError` where the account may not do either.
        """
        lease = self._lease or Lease(api, manager.namespace, owner=self.owner, run=run, doing=doing)
        lease.take(stop=stopping.asked)
        with self._writing:
            if self._over:  # the flow has ended while this thread waited for the lock
                lease.release()
                self.require()
            self.id, self.manager, self._lease = run, manager, lease
            self._store = JournalStore(api, manager.namespace, cluster=manager.cluster)
        self.journals = self._store.all()
        return self.journals

    @property
    def locked(self) -> bool:
        """Whether the lock was taken and not given back."""
        return self._lease is not None and not self._over

    @property
    def standing(self) -> Journal | None:
        """The run's own journal; while that has no change, the unfinished run with changes that was found with the lock."""
        if self.journal is not None and (self.journal.changed or not self.journal.unfinished):
            return self.journal
        return standing(self.journals) or self.journal

    def require(self) -> None:
        """Raise `StoppedError` unless the lock is held: asked before every change, inside of a step too."""
        if self._lease is None or self._over:
            raise StoppedError(
                "Nothing is changed outside of a run." if self._lease is None else "The run has ended.",
                observed="Its lock is not held.",
                safe="This step was not begun.",
                next="apinizer-upgrade runs tells what the run did.",
            )
        self._lease.require()

    def doing(self, text: str) -> None:
        """Told to whoever asks who holds the lock."""
        if self._lease is not None:
            self._lease.doing(text)

    def create(self, journal: Journal) -> None:
        """Begin the run's journal."""
        with self._writing:
            self.require()
            self._open_store().create(journal)
            self.journal = journal
            self._is_of(journal)
            self.close_idle(journal.of)

    def adopt(self, journal: Journal) -> None:
        """Go on with an unfinished run: this process is its next try."""
        with self._writing:
            self._save(journal.take_up(self.owner, self.now()))
            self._is_of(journal)
            self.close_idle(journal.of)

    def _is_of(self, journal: Journal) -> None:
        """The lock is this run's: which one goes on may be known only by the journals, which are read under it."""
        self.id = journal.id
        if self._lease is not None:
            self._lease.is_of(journal.id)

    def close_idle(self, *but: str) -> None:
        """End the journals that changed nothing, but this run's and those named: who has the lock knows that nobody works on them.

        One that cannot be written stays; it stands in nobody's way.
        """
        with self._writing:
            mine = self.journal.id if self.journal else ""
            for journal in idle(self.journals, mine, *but):
                self.require()
                ended = journal.end(
                    self.now(), Ended.NOTHING_CHANGED, f"It stopped before its first change; closed by {self.id}."
                )
                try:
                    self._open_store().save(ended)
                except UpgradeError as unwritten:
                    publish(Event("journal", State.LOG, f"{journal.id} could not be closed: {unwritten.happened}"))
                    continue
                self.journals = tuple(ended if j.id == ended.id else j for j in self.journals)

    def save_other(self, journal: Journal) -> None:
        """Write another run's journal, e.g. its end."""
        with self._writing:
            self.require()
            self._open_store().save(journal)

    @contextmanager
    def changing(self, entry: Entry) -> Iterator[Done]:
        """While a change is made.  Its entry is written before; where that fails nothing is changed.

        An exception leaves the entry without `done`.  Where the same change is open already (of a try that did not come
        to its end) that entry stays the one: it has what was there before.
        """
        number, fresh = self._begun(entry)
        done = Done()
        try:
            yield done
        except UpgradeError:
            # Of an entry that another try left open nobody knows what that one sent.
            if done.refused and fresh:
                with self._writing, suppress(UpgradeError):
                    self._save(self._known().withdraw(number, self.now(), done.refused))
            raise
        with self._writing:
            self._save(self._known().finish(number, self.now(), done.evidence))

    def _begun(self, entry: Entry) -> tuple[int, bool]:
        """The number of the change's entry, and whether it is a new one."""
        with self._writing:
            known = self._known()
            number = next((n for n, e in enumerate(known.entries) if e.done is None and _same(e, entry)), None)
            if number is not None:
                self.require()
                return number, False
            self._save(known.begin(entry))
            return len(known.entries), True

    def found_done(self, kind: Kind, key: DeploymentKey, evidence: Evidence) -> None:
        """The effect of a Deployment's change is there: close those of its entries whose outcome was not known."""
        with self._writing:
            now, known = self.now(), self._known()
            for number, entry in enumerate(known.entries):
                if entry.done is None and entry.kind == kind and entry.key == key:
                    known = known.finish(number, now, {"found": "its effect was there", **evidence})
            if known is not self.journal:
                self._save(known)

    def add_evidence(self, kind: Kind, key: DeploymentKey, evidence: Evidence) -> None:
        """More that was seen of a Deployment's last change, e.g. what its pods answer."""
        with self._writing:
            known = self._known()
            mine = [n for n, e in enumerate(known.entries) if e.kind == kind and e.key == key and e.done]
            if mine:
                entry = known.entries[mine[-1]]
                self._save(known.finish(mine[-1], entry.done or self.now(), {**entry.evidence, **evidence}))

    def backed_up(self, made: BackupMade) -> None:
        """The backup of before was made and proved."""
        with self._writing:
            self._save(self._known().backed_up(made))

    def safety(self, made: BackupMade) -> None:
        """The backup of what a restore will replace was made and proved."""
        with self._writing:
            self._save(self._known().made_safe(made))

    def end(self, how: Ended, reason: str = "") -> None:
        """The run has come to its end; old journals are let go."""
        with self._writing:
            at, known = self.now(), self._known()
            last = tuple(t.model_copy(update={"ended": t.ended or at}) for t in known.tries[-1:])
            self._save(known.model_copy(update={"tries": (*known.tries[:-1], *last)}).end(at, how, reason))
            if told := self._open_store().prune():
                publish(Event("journal", State.LOG, told))

    def stop(self, error: Mapping[str, str]) -> None:
        """This try has ended with an error (four parts).  A journal that cannot be written now stays as it is: unfinished.

        Without the lock it is another's to write.
        """
        with self._writing:
            if self.journal is None or not self.journal.unfinished or not self.locked:
                return
            try:
                self._save(self.journal.stop(self.now(), error))
            except UpgradeError as unwritten:
                publish(Event("journal", State.LOG, f"How the run ended could not be recorded: {unwritten.happened}"))

    def with_ways(self, error: UpgradeError) -> UpgradeError:
        """The error with what can be done about the run: go on, go back, or begin anew where nothing was changed.

        Where the lock was lost that is the news, whatever else it led to.  What forbids to go on with a run that has
        changed something is a failure of it: only where nothing was changed is a run blocked (exit code 3).
        """
        if self.journal is not None and self.journal.changed:
            error = as_failure(error)
        journal = self.standing
        if journal is None or not journal.unfinished:
            return error
        if self.locked and isinstance(error, StoppedError):
            try:
                self.require()
            except StoppedError as lost:
                error = lost.with_safe(error.safe)
        if not journal.changed:
            return _with_next(error, UNTOUCHED)
        ways = [way for way in ways_on(journal, self.journals) if " abandon " not in way]
        return _with_next(error, "\n".join(ways))

    def release(self) -> None:
        """The process is done with the run.  What is still under way in a thread changes nothing more."""
        with self._writing:
            self._over = True
        if self._lease is not None:
            self._lease.release(complete=self.journal is not None and not self.journal.unfinished)

    def _known(self) -> Journal:
        if self.journal is None:
            raise DriftError("A change is to be made, and no journal was begun.", next="Report this defect.")
        return self.journal

    def _open_store(self) -> JournalStore:
        if self._store is None:
            raise DriftError("A journal is to be written, and no lock was taken.", next="Report this defect.")
        return self._store

    def _save(self, journal: Journal) -> None:
        self.require()
        self._open_store().save(journal)
        self.journal = journal
        made = journal.safety if journal.kind == "rollback" else journal.backup
        # In a pod the host is another each time, and the volume with the backup the same.
        if made is None or not (made.host == self.owner.host or Path(made.archive).exists()):
            return
        told = beside(journal, Path(made.archive).parent)
        if told and self._untold:  # said once, tried at every write
            publish(Event("journal", State.LOG, told))
        self._untold = not told


def _same(known: Entry, entry: Entry) -> bool:
    """Whether they are the same change."""
    return (known.kind, known.subject, known.key, known.images, known.replicas) == (
        entry.kind,
        entry.subject,
        entry.key,
        entry.images,
        entry.replicas,
    )


def _with_next(error: UpgradeError, more: str) -> UpgradeError:
    said = error.next.splitlines()
    told = "\n".join([*said, *(line for line in more.splitlines() if line not in said)])
    return type(error)(error.happened, observed=error.observed, safe=error.safe, next=told)


_records: dict[str, RunRecord] = {}


@contextmanager
def recorded(installation: str, *, run: str = "") -> Iterator[RunRecord]:
    """Have the steps of a run find its record by the installation's name; `run` is Prefect's id of the flow run.

    An error that leaves the context is written to the journal; the lock is given back.
    """
    record = RunRecord(present_owner(run))
    _records[installation] = record
    try:
        yield record
    except BaseException as error:
        record.stop(four_parts(error))
        raise
    finally:
        _records.pop(installation, None)
        record.release()


def record_of(installation: str) -> RunRecord | None:
    """The record of the run that is under way; None for flows that keep none, and when it is over."""
    return _records.get(installation)


def held_record(installation: str) -> RunRecord:
    """The record of the run that is under way; raise `StoppedError` where it is over."""
    record = record_of(installation)
    if record is None:
        raise StoppedError(
            "The run has ended.",
            observed="Its lock is not held.",
            safe="This step was not begun.",
            next="apinizer-upgrade runs tells what the run did.",
        )
    return record


def four_parts(error: BaseException) -> dict[str, str]:
    """The four parts of what ended a run, of the error that led to it where that one knows more."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, UpgradeError):
        link = link.__cause__
    if link is not None:
        return link.as_json()
    return {"happened": f"It ended in a way that was not foreseen: {type(error).__name__}."}
