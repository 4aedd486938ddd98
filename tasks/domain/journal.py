"""The journal of a run: before each change what it will do, what was there, how to undo it; after it, the evidence.

Pure.  One run has one journal, which only grows; `tasks.record` keeps it in the cluster.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from tasks.domain.errors import BlockedError, DriftError, UsageError
from tasks.domain.inventory import DeploymentFacts, DeploymentKey, Facts, Inventory
from tasks.domain.journal_entry import CHANGING, BackupMade, Before, Ended, Entry, Kind, Owner, Try
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version

__all__ = [
    "CHANGING",
    "FORMAT",
    "BackupMade",
    "Before",
    "Ended",
    "Entry",
    "Journal",
    "Kind",
    "Owner",
    "Try",
    "find_journal",
    "half_restored",
    "idle",
    "newest_first",
    "planned_name",
    "prunable",
    "require_fits",
    "require_goes_on",
    "require_none_unfinished",
    "rollback_of",
    "run_id",
    "ways_on",
]

FORMAT = 1


class Journal(Facts):
    """All of one run.

    `of` is the run that a rollback undoes.  `request` and `options` are what was asked for (times in seconds).
    `planned` are the Deployments of its plan, as `planned_name` has them.
    `backup` is the database as it was before the run's first change, `safety` as it was before a restore; `later` are
    those that were made when the restore went on, of what others wrote meanwhile, the oldest first.
    """

    format: Literal[1] = 1
    id: str
    kind: Literal["upgrade", "rollback"]
    of: str = ""
    manager: DeploymentKey
    current: Version | None = None
    to: Version
    request: PlanRequest | None = None
    options: Mapping[str, str | int | bool] = Field(default_factory=dict)
    planned: tuple[str, ...] = ()
    begun: datetime
    tries: tuple[Try, ...] = ()
    backup: BackupMade | None = None
    safety: BackupMade | None = None
    later: tuple[BackupMade, ...] = ()
    entries: tuple[Entry, ...] = ()
    ended: datetime | None = None
    how: Ended | None = None
    reason: str = ""

    @property
    def called(self) -> str:
        """What it is to people: an undo of one component is kept as a rollback of no run."""
        return "undo" if self.kind == "rollback" and not self.of else self.kind

    @property
    def unfinished(self) -> bool:
        return self.ended is None

    @property
    def changed(self) -> bool:
        """Whether a change was begun, so that the installation may be another than before."""
        return any(entry.changes for entry in self.entries)

    @property
    def manager_begun(self) -> bool:
        """Whether the manager's image may have been set: from then on `backup` is the only state of before."""
        return self.of_manager("set-image") is not None

    def of_manager(self, kind: Kind) -> Entry | None:
        """The first entry of a kind that concerns the manager."""
        return self.entry(kind, self.manager)

    def entry(self, kind: Kind, key: DeploymentKey) -> Entry | None:
        """The first entry of a kind for a Deployment, unless it was not made: what was there before any try."""
        return next((e for e in self.entries if e.kind == kind and e.key == key and not e.unmade), None)

    def begin(self, entry: Entry) -> "Journal":
        """With one change more that is about to be made; an unfinished one of the same kind and subject stays first."""
        return self.model_copy(update={"entries": (*self.entries, entry)})

    def finish(self, number: int, at: datetime, evidence: Mapping[str, str | int]) -> "Journal":
        """With the evidence of entry `number` (from 0)."""
        done = self.entries[number].model_copy(update={"done": at, "evidence": dict(evidence)})
        return self.model_copy(update={"entries": (*self.entries[:number], done, *self.entries[number + 1 :])})

    def withdraw(self, number: int, at: datetime, why: str) -> "Journal":
        """With entry `number` (from 0) as one that the server refused, so that it surely was not made."""
        last = self.entries[number].model_copy(update={"done": at, "evidence": {"refused": why}, "unmade": True})
        return self.model_copy(update={"entries": (*self.entries[:number], last, *self.entries[number + 1 :])})

    def end(self, at: datetime, how: Ended, reason: str = "") -> "Journal":
        return self.model_copy(update={"ended": at, "how": how, "reason": reason})

    def stop(self, at: datetime, error: Mapping[str, str]) -> "Journal":
        """The present try ended; where nothing was changed the run has ended with it."""
        last = tuple(one.model_copy(update={"ended": at, "error": dict(error)}) for one in self.tries[-1:])
        stopped = self.model_copy(update={"tries": (*self.tries[:-1], *last)})
        return stopped if self.changed else stopped.end(at, Ended.NOTHING_CHANGED, error.get("happened", ""))

    def take_up(self, owner: Owner, at: datetime) -> "Journal":
        """With one try more.  One before it that has no end was killed, or lost its machine."""
        return self.model_copy(update={"tries": (*self.tries, Try(owner=owner, begun=at))})

    def backed_up(self, made: BackupMade) -> "Journal":
        """With the backup of before; raise `BlockedError` once the manager may have migrated the database."""
        if self.manager_begun:
            raise BlockedError(
                f"The {self.called} {self.id} has its backup: what the database holds now is not the state of before.",
                observed=f"The manager's image was set, or about to be. The backup is {self.backup.archive}."
                if self.backup
                else "The manager's image was set, or about to be, and no backup is recorded.",
                safe="The backup that is recorded stays the one to go back to.",
                next=f"apinizer-upgrade runs show {self.id} tells where it is.",
            )
        return self.model_copy(update={"backup": made})

    def made_safe(self, made: BackupMade) -> "Journal":
        """With a safety backup.  Once a restore has begun the first one stays, the only one of the whole state before."""
        if self.safety is None or not any(entry.kind == "restore" and not entry.unmade for entry in self.entries):
            return self.model_copy(update={"safety": made, "later": ()})
        known = any(one.archive == made.archive for one in (self.safety, *self.later))
        return self if known else self.model_copy(update={"later": (*self.later, made)})

    @property
    def safeties(self) -> tuple[BackupMade, ...]:
        """All safety backups, the newest first."""
        return (*reversed(self.later), *((self.safety,) if self.safety else ()))

    def seen_from(self, cluster: str) -> "Journal":
        """The same where the manager's cluster is called `cluster`: another machine's configuration names it so."""
        known = self.manager.cluster
        keys = [self.manager, *(e.key for e in self.entries if e.key)]
        if known == cluster or any(key.cluster == cluster for key in keys):
            return self

        def named(key: DeploymentKey) -> DeploymentKey:
            return key.model_copy(update={"cluster": cluster}) if key.cluster == known else key

        entries = tuple(e.model_copy(update={"key": named(e.key)}) if e.key else e for e in self.entries)
        return self.model_copy(update={"manager": named(self.manager), "entries": entries})


def run_id(at: datetime, salt: str) -> str:
    """The ID of a run that begins: sorted by time, unique by `salt` (some hexadecimal digits), fit for an object's name."""
    return f"{at:%Y%m%d-%H%M%S}-{salt}"


def newest_first(journals: Iterable[Journal]) -> tuple[Journal, ...]:
    return tuple(sorted(journals, key=lambda j: (j.begun, j.id), reverse=True))


def prunable(journals: Iterable[Journal], keep: int) -> tuple[Journal, ...]:
    """The ended journals beyond the newest `keep` ended ones.

    The newest complete upgrade is never among them, for it may still be rolled back, nor what an unfinished run undoes.
    """
    known = newest_first(journals)
    ended = [j for j in known if not j.unfinished]
    complete = [j.id for j in ended if j.kind == "upgrade" and j.how is Ended.COMPLETE][:1]
    needed = {*complete, *(j.of for j in known if j.unfinished)}
    return tuple(j for j in ended[max(keep, 0) :] if j.id not in needed)


def require_none_unfinished(journals: Iterable[Journal]) -> None:
    """Raise `BlockedError` where a run is unfinished: what the next one would take for the state before is not that.

    One that has changed nothing stands in nobody's way: whoever has the lock next closes it.
    """
    known = newest_first(journals)
    for journal in known:
        if journal.unfinished and journal.changed:
            raise BlockedError(
                f"The {journal.called} {journal.id} to {journal.to} is unfinished, so no other run begins.",
                observed=_last(journal),
                next="\n".join(ways_on(journal, known)),
            )


def idle(journals: Iterable[Journal], *but: str) -> tuple[Journal, ...]:
    """The runs other than `but` that have no end and changed nothing: of processes that died, or lost the lock."""
    return tuple(j for j in journals if j.unfinished and not j.changed and j.id not in but)


def require_goes_on(journal: Journal, journals: Iterable[Journal]) -> None:
    """Raise `BlockedError` where a run cannot be resumed: it has ended, or a rollback of it has changed something."""
    back = rollback_of(journal, [j for j in journals if j.changed])
    if back is None and journal.unfinished:
        return
    raise BlockedError(
        f"The {journal.called} {journal.id} is being rolled back, so it does not go on."
        if back
        else f"The {journal.called} {journal.id} has ended: {journal.how}.",
        observed=_last(back) if back else f"Ended {journal.ended:%Y-%m-%d %H:%M:%S} UTC. {journal.reason}".strip(),
        next="\n".join(ways_on(back or journal, journals)),
    )


def rollback_of(journal: Journal, journals: Iterable[Journal]) -> Journal | None:
    """The unfinished rollback of a run, where there is one: it is what goes on then."""
    return next((j for j in journals if j.unfinished and j.kind == "rollback" and j.of == journal.id), None)


def ways_on(journal: Journal, journals: Iterable[Journal] = ()) -> tuple[str, ...]:
    """What can be done about a run: commands with what they do.  `journals` tell whether it is being rolled back."""
    show = f"apinizer-upgrade runs show {journal.id}   tells what it did"
    goes_back = journal.kind == "upgrade" and journal.backup is not None
    rollback = f"apinizer-upgrade rollback {journal.id}   goes back to {journal.current or 'the version before'}"
    if not journal.unfinished:
        again = goes_back and journal.how in (Ended.COMPLETE, Ended.ABANDONED)
        return (*((rollback,) if again else ()), *_put_back(journal, journals), show)
    back = rollback_of(journal, journals)
    if back is not None:
        return (f"apinizer-upgrade resume {back.id}   goes on with its rollback", show)
    # Passwords and keys are no journal's; what stands in --config is read again.
    moved = str(journal.options.get("way", "")) not in ("", "online", "proxy")
    as_before = ", with the options on images and nodes (--node, --ssh-user ...) that it had" if moved else ""
    return (
        f"apinizer-upgrade resume {journal.id}   goes on where it ended{as_before}",
        *((rollback,) if goes_back else ()),
        show,
        f"apinizer-upgrade runs abandon {journal.id} --reason TEXT   leaves everything as it is",
    )


def half_restored(journal: Journal) -> str:
    """The database that a rollback began to put back and has not recorded as put back; "" where there is none."""
    last = next((e for e in reversed(journal.entries) if e.kind == "restore" and not e.unmade), None)
    return last.subject if last is not None and last.done is None else ""


def _put_back(journal: Journal, journals: Iterable[Journal]) -> tuple[str, ...]:
    """What puts a database back whole that an abandoned rollback left half way; by hand no run may be unfinished.

    `--give-up`: what that rollback asked for is not what `restore` alone does, so it is refused without.
    """
    if journal.how is not Ended.ABANDONED or not half_restored(journal):
        return ()
    again = f"apinizer-upgrade rollback {journal.of}   puts the database back whole and goes back to {journal.to}"
    if any(other.unfinished and other.id != journal.id for other in journals):
        return (again,)
    kept = ((journal.backup, "before the upgrade"), (journal.safety, "before the rollback"))
    return (
        again,
        *(
            f"apinizer-upgrade restore {made.archive} --exact --give-up   makes the database what it was {when}, on "
            f"{made.host}, while no manager runs"
            for made, when in kept
            if made is not None
        ),
    )


def find_journal(journals: Iterable[Journal], id: str = "", *, unfinished: bool = False) -> Journal:  # noqa: A002 - it is called so
    """The journal of that ID (or its unique beginning), else the newest; raise `UsageError` where there is none."""
    everyone = newest_first(journals)
    known = [j for j in everyone if j.unfinished or not unfinished]
    found = [j for j in known if j.id == id] or [j for j in known if j.id.startswith(id)]
    if found and (not id or len(found) == 1):
        return found[0]
    which = f"run {id}" if id else "run"
    observed = f"Known: {', '.join(j.id for j in known[:5])}." if known else "None is recorded here."
    if not known and everyone:
        last = everyone[0]
        observed = f"The last one, the {last.called} {last.id} to {last.to}, has ended: {last.how}."
    raise UsageError(
        f"There is no {'unfinished ' if unfinished else ''}{which}." if not found else f"{id} means several runs.",
        observed=observed,
        next="apinizer-upgrade runs   lists them",
    )


WIDER = "\nWhere it is there: do not limit the run by --namespace, or name each namespace of the installation."


def require_fits(journal: Journal, inventory: Inventory) -> None:
    """Raise `DriftError` where a Deployment that the run changed is neither as before nor as the run made it, or one that
    it was to change is gone: without a word it would end complete, and one fewer.
    """
    now = {d.key: d for d in inventory.deployments}
    odd = [text for e in journal.entries if e.key and e.before and (text := _misfit(e, journal, now.get(e.key)))]
    there = {planned_name(key) for key in now}
    told = {planned_name(e.key) for e in journal.entries if e.key}
    lacking = [name for name in journal.planned if name not in there | told]
    odd += [
        f"{name}, which the run was to change, is gone, or not in the namespaces that are looked at."
        for name in lacking
    ]
    if odd:
        raise DriftError(
            f"The installation was changed by somebody else since the {journal.called} {journal.id} ended.",
            observed="\n".join(dict.fromkeys(odd)),
            safe="It was left as found.",
            next="Put back what is named above, or say that this run is not to go on: "
            f"apinizer-upgrade runs abandon {journal.id} --reason TEXT.{WIDER if lacking else ''}",
        )


def planned_name(key: DeploymentKey) -> str:
    """NAMESPACE/NAME: another machine may call its cluster otherwise."""
    return f"{key.namespace}/{key.name}"


def _misfit(entry: Entry, journal: Journal, now: DeploymentFacts | None) -> str:
    if not entry.changes or entry.before is None:
        return ""
    if now is None:
        return f"{entry.key} is gone, or runs no image of a component any more."
    if now.uid != entry.before.uid:
        return f"{entry.key} was deleted and made anew."
    same = [e for e in journal.entries if e.key == entry.key and not e.unmade]
    if entry.kind == "scale":
        counts = {c for e in same for c in (e.before.replicas if e.before else None, e.replicas) if c is not None}
        if now.replicas not in counts:
            return f"{entry.key} is scaled to {now.replicas}, neither as before nor as the run made it."
        return ""
    return _foreign_image(entry, same, now)


def _foreign_image(entry: Entry, same: Iterable[Entry], now: DeploymentFacts) -> str:
    """What is said of a container that runs neither an image of before nor one that a try set."""
    known: dict[str, set[str]] = {}
    for each in (e for e in same if e.kind == "set-image"):
        for container, image in (*(each.before.images if each.before else {}).items(), *each.images.items()):
            known.setdefault(container, set()).add(image)
    runs = {c.name: c.image for c in now.containers}
    for container in entry.images:
        if container not in runs:
            return f"{entry.key}: its container {container} is gone, or runs no image of a component any more."
        if runs[container] not in known[container]:
            return f"{entry.key}: container {container} runs {runs[container]}, neither the old image nor the new one."
    return ""


def _last(journal: Journal) -> str:
    """Who worked on it last, at what, and how that ended."""
    if not journal.tries:
        return f"Begun {journal.begun:%Y-%m-%d %H:%M:%S} UTC."
    last = journal.tries[-1]
    begun = [e for e in journal.entries if e.changes]
    unknown = "" if not begun or begun[-1].done else ", whose outcome is not recorded"
    at = f" Last: {begun[-1].will.rstrip('.')}{unknown}." if begun else ""
    ended = f" It ended: {last.error['happened']}" if last.error.get("happened") else " It did not come to its end."
    return f"{last.owner}, since {last.begun:%Y-%m-%d %H:%M:%S} UTC.{at}{ended}"
