"""The lock of an installation: a Lease beside its manager, renewed by a thread while a run is at work.

`tasks.domain.lease_rule` decides; here it is asked and done.  Every write names the version that was read, and one
whose answer was lost is looked up.  Whoever deletes the Lease by hand under a holder that lives breaks the lock until
the holder's next renewal (a sixth of its duration): it is made again then, or found to be another's.  A virtual machine
that was paused as a whole finds out at that renewal too: its clock stood still with it.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Self
from uuid import uuid4

from tasks.cluster.answers import JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi
from tasks.domain import lease_rule as rule
from tasks.domain.errors import (
    ConflictError,
    ForbiddenError,
    NotFoundError,
    StoppedError,
    UpgradeError,
    before_any_change,
)
from tasks.domain.journal import Owner
from tasks.domain.lease_rule import After, Claim, LeaseFacts, LeaseLostError, Rhythm, Seen, Sign, read_lease
from tasks.record import stopping, whereabouts
from tasks.record.feed import Event, State, publish

__all__ = ["NAME", "Lease", "LeaseFacts", "LeaseLostError", "holder"]

NAME = "apinizer-upgrade"
AWAY_SECONDS = 60.0
"""An API server that restarts is back by then; a taker does not wait longer for it."""
_TRIES = 4
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its monotonic clock goes on in sleep


def since_boot() -> float:
    """Seconds since the machine started, those that it slept through too."""
    return time.clock_gettime(_CLOCK)


def told(text: str) -> None:
    """Tell whoever listens in this process."""
    publish(Event("lock", State.LOG, text))


def lease_path(namespace: str, name: str = "") -> str:
    """The API's path of a Lease, or of all in a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases" + (f"/{name}" if name else "")


def holder(api: KubernetesApi, namespace: str, name: str = NAME) -> LeaseFacts | None:
    """Who has the lock, or was its last holder; None where it is free.  Whether the holder lives, time alone tells."""
    try:
        found = read_lease(api.get(lease_path(namespace, name)))
    except NotFoundError:
        return None
    return None if found.free or whereabouts.is_gone(found.marks) else found


class Lease:
    """The right to change an installation; see `take`.  As a context manager it takes (unless taken) and gives back.

    `namespace` is the manager's.  `owner`, `run` (its ID) and `doing` are told to whoever else wants it.  `clock` gives
    seconds, `now` the time of day, which is only shown.  Safe to share between threads.
    """

    def __init__(
        self,
        api: KubernetesApi,
        namespace: str,
        *,
        owner: Owner,
        run: str,
        doing: str,
        name: str = NAME,
        seconds: float = rule.SECONDS,
        clock: Callable[[], float] = since_boot,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rhythm = Rhythm(seconds)
        self._api = api.patient(0, timeout=self._rhythm.request)
        self._paths = lease_path(namespace), lease_path(namespace, name)
        self._name, self._run, self._owner, self._doing = name, run, owner, doing
        self._clock, self._now = clock, now
        self._holder = f"{owner.host}_{owner.pid}_{uuid4().hex}"
        self._process = whereabouts.here()
        self._state = threading.Lock()  # held for no longer than a look at what follows
        self._sent: float | None = None  # when the request of the last renewal was sent
        self._why = "It has not been taken."  # why it is not held, "" while it is
        self._trouble = ""
        self._writing = threading.Lock()
        self._claim: Claim | None = None
        self._lease: JsonObject | None = None  # as it was read or written last
        self._ended = threading.Event()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    # ------------------------------------------------------------- while it is held
    def doing(self, text: str) -> None:
        """What the run is at now; written with the next renewal."""
        self._doing = text

    def is_of(self, run: str) -> None:
        """The run that it is held for, where that was not known before it was taken: told at once, else at the next renewal."""
        with self._writing:
            changed, self._run = run != self._run, run
            if changed and not self._ended.is_set() and not self.lost():
                self._renew()

    def lost(self) -> bool:
        """Whether the right is not held (any more).  No request: the clock is asked, and what the last renewal said.

        Once it is lost it stays lost, whatever an answer that comes late says.
        """
        with self._state:
            if not self._why and self._clock() >= self._rhythm.until(self._sent or 0.0):
                self._why = rule.expired(self._rhythm, self._trouble)
            return bool(self._why)

    def require(self) -> None:
        """Raise `LeaseLostError` unless the right is held: asked right before every change.  No request."""
        if self.lost():
            raise rule.lost(self._run, self._why)

    def release(self, *, complete: bool = False) -> None:
        """Give it back, so that the next may take it at once; a right that was lost is left to whoever has it.

        From its beginning on `require` refuses.  A server that is away is not waited for: the Lease ends by itself.
        One that only expired is given back too where the run is `complete` (nothing of it can be at work any more) and
        nobody has taken it: the write names its version.
        """
        held = not self.lost()
        with self._state:
            self._why = self._why or "It was given back when the run ended."
        self._ended.set()
        self._stack.close()
        if held or complete:
            with self._writing, suppress(UpgradeError):
                self._give_back(_TRIES if held else 2)

    # ---------------------------------------------------------------------- taking
    def take(
        self,
        *,
        wait: bool = True,
        stop: Callable[[], bool] = stopping.asked,
        progress: Callable[[str], None] = told,
    ) -> None:
        """Take the right and renew it from then on; does nothing where it is held.

        A holder that renewed a moment ago by its own word is believed: `BlockedError` at once, naming it and what
        it does.  One that looks silent (or whose clock is another) is watched with our clock, `progress` told: a
        renewal raises that `BlockedError`, a whole duration without any write takes the Lease over.  Without `wait`
        nobody is watched.  A holder whose process ran on this machine and is gone is taken over at once.

        From then on `stopping.asked()` is true when it is lost.  Raises `StoppedError`, `ForbiddenError` where the
        account may not do this, and the errors of `KubernetesApi`; nothing was changed then.
        """
        if self._sent is not None:
            self.require()
            return
        with before_any_change():
            try:
                self._contend(stop, progress, wait=wait)
            except ForbiddenError as error:
                raise _no_right(error) from None
        self._stack.enter_context(stopping.also(self.lost))
        threading.Thread(target=self._keep, name="lock", daemon=True).start()

    def _contend(self, stop: Callable[[], bool], progress: Callable[[str], None], *, wait: bool) -> None:
        """Look, and write when the rule allows it, until the Lease is ours."""
        seen: Seen | None = None
        spoken = heard = self._clock()
        while not stop():
            try:
                found = self._look()
                heard = at = self._clock()
                facts = None if found is None else read_lease(found)
                first, seen = seen is None, self._judge(seen, facts, at)
                if seen is None and self._win(found, facts):
                    return
                if seen is not None:
                    if first and not (wait and not rule.looks_fresh(seen.facts, self._now(), self._rhythm.seconds)):
                        raise rule.held(seen.facts, self._rhythm.seconds)
                    if first or at - spoken >= self._rhythm.every:
                        progress(rule.waiting_told(seen, at, self._rhythm.seconds))
                        spoken = at
            except ServerAwayError:
                if self._clock() - heard > AWAY_SECONDS:
                    raise
            # Who lost a race for it looks at once who won.
            time.sleep(0.02 if seen is None else min(self._rhythm.again, 1.0))
        raise StoppedError("The run was stopped.", observed="It waited for the lock.")

    def _judge(self, before: Seen | None, facts: LeaseFacts | None, at: float) -> Seen | None:
        """The holder as it is to be watched on; None where the Lease may be taken.  Raises `BlockedError`."""
        if facts is None or facts.free or facts.holder == self._holder or whereabouts.is_gone(facts.marks):
            return None
        seen = before or Seen(facts, at)
        match rule.sign(seen, facts, at, self._rhythm.seconds):
            case Sign.ALIVE:
                raise rule.held(facts, self._rhythm.seconds)
            case Sign.TOUCHED:
                return Seen(facts, at)
            case Sign.SILENT:
                return seen
            case Sign.FREE | Sign.DEAD:
                return None

    def _win(self, found: JsonObject | None, facts: LeaseFacts | None) -> bool:
        """Write our claim; False where it is not known to be ours by that."""
        mine = facts is not None and facts.holder == self._holder  # the answer to the write before was lost
        if not (mine and self._claim):
            transitions = 0 if facts is None else facts.transitions + 1
            self._claim = Claim(self._holder, self._rhythm.seconds, transitions, self._now(), {})
        sent = self._clock()
        try:
            answer = self._put(found)
        except ConflictError:
            return False
        except NotFoundError:
            if found is None:
                raise  # there is no such namespace
            return False
        with self._state:
            self._sent, self._why, self._lease = sent, "", answer
        return True

    def _look(self) -> JsonObject | None:
        try:
            return self._api.get(self._paths[1])
        except NotFoundError:
            return None

    def _put(self, over: JsonObject | None) -> JsonObject:
        """Write our claim over what was read, or make the Lease where there is none."""
        if self._claim is None:
            raise AssertionError("nothing is claimed")
        marks = rule.marks(self._owner, self._run, self._doing, self._process)
        claim = Claim(self._holder, self._claim.seconds, self._claim.transitions, self._claim.acquired, marks)
        body = claim.written(over, self._now())
        if over is None:
            body["metadata"]["name"] = self._name
            return self._api.create(self._paths[0], body)
        return self._api.replace(self._paths[1], body)

    # -------------------------------------------------------------------- renewing
    def _keep(self) -> None:
        """Renew it until it is lost or given back: the work of a thread."""
        pause = self._rhythm.every
        while not self._ended.wait(pause) and not self.lost():
            with self._writing:
                if self._ended.is_set():
                    return
                pause = self._rhythm.every if self._renew() else self._rhythm.again
        if not self._ended.is_set():
            stopping.ask()

    def _renew(self) -> bool:
        """One renewal; a write of somebody else's in between is looked at and, where it may be, written over."""
        try:
            for _ in range(_TRIES):
                sent = self._clock()
                try:
                    answer = self._put(self._lease)
                except (ConflictError, NotFoundError):
                    if not self._may_go_on():
                        return False
                    continue
                with self._state:
                    self._lease, self._trouble = answer, ""
                    self._sent = sent
                return True
            self._trouble = "somebody else writes to the Lease all the time"
        except UpgradeError as error:
            self._trouble = f"{error.happened} {error.observed}".strip()
        return False

    def _may_go_on(self) -> bool:
        found = self._look()
        facts = None if found is None else read_lease(found)
        if self._claim and rule.after_conflict(self._claim, facts) is After.RENEW:
            self._lease = found
            return True
        with self._state:
            self._why = self._why or rule.taken(facts or LeaseFacts(""))
        return False

    def _give_back(self, tries: int) -> None:
        for _ in range(tries):
            if self._lease is None:
                return
            try:
                self._api.replace(self._paths[1], rule.given_back(self._lease, self._now()))
            except ConflictError:
                found = self._look()
                ours = found is not None and read_lease(found).holder == self._holder
                self._lease = found if ours else None
            except ServerAwayError:
                time.sleep(self._rhythm.again)
            else:
                return


def _no_right(error: ForbiddenError) -> ForbiddenError:
    return ForbiddenError(
        f"The lock of the installation cannot be taken. {error.happened}",
        observed=error.observed,
        next=f"{error.next}\nAll rights that a run needs are in deployments/rbac.yaml: kubectl apply -f deployments/rbac.yaml",
    )
