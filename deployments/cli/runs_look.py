"""`runs` and `runs show`: they read and change nothing, and need no Prefect."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.markup import escape
from rich.text import Text

from blocks.settings import InstallationSettings
from deployments.cli.options import Format
from deployments.cli.tables import console, plain_table
from tasks.cluster.planning import Connections
from tasks.domain.errors import ForbiddenError, UsageError, before_any_change
from tasks.domain.journal import Journal, find_journal, newest_first
from tasks.domain.journal_text import COLUMNS, cells, document, page, summary
from tasks.domain.lease_rule import LeaseFacts
from tasks.record.journal_object import Damaged, journal_name, unreadable_error
from tasks.record.journal_search import find_stores
from tasks.record.journal_store import JournalStore
from tasks.record.lease import holder

SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """A store as it was read: its journals, what cannot be read of them, and who holds the lock there."""

    store: JournalStore
    journals: tuple[Journal, ...]
    damaged: tuple[Damaged, ...]
    holder: LeaseFacts | None


def places(settings: InstallationSettings) -> tuple[Place, ...]:
    """Every journal of the installation; raise the errors of the API, four parts each."""
    with before_any_change():
        connections = Connections.open(settings, patience=SECONDS)
        return tuple(_read(store) for store in find_stores(connections))


def _read(store: JournalStore) -> Place:
    found = store.look()
    try:
        held = holder(store.api, store.namespace)
    except ForbiddenError:  # who only reads journals may not be allowed more
        held = None
    return Place(store, found.journals, found.damaged, held)


def listed(settings: InstallationSettings, output: Format) -> None:
    """Print the runs, newest first."""
    found = places(settings)
    journals = all_of(found)
    if output is Format.JSON:
        value = {
            "runs": [summary(journal, journals) for journal in journals],
            "damaged": [_damaged_value(place, one) for place in found for one in place.damaged],
            "lock": [_held_value(place) for place in found if place.holder],
        }
        print(json.dumps(value, indent=2))
        return
    _print_table(found, journals)
    for place in found:
        if place.holder:
            print(_at_work(place.holder))
        for one in place.damaged:
            print(f"Note: {unreadable_error(place.store.namespace, one)}", file=sys.stderr)


def _print_table(found: Sequence[Place], journals: Sequence[Journal]) -> None:
    table = plain_table(*COLUMNS)
    for journal in journals:
        run, what, state, *rest = cells(journal, journals)
        shown = Text(state, style="yellow" if journal.unfinished else "")
        table.add_row(run, what, shown, *(escape(cell) for cell in rest))
    for one in (each for place in found for each in place.damaged):
        name = one.name.removeprefix(journal_name(""))
        table.add_row(escape(name), "?", Text("cannot be read", style="bold red"))
    if table.row_count:
        console().print(table)
    else:
        print("No run is recorded.")


def show(settings: InstallationSettings, run: str, output: Format) -> None:
    """Print all of one run."""
    found = places(settings)
    place, journal = find(found, run)
    if output is Format.JSON:
        held = place.holder is not None and place.holder.run == journal.id
        print(json.dumps({**document(journal, place.journals), "at_work": held}, indent=2))
        return
    print(page(journal, place.journals))
    if place.holder:
        print(f"\n{_at_work(place.holder)}")


def find(found: Sequence[Place], run: str) -> tuple[Place, Journal]:
    """The run of that ID, and where it is recorded; raise `UsageError` where it is none, `BlockedError` where it is damaged."""
    for place in found:
        for one in place.damaged:
            if run and one.name == journal_name(run):
                raise unreadable_error(place.store.namespace, one)
    journals = all_of(found)
    if not journals:
        where = ", ".join(place.store.namespace for place in found)
        raise UsageError(
            f"There is no run {run}." if run else "No run is recorded.",
            observed=f"The namespace {where} holds no journal of a run that can be read.",
            next="apinizer-upgrade status shows the installation as it is.",
        )
    journal = find_journal(journals, run)
    return next(place for place in found if journal in place.journals), journal


def all_of(found: Sequence[Place]) -> tuple[Journal, ...]:
    """The journals of all places, newest first."""
    return newest_first(journal for place in found for journal in place.journals)


def _at_work(held: LeaseFacts) -> str:
    since = f", since {held.acquired:%Y-%m-%d %H:%M:%S} UTC" if held.acquired else ""
    return f"The lock is held by {held.who}{since}: {held.doing or 'what it does is not said'}."


def _held_value(place: Place) -> dict[str, Any]:
    held = place.holder
    if held is None:
        return {}
    since = held.acquired.isoformat() if held.acquired else None
    return {"namespace": place.store.namespace, "by": held.who, "run": held.run, "doing": held.doing, "since": since}


def _damaged_value(place: Place, one: Damaged) -> dict[str, Any]:
    return {
        "configmap": one.name,
        "namespace": place.store.namespace,
        **unreadable_error(place.store.namespace, one).as_json(),
    }
