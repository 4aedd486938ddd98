"""Who may hold the lock, and from when: the rule behind a `coordination.k8s.io/v1` Lease.

Pure.  The rule is client-go's leaderelection, stricter in what it leaves to luck:

* A holder counts a renewal from when its request was *sent*, a looker an observation from when its answer *came*.
  So the holder's time is over before anybody else's patience is, however slow the network was.
* A looker waits for the longer of the holder's duration and its own: a Lease that was edited to a second ends nothing.
* Anything that was written to the Lease begins the wait anew, whoever wrote it; a holder's own renewal proves that it lives.
* A holder is removed by hand only when its marks are gone too: one whose name alone was cleared is waited for.
* Clocks of machines are never compared.  The time of the last renewal is the holder's and is told to people; it says
  only whether waiting is worth while: one that looks fresh is taken at its word, and the looker ends at once.

All times that decide are seconds of the reader's own clock, which does not stand still while a machine sleeps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from tasks.domain.errors import BlockedError, StoppedError
from tasks.domain.journal import Owner

JsonObject = dict[str, Any]

SECONDS = 30.0
MARK = "apinizer-upgrade/"
_LONGEST_MARK = 400
_OF = "holder"  # the mark that says whose the others are
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class LeaseLostError(StoppedError):
    """The run does not hold the lock any more, so it changes nothing more (exit code 1)."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The times of a holder in seconds, all parts of its lease's duration, so that a short lease behaves as a long one.

    It renews `every` sixth and tries a failed renewal again after a thirtieth.  The last tenth is not used, so that
    what was sent before has arrived by the end.  Of 30 s so 21 may pass without an API server (30 - 3 - 5 - 1), which
    is a restart of it; one that is away for longer ends the run at its next safe boundary, and `resume` goes on.
    """

    seconds: float

    @property
    def every(self) -> float:
        return self.seconds / 6

    @property
    def again(self) -> float:
        return self.seconds / 30

    @property
    def request(self) -> float:
        """One request's time: one that hangs must leave time for another, on a new connection."""
        return self.seconds / 6

    def until(self, sent: float) -> float:
        """When the right ends that a renewal gave whose request was sent at `sent`."""
        return sent + self.seconds * 0.9


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """What a Lease says.  `holder` is unique to one taking, "" where nobody has it; `renewed` and `acquired` are of the
    holder's clock and for people; `marks` are its annotations of ours, without their prefix.
    """

    version: str
    holder: str = ""
    seconds: float = 0.0
    transitions: int = 0
    acquired: datetime | None = None
    renewed: datetime | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Given back: no holder, and none of its marks, which only who gives it back removes."""
        return not self.holder and not self.marks

    @property
    def who(self) -> str:
        return self.marks.get("owner") or self.holder or "somebody whose name was removed"

    @property
    def run(self) -> str:
        return self.marks.get("run", "")

    @property
    def doing(self) -> str:
        return self.marks.get("doing", "")

    @property
    def told(self) -> str:
        """Who has it, since when, doing what, in one sentence."""
        since = f", since {self.acquired:%Y-%m-%d %H:%M:%S} UTC" if self.acquired else ""
        at = f", run {self.run}" if self.run else ""
        what = f": {self.doing}" if self.doing else ""
        return f"{self.who}{at}{since}{what}"


def read_lease(thing: JsonObject) -> LeaseFacts:
    """What a Lease says; what somebody edited to nonsense counts as not said."""
    meta, spec = thing.get("metadata") or {}, thing.get("spec") or {}
    notes: Mapping[str, str] = meta.get("annotations") or {}
    marks = {key.removeprefix(MARK): value for key, value in notes.items() if key.startswith(MARK)}
    holder = str(spec.get("holderIdentity") or "")
    of = marks.pop(_OF, holder)
    if holder and of != holder[:_LONGEST_MARK]:
        marks = {}  # another wrote its name over the one whose marks these are
    return LeaseFacts(
        version=f"{meta.get('uid', '')}/{meta.get('resourceVersion', '')}",
        holder=holder,
        seconds=max(0.0, float(spec.get("leaseDurationSeconds") or 0)),
        transitions=int(spec.get("leaseTransitions") or 0),
        acquired=_time(spec.get("acquireTime")),
        renewed=_time(spec.get("renewTime")),
        marks=marks,
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """What a holder writes into the Lease: `holder` is its unique name, `seconds` its duration; `marks` as in `LeaseFacts`."""

    holder: str
    seconds: float
    transitions: int
    acquired: datetime
    marks: Mapping[str, str]

    def written(self, over: JsonObject | None, now: datetime) -> JsonObject:
        """The Lease to write: over what was read (labels and annotations of others stay), or a new one."""
        body = _over(over)
        marks = {**self.marks, _OF: self.holder}
        body["metadata"]["annotations"] |= {MARK + key: value[:_LONGEST_MARK] for key, value in marks.items()}
        body["spec"] = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": math.ceil(self.seconds),
            "acquireTime": self.acquired.astimezone(UTC).strftime(_MICRO_TIME),
            "renewTime": now.astimezone(UTC).strftime(_MICRO_TIME),
            "leaseTransitions": self.transitions,
        }
        return body


def given_back(over: JsonObject, now: datetime) -> JsonObject:
    """The Lease without a holder.  As client-go's release: a second long, its transitions kept."""
    body = _over(over)
    time = now.astimezone(UTC).strftime(_MICRO_TIME)
    transitions = read_lease(over).transitions
    body["spec"] = {"leaseDurationSeconds": 1, "acquireTime": time, "renewTime": time, "leaseTransitions": transitions}
    return body


def _over(over: JsonObject | None) -> JsonObject:
    meta = dict((over or {}).get("metadata") or {})
    meta.pop("managedFields", None)
    others = {key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith(MARK)}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {**meta, "annotations": others}}


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease as it stands unchanged since `since`, by the looker's clock."""

    facts: LeaseFacts
    since: float


class Sign(Enum):
    """What a new look says of a holder."""

    ALIVE = "it renewed, or another took it"
    FREE = "nobody has it"
    SILENT = "nothing was written"
    TOUCHED = "somebody wrote, but not the holder's renewal"
    DEAD = "nothing was written for its whole duration"


def sign(before: Seen, now: LeaseFacts, at: float, ours: float) -> Sign:
    """What `now`, whose answer came at `at`, says of the holder that was `before`.

    `ours` is the looker's own duration in seconds.  DEAD is no right yet: the write that takes over names the
    version that was seen, so the server refuses it where the holder renewed in between.
    """
    if now.free:
        return Sign.FREE
    was = before.facts
    if now.version == was.version:
        return Sign.DEAD if at - before.since >= patience(was, ours) else Sign.SILENT
    if now.holder and (now.holder != was.holder or _beat(now) != _beat(was)):
        return Sign.ALIVE
    return Sign.TOUCHED


def patience(facts: LeaseFacts, ours: float) -> float:
    """Seconds without any write after which a holder counts as dead."""
    return max(facts.seconds, ours)


def looks_fresh(facts: LeaseFacts, now: datetime, ours: float) -> bool:
    """Whether the holder seems to have renewed just now, so that waiting for its death is not worth while.

    The one place where times of two machines meet.  It decides nothing but who waits: a third of a duration is two
    renewals of a holder that lives.
    """
    near = timedelta(seconds=patience(facts, ours) / 3)
    return facts.renewed is not None and abs(now - facts.renewed) <= near


class After(Enum):
    """What a holder does whose renewal the server refused because somebody else had written."""

    RENEW = "write it again, over what is there"
    LOST = "it is another's"


def after_conflict(mine: Claim, found: LeaseFacts | None) -> After:
    """Whether a holder whose time is not over may go on; `found` is None where the Lease was deleted.

    Its own write (an answer that was lost), an edit by hand and a deletion leave it the holder while nobody else
    took it; whoever takes it counts `transitions` up, so one who came and went in between is seen too.
    """
    if found is None or (found.holder in ("", mine.holder) and found.transitions == mine.transitions):
        return After.RENEW
    return After.LOST


def _beat(facts: LeaseFacts) -> tuple[datetime | None, datetime | None, int]:
    return facts.renewed, facts.acquired, facts.transitions


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC) if text else None
    except ValueError:
        return None


def waiting_told(seen: Seen, at: float, ours: float) -> str:
    """The line of progress of who waits for a sign of life."""
    silent, of = at - seen.since, patience(seen.facts, ours)
    return f"The lock is held by {seen.facts.told}; silent for {min(silent, of):.0f} s of {of:.0f}"


def held(facts: LeaseFacts, ours: float) -> BlockedError:
    """The error of who finds the lock held by somebody who lives, or seems to."""
    renewed = f" Renewed at {facts.renewed:%H:%M:%S} UTC by its own clock." if facts.renewed else ""
    return BlockedError(
        f"Another run is at work{f': {facts.run}' if facts.run else ''}.",
        observed=f"The lock is held by {facts.told}.{renewed}",
        next="Wait until it has ended (apinizer-upgrade runs tells). If it has died, run this again: where it ran it is "
        f"taken over at once, elsewhere when its lock has not changed for {patience(facts, ours):.0f} seconds.",
    )


def lost(run: str, why: str) -> LeaseLostError:
    """The error of who does not hold the lock any more; `why` in sentences."""
    return LeaseLostError(
        "This run lost the lock, so it changes nothing more.",
        observed=why,
        safe="It stopped before its next change; what it did until then stands in its journal.",
        next="See who is at work: apinizer-upgrade runs\n"
        + (f"When nobody is, go on: apinizer-upgrade resume {run}" if run else "When nobody is, run it again."),
    )


def expired(rhythm: Rhythm, trouble: str) -> str:
    """Why a lock is lost that could not be renewed in time; `trouble` is what the last renewal met, "" for a process
    that was frozen."""
    met = f"The last renewal met: {trouble}" if trouble else "The process stood still, or the machine slept."
    return f"The lock could not be renewed for {rhythm.until(0):.0f} of its {rhythm.seconds:.0f} seconds. {met}"


def taken(found: LeaseFacts) -> str:
    """Why a lock is lost that another has, or had."""
    if found.holder:
        return f"It was not renewed in time, and was taken over by {found.told}."
    return "Another had taken it over and has given it back."


def marks(owner: Owner, run: str, doing: str, process: Mapping[str, str]) -> dict[str, str]:
    """A holder's annotations; `process` says where its process is, as `tasks.record.whereabouts` has it."""
    return {"owner": str(owner), "run": run, "doing": doing, **process}
