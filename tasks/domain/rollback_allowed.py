"""Whether the way back from a run is open, by the journals alone: asked before anything is touched.  Pure.

Each refusal says what can still be done.
"""

from collections.abc import Iterator, Sequence

from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, warning
from tasks.domain.inventory import DeploymentFacts
from tasks.domain.journal import Ended, Journal


def require_allowed(
    journal: Journal,
    others: Sequence[Journal],
    *,
    manager: DeploymentFacts | None,
    hosts: Sequence[str] = (),
    database: str = "",
    under_way: str = "",
    made_anew: str = "",
) -> tuple[Finding, ...]:
    """What is to be read before the upgrade of `journal` is undone; raise `BlockedError` where it is not to be.

    `others` are all journals of the installation (`journal` itself may be among them), `manager` is its manager as it
    is now, `hosts` (host:port) and `database` are those that the manager uses now; empty, they are not compared.
    `under_way` is the ID of a rollback of it that was begun and goes on.  `made_anew` is the uid of the manager that
    somebody said is the same installation's, though it was made anew.

    Hosts that are others are only told: the same database is reached through a forwarded port, or by another name.
    Whether it is, the restore sees by what it holds (`tasks.database.kinship`).
    """
    rest = [other for other in others if other.id not in (journal.id, under_way)]
    for refusal in (
        *_of_this_kind(journal, rest, going_on=bool(under_way)),
        *_of_this_installation(journal, manager, database, made_anew),
        *_overtaken(journal, rest),
        *_without_backup(journal),
    ):
        raise refusal
    return (*_warnings(journal, rest), *_elsewhere(journal, hosts))


def _of_this_kind(journal: Journal, rest: Sequence[Journal], *, going_on: bool) -> Iterator[BlockedError]:
    if journal.kind != "upgrade":
        yield BlockedError(
            f"The run {journal.id} is itself a rollback, of {journal.of}.",
            observed="The way back from a rollback is to upgrade again.",
            next=f"apinizer-upgrade resume {journal.id}   goes on with it"
            if journal.unfinished
            else "apinizer-upgrade upgrade --to VERSION   upgrades again",
        )
    back = next((r for r in rest if r.of == journal.id and r.how is Ended.COMPLETE), None)
    # A rollback that ended between the two journals' last writes goes on with its own.
    if back or (journal.how is Ended.ROLLED_BACK and not going_on):
        by = f" by the run {back.id}" if back else ""
        yield BlockedError(
            f"The run {journal.id} was rolled back already{by}.",
            observed=f"It ended {journal.ended:%Y-%m-%d %H:%M} UTC." if journal.ended else "Its journal was left open.",
            next="apinizer-upgrade status shows the installation; apinizer-upgrade upgrade --to VERSION upgrades again.",
        )
    if journal.how is Ended.NOTHING_CHANGED or not journal.changed:
        yield BlockedError(
            f"The run {journal.id} changed nothing, so there is nothing to go back from.",
            observed=f"It ended: {journal.reason}" if journal.reason else "No change is recorded as begun.",
            next=f"apinizer-upgrade resume {journal.id}   goes on with it\n"
            f"apinizer-upgrade runs abandon {journal.id} --reason TEXT   closes it"
            if journal.unfinished
            else "apinizer-upgrade runs   lists the runs that changed something",
        )


def _of_this_installation(
    journal: Journal, manager: DeploymentFacts | None, database: str, made_anew: str
) -> Iterator[BlockedError]:
    if manager is not None and manager.key != journal.manager:
        yield _other_installation(
            journal, f"Its manager is {journal.manager}; the one of this installation is {manager.key}."
        )
    begun = journal.of_manager("set-image")
    if manager is not None and begun and begun.before and manager.uid not in (begun.before.uid, made_anew):
        yield BlockedError(
            f"The manager was deleted and made anew since the run {journal.id}, so this may be another installation.",
            observed=f"The uid of the Deployment {manager.key} was {begun.before.uid}, and is {manager.uid} now.",
            next="Name the installation that the run was made with (--installation, --context, --namespace). If it is "
            "this one, whose manager was deployed again, say so; its database is compared with the backup, put back, "
            f"and its old images are set:\napinizer-upgrade rollback {journal.id} --manager-made-anew",
        )
    backup = journal.backup
    if backup is not None and database and database != backup.database:
        yield _other_installation(journal, f"Its backup is of {backup.database}; the manager's database is {database}.")


def _elsewhere(journal: Journal, hosts: Sequence[str]) -> Iterator[Finding]:
    # A replica set may have got another member meanwhile: one in common is enough.
    if journal.backup is not None and hosts and set(hosts).isdisjoint(journal.backup.hosts):
        yield warning(
            "hosts-differ",
            f"The backup was made of the database at {', '.join(journal.backup.hosts)}; now it is reached at "
            f"{', '.join(hosts)}. By its documents it is seen whether it is the same installation's before anything is "
            "put back.",
            "See that the address is that of this installation's database.",
        )


def _other_installation(journal: Journal, observed: str) -> BlockedError:
    return BlockedError(
        f"The run {journal.id} is of another installation than this one.",
        observed=observed,
        next="Name the installation that it was made with (--installation, --context, --namespace). If this one was moved "
        "there on purpose, go back by hand: scale the manager to 0, apinizer-upgrade restore ARCHIVE --exact with the backup, then "
        f"the commands that apinizer-upgrade runs show {journal.id} has.",
    )


def _overtaken(journal: Journal, rest: Sequence[Journal]) -> Iterator[BlockedError]:
    """Runs that stand between: the database and the images are theirs, not this one's."""
    since = [other for other in rest if other.begun >= journal.begun and other.manager == journal.manager]
    # One that changed nothing is closed by the next run; only a rollback of this very run would go on instead.
    stands = (other for other in since if other.unfinished and (other.changed or other.of == journal.id))
    if open_one := next(stands, None):
        yield BlockedError(
            f"The {open_one.called} {open_one.id} to {open_one.to} is unfinished, so no other run begins.",
            observed=f"It was begun {open_one.begun:%Y-%m-%d %H:%M} UTC"
            + (f" and undoes the run {open_one.of}." if open_one.of else "."),
            next=f"apinizer-upgrade resume {open_one.id}   goes on with it\n"
            f"apinizer-upgrade runs abandon {open_one.id} --reason TEXT   closes it",
        )
    undone = {other.of for other in since if other.kind == "rollback" and other.how is Ended.COMPLETE}
    closed = (Ended.ROLLED_BACK, Ended.NOTHING_CHANGED)
    later = [
        other
        for other in since
        if other.kind == "upgrade" and other.changed and other.how not in closed and other.id not in undone
    ]
    if later:
        last = max(later, key=lambda other: other.begun)
        names = ", ".join(f"{other.id} to {other.to} ({other.how or 'unfinished'})" for other in later)
        made = f"The backup is of {journal.backup.made:%Y-%m-%d %H:%M} UTC; since" if journal.backup else "Since"
        yield BlockedError(
            f"Another upgrade was made after the run {journal.id}: its backup is older than that one.",
            observed=f"{made} then: {names}.",
            next=f"Go back one run at a time, the last one first: apinizer-upgrade rollback {last.id}.",
        )


def _without_backup(journal: Journal) -> Iterator[BlockedError]:
    if journal.backup is None and journal.manager_begun:
        forward = f"apinizer-upgrade resume {journal.id}   goes on to {journal.to}\n" if journal.unfinished else ""
        yield BlockedError(
            f"The run {journal.id} recorded no backup, so the database of before cannot be put back.",
            observed=f"The manager was set to {journal.to} and may have migrated the database; old images alone do not "
            "go with it.",
            next=f"{forward}With a backup of your own of before: scale the manager to 0, apinizer-upgrade restore "
            f"ARCHIVE --exact, then the commands that apinizer-upgrade runs show {journal.id} has.",
        )


def _warnings(journal: Journal, rest: Sequence[Journal]) -> Iterator[Finding]:
    if journal.how is Ended.ABANDONED:
        yield warning(
            "abandoned",
            f"The run {journal.id} was abandoned{f': {journal.reason}' if journal.reason else ''}. What was done by hand "
            "since is not recorded.",
            "See that nobody still works on it.",
        )
    for other in rest:
        if other.of == journal.id and other.how is Ended.ABANDONED:
            yield warning(
                "rollback-abandoned",
                f"A rollback of it, {other.id}, was begun before and abandoned"
                f"{f': {other.reason}' if other.reason else ''}. The database may be between two states; it is put back whole.",
            )
    if not journal.manager_begun:
        yield warning(
            "manager-not-begun",
            f"The run {journal.id} did not set the manager's image, so the database stays as it is and only the other "
            "components go back.",
        )
