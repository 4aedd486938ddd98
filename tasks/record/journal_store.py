"""Journals in the cluster: one ConfigMap a run, in the manager's namespace, and a copy beside the run's backup.

Any machine that reaches the cluster finds them.  Every write is conditional on what was read or written last, so that
of two that write the same journal one is told; a write whose answer was lost is looked up before it is repeated.
"""

import itertools
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tasks.cluster.answers import JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi
from tasks.cluster.planning import Connections
from tasks.cluster.retry import pause
from tasks.domain.errors import BlockedError, ConflictError, ForbiddenError, NotFoundError, UpgradeError
from tasks.domain.inventory import DeploymentKey, Inventory
from tasks.domain.journal import Journal, newest_first, prunable
from tasks.domain.journal_form import HARD_LIMIT, write
from tasks.record.journal_object import (
    BESIDE,
    Damaged,
    Kept,
    changed,
    configmap,
    is_journal,
    journal_name,
    journal_of,
    kept,
    unreadable_error,
    writer,
)
from tasks.record.owner import tool_version

PATIENCE = 20.0  # of one request, while the API server refuses connections
WRITING = 60.0  # of one write with all its looks
BEFORE = "A change is begun only when the journal has it, so at most the evidence of the last one is missing there."
UNKNOWN = f"Whether the journal was written is not known. {BEFORE}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a namespace holds: the journals, newest first, and what cannot be read of them."""

    journals: tuple[Journal, ...]
    damaged: tuple[Damaged, ...]


class JournalStore:
    """The journals of the manager in `namespace` of the cluster of `api`.  Safe to share between threads.

    `cluster` is the name of the manager's cluster in the present configuration: journals are read with it in place of
    the name that another machine's configuration has.  Raises the errors of `KubernetesApi`; `ForbiddenError` names
    the rights that are missing.
    """

    def __init__(self, api: KubernetesApi, namespace: str, *, cluster: str = "") -> None:
        self.namespace = namespace
        self.api = api
        self._api = api.patient(PATIENCE)
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{namespace}/configmaps"
        self._known: dict[str, Kept] = {}
        self._tried: dict[str, set[str]] = {}  # texts that were sent since, and whose fate is not known
        self._writing = threading.Lock()

    def all(self) -> tuple[Journal, ...]:
        """Every journal, newest first.

        Raises `BlockedError` where one cannot be read: it may be of an unfinished run, which no other may pass over.
        """
        found = self.look()
        for damaged in found.damaged:
            raise unreadable_error(self.namespace, damaged)
        return found.journals

    def look(self) -> Found:
        """Every journal, and those that cannot be read: for those who only want to see."""
        journals: list[Journal] = []
        damaged: list[Damaged] = []
        with self._writing:  # or what a save writes meanwhile would be taken for somebody else's
            for thing in self._list():
                journal = journal_of(thing)
                if isinstance(journal, Damaged):
                    damaged.append(journal)
                else:
                    self._keep(journal.id, kept(thing))
                    journals.append(journal.seen_from(self._cluster))
        return Found(newest_first(journals), tuple(sorted(damaged, key=lambda one: one.name, reverse=True)))

    def create(self, journal: Journal) -> None:
        """Begin a journal.  Raises `ConflictError` where a run of that ID has one already."""
        text = write(journal)
        with self._writing:
            self._create(journal, text)

    def save(self, journal: Journal) -> None:
        """Write the journal's present state over what this store read or wrote last.

        Raises `ConflictError` where somebody else wrote it since, `ServerAwayError` where it could not be written, and
        `KeyError` for a journal that this store has neither read nor made.  One that was deleted meanwhile is made
        anew: what the run has done does not become undone by losing its record.
        """
        text = write(journal)
        with self._writing:
            self._save(journal, text, self._known[journal.id])

    def prune(self, keep: int = 20) -> str:
        """Remove ended journals beyond the newest `keep`; "" or a sentence on what kept it from that."""
        try:
            # What a save goes by stays as it is: this look is for nobody to decide on.
            there = [(found, kept(thing)) for thing in self._list() if isinstance(found := journal_of(thing), Journal)]
            versions = {journal.id: version for journal, version in there}
            for journal in prunable([journal for journal, _ in there], keep):
                self._delete(journal.id, versions[journal.id])
        except UpgradeError as error:
            return f"Old journals of runs could not be removed: {error.happened} {error.observed}".strip()
        return ""

    def _list(self) -> list[JsonObject]:
        """Those that carry the labels, and those that lost them and still hold a journal under a journal's name."""
        try:
            things = self._api.list(self._path).items
        except ForbiddenError as error:
            raise self._forbidden(error) from None
        return [thing for thing in things if is_journal(thing)]

    def _create(self, journal: Journal, text: str) -> None:
        patience = self._patience()
        while True:
            try:
                made = self._api.create(self._path, configmap(journal.id, text, tool_version()))
                self._keep(journal.id, kept(made))
                return
            except ForbiddenError as error:
                raise self._forbidden(error) from None
            except (ConflictError, ServerAwayError) as error:
                there = self._get(journal.id)
                if there is not None and kept(there).text == text:  # made by this very request, its answer lost
                    self._keep(journal.id, kept(there))
                    return
                if there is not None:
                    raise self._other(journal, there) from None
                patience(error)

    def _save(self, journal: Journal, text: str, known: Kept) -> None:
        patience = self._patience()
        ours = self._tried.setdefault(journal.id, set())
        ours |= {known.text, text}
        while True:
            failed: ConflictError | ServerAwayError | None = None
            try:
                there: JsonObject | None = self._patch(journal.id, changed(text, known, tool_version()))
            except NotFoundError:
                there = None
            except (ConflictError, ServerAwayError) as error:
                failed, there = error, self._get(journal.id)
            if there is None:
                self._create(journal, text)
                return
            now = kept(there)
            if failed is None or now.text == text:
                self._keep(journal.id, now)
                return
            if now.text not in ours:
                raise self._other(journal, there)
            # Only labels and the like were changed, or the request never landed, or one before it did after all.
            known = now
            patience(failed)

    def _keep(self, run: str, now: Kept) -> None:
        self._known[run] = now
        self._tried.pop(run, None)

    def _patience(self) -> Callable[[UpgradeError], None]:
        """To be called after each failure: waits a little, or raises it once patience is spent."""
        end, attempts, retry = time.monotonic() + WRITING, itertools.count(), self._api.retry

        def after(error: UpgradeError) -> None:
            if time.monotonic() > end:
                raise error.with_safe(UNKNOWN) from None
            if isinstance(error, ServerAwayError):
                retry.sleep(pause(error, next(attempts), retry.rng, base=retry.base, cap=retry.cap))

        return after

    def _patch(self, run: str, body: JsonObject) -> JsonObject:
        try:
            return self._api.patch(f"{self._path}/{journal_name(run)}", body, "merge")
        except ForbiddenError as error:
            raise self._forbidden(error) from None

    def _get(self, run: str) -> JsonObject | None:
        try:
            return self._api.get(f"{self._path}/{journal_name(run)}")
        except NotFoundError:
            return None
        except ForbiddenError as error:
            raise self._forbidden(error) from None
        except ServerAwayError as error:
            raise error.with_safe(UNKNOWN) from None

    def _delete(self, run: str, seen: Kept) -> None:
        conditions = {"preconditions": {"uid": seen.uid, "resourceVersion": seen.version}}
        with suppress(NotFoundError, ConflictError):  # somebody else was quicker, or writes it again
            self._api.delete(f"{self._path}/{journal_name(run)}", conditions)

    def _other(self, journal: Journal, there: JsonObject) -> ConflictError:
        found = journal_of(there)
        last = found.tries[-1] if isinstance(found, Journal) and found.tries else None
        return ConflictError(
            f"The journal of the {journal.kind} {journal.id} was written by somebody else.",
            observed=" ".join(
                part
                for part in (
                    f"The ConfigMap {self.namespace}/{journal_name(journal.id)} holds another state.",
                    f"Its last try is that of {last.owner}." if last else "",
                    writer(there),
                )
                if part
            ),
            safe=f"It was left as found. {BEFORE}",
            next=f"Somebody else goes on with this run: apinizer-upgrade runs show {journal.id} tells who.",
        )

    def _forbidden(self, error: ForbiddenError) -> ForbiddenError:
        return ForbiddenError(
            f"Journals of runs cannot be kept or read: {error.happened[:1].lower()}{error.happened[1:]}",
            observed=error.observed,
            safe=error.safe,
            next=f"{error.next} deployments/rbac.yaml has it, as a Role of the manager's namespace, here {self.namespace}.",
        )


def journal_store_for(connections: Connections, of: Inventory | DeploymentKey) -> JournalStore:
    """The store where the manager is; raise `BlockedError` where there is no manager, or more than one."""
    key = of if isinstance(of, DeploymentKey) else of.manager.key if of.manager else None
    if key is None:
        raise BlockedError(
            "Where the journals of runs are kept is not known: there is not exactly one manager.",
            observed="They are in the manager's namespace.",
            next="apinizer-upgrade status   shows what was found. Where there are several managers, limit the run to one "
            "installation with --namespace.",
        )
    return JournalStore(connections.apis[key.cluster], key.namespace, cluster=key.cluster)


def beside(journal: Journal, directory: Path) -> str:
    """Write the journal beside its backup, as `<archive name>.journal.json`; "" or a sentence on why it is not there.

    A rollback's is beside its safety backup: the one beside the backup of before is the upgrade's.  Without a backup
    there is nothing to write beside.
    """
    made = journal.safety if journal.kind == "rollback" else journal.backup
    if made is None:
        return ""
    path = directory / (re.split(r"[/\\]", made.archive)[-1] + BESIDE)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(write(journal, limit=HARD_LIMIT).encode())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, UpgradeError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        why = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
        return f"The copy of the journal beside the backup, {path}, could not be written: {why}."
    return ""
