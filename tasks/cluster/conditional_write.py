"""Write one object only while it is as it was judged: read it, decide, patch it, and again where somebody was faster.

The patch names metadata.uid and metadata.resourceVersion, so the API server refuses it (409) when anybody wrote in
between; then the object is read and decided again.  An edit of somebody else's is never overwritten.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.cluster.answers import JsonObject, ServerAwayError
from tasks.cluster.api import KubernetesApi, PatchType
from tasks.domain.errors import ConflictError, DriftError, NotFoundError, TemporaryError, UpgradeError

TRIES = 6
PATIENCE = 60.0  # an API server that restarts is back by then


@dataclass(frozen=True, slots=True)
class Patch:
    """Make this patch."""

    body: JsonObject


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """The object is as it is wanted: nothing to write."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The object is not as it was judged; `why` in a part of a sentence, `next` what to do."""

    why: str
    next: str = ""


Decision = Patch | AlreadyThere | Refuse


@dataclass(slots=True)
class Sent:
    """Of the writes of one change, how many may have been made: those that were not answered by a refusal.

    Only a write's own answer tells: what a later look is refused says nothing of it.
    """

    perhaps: int = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Around one write, which is not repeated inside."""
        self.perhaps += 1
        try:
            yield
        except UpgradeError as error:
            if not isinstance(error, ServerAwayError) or error.unsent:
                self.perhaps -= 1
            raise


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of the object at `path` of the API.

    `decide` says it of the object as it is now and as it was found first; `drifted` tells a refusal of the object as
    found (empty where it is gone).  `unknown` is what is safe where a write may have been made and nobody can tell.
    """

    path: str
    how: PatchType
    decide: Callable[[JsonObject, JsonObject], Decision]
    drifted: Callable[[Refuse, JsonObject], DriftError]
    unknown: str


def write_as_judged(
    api: KubernetesApi, change: Change, guard: Callable[[], None], sent: Sent | None = None
) -> tuple[JsonObject, JsonObject]:
    """Make the change; the object as it was found first and as it is then.

    `guard` is asked right before every request that writes, repeated ones too, and raises where it must not be sent;
    `sent` tells afterwards whether one of them may have been made.
    Raises what `drifted` makes where somebody else changed the object since it was judged (it is left as found),
    `ConflictError` when others write to it faster than it can be decided, and the errors of `KubernetesApi`.  A patch
    whose answer was lost is not repeated blindly: the object is read, and says whether it was made.
    """
    sent = sent or Sent()
    try:
        return _tried(api.patient(PATIENCE), change, guard, sent)
    except UpgradeError as error:
        if sent.perhaps:
            raise error.with_safe(change.unknown) from None
        raise


def _tried(
    patient: KubernetesApi, change: Change, guard: Callable[[], None], sent: Sent
) -> tuple[JsonObject, JsonObject]:
    first: JsonObject | None = None
    last: ConflictError | ServerAwayError | None = None
    for _ in range(TRIES):
        try:
            found = patient.get(change.path)
        except NotFoundError as error:
            raise change.drifted(Refuse("it is gone", "See who deleted it."), {}) from error
        first = first or found
        match change.decide(found, first):
            case Refuse() as refusal:
                raise change.drifted(refusal, found)
            case AlreadyThere():
                return first, found
            case Patch(body):
                try:
                    return first, _write(patient, change, body, guard, sent)
                except (ConflictError, ServerAwayError) as error:
                    last = error  # read again, decide again; a lost answer is found done as AlreadyThere
    if last is None:
        raise AssertionError("no try was made")
    raise last


def _write(
    patient: KubernetesApi, change: Change, body: JsonObject, guard: Callable[[], None], sent: Sent
) -> JsonObject:
    """Patch, and again while it surely never arrived, as long as `patient` is; `guard` is asked before every request."""
    once = patient.patient(0)

    def one() -> JsonObject:
        guard()
        with sent.one():
            return once.patch(change.path, body, change.how)

    return patient.retry.call(one, again=_never_arrived)


def _never_arrived(error: TemporaryError) -> bool:
    return isinstance(error, ServerAwayError) and error.unsent
