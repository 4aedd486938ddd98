"""`runs abandon`: what is given up is shown, asked and recorded, under the lock; the installation is left as it is."""

import json
import sys
from datetime import UTC, datetime

from blocks.settings import InstallationSettings
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.options import Format
from deployments.cli.runs_look import Place, find, places
from deployments.cli.tables import console
from tasks.database.needed import release_of_abandoned
from tasks.domain.abandon_text import consequence, ways_after
from tasks.domain.errors import BlockedError, ConflictError, UsageError, before_any_change
from tasks.domain.journal import Ended, Journal, find_journal, rollback_of, ways_on
from tasks.domain.journal_text import document, page
from tasks.domain.safe_before import safe_before, standing
from tasks.record.lease import Lease
from tasks.record.owner import present_owner


def abandon(settings: InstallationSettings, run: str, reason: str, output: Format, *, ask: bool) -> None:
    """End an unfinished run as abandoned; raise where it has ended, goes on meanwhile, or its lock is held."""
    why = " ".join(reason.split())
    if not why:
        raise UsageError(
            "A run is not abandoned without a reason.",
            observed="--reason is empty.",
            next="Say in a sentence why it is not to go on: it is read when something is looked for later.",
        )
    if ask and not attended():
        raise UsageError(
            "A run is not abandoned without being told to.",
            observed="There is no terminal to ask at.",
            next=f"apinizer-upgrade runs show {run}   shows it\n"
            f"apinizer-upgrade runs abandon {run} --reason TEXT --yes   abandons it",
        )
    with Interruption():
        with before_any_change():
            place, journal = find(places(settings), run)
        with before_any_change(safe_before(standing(place.journals))):
            _require_open(journal, place)
        if ask:
            _confirm(journal, place, output)
        ended = _record(place, journal, why)
    if output is Format.JSON:
        print(json.dumps(document(ended), indent=2))
    else:
        print(f"The {ended.called} {ended.id} is abandoned. {consequence(ended, place.journals)}")
        for way in ways_after(ended, place.journals):
            print(f"  {way}")
    for sentence in release_of_abandoned(ended):
        print(f"Note: {sentence}", file=sys.stderr)


def _require_open(journal: Journal, place: Place) -> None:
    back = rollback_of(journal, place.journals)
    if journal.unfinished and back is None:
        return
    raise BlockedError(
        f"The {journal.called} {journal.id} is being rolled back; abandon its rollback first."
        if back
        else f"The {journal.called} {journal.id} has ended: {journal.how}.",
        observed=f"The rollback {back.id} is unfinished."
        if back
        else f"It ended {journal.ended:%Y-%m-%d %H:%M:%S} UTC.",
        next="\n".join(ways_on(back or journal, place.journals)),
    )


def _confirm(journal: Journal, place: Place, output: Format) -> None:
    screen = console(stderr=output is Format.JSON)
    screen.print(page(journal, place.journals), markup=False)
    screen.print(f"\n{consequence(journal, place.journals)}", markup=False, style="yellow")
    agree(
        f"Abandon the {journal.called} {journal.id}?",
        "The run was not abandoned.",
        safe=safe_before(journal),
        next="\n".join(ways_on(journal, place.journals)),
    )


def _record(place: Place, journal: Journal, why: str) -> Journal:
    """Under the lock, so that whoever works on it has ended; what was agreed to must still be what is there."""
    owner = present_owner()
    store = place.store

    def told(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lease = Lease(
        store.api, store.namespace, owner=owner, run=journal.id, doing=f"abandoning the {journal.called} {journal.id}"
    )
    lease.take(progress=told)
    try:
        now = find_journal(store.look().journals, journal.id)
        if now != journal:
            raise ConflictError(
                f"The {journal.called} {journal.id} went on while it was looked at.",
                observed=f"{len(now.tries)} tries and {len(now.entries)} changes now; it has {'not ' if now.unfinished else ''}ended.",
                next=f"apinizer-upgrade runs show {journal.id} shows it as it is now.",
            )
        lease.require()
        ended = now.end(datetime.now(UTC), Ended.ABANDONED, f"{why} ({owner.user} on {owner.host})")
        store.save(ended)
        return ended
    finally:
        lease.release()
