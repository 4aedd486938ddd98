"""Runs for people and for programs: a line of the table, a page of one run.  Pure; all times are UTC."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from tasks.domain.journal import BackupMade, Ended, Entry, Journal, Try, rollback_of, ways_on

COLUMNS = ("ID", "RUN", "STATE", "BEGUN (UTC)", "ENDED (UTC)", "CHANGES", "LAST BY")
_INDENT = "     "


def state(journal: Journal, journals: Iterable[Journal] = ()) -> str:
    """How it stands in a word or two; `journals` tell whether it is being rolled back."""
    if journal.how is not None:
        return journal.how.value
    return "being rolled back" if rollback_of(journal, journals) else "unfinished"


def cells(journal: Journal, journals: Iterable[Journal] = ()) -> tuple[str, ...]:
    """The line of a run in a table with `COLUMNS`."""
    last = journal.tries[-1].owner if journal.tries else None
    return (
        journal.id,
        _what(journal),
        state(journal, journals),
        _time(journal.begun),
        _time(journal.ended) if journal.ended else "",
        str(len([entry for entry in journal.entries if entry.changes])),
        f"{last.user} on {last.host}" if last else "",
    )


def summary(journal: Journal, journals: Iterable[Journal] = ()) -> dict[str, Any]:
    """The same for programs."""
    last = journal.tries[-1].owner if journal.tries else None
    return {
        "id": journal.id,
        "kind": journal.called,
        "of": journal.of,
        "from": str(journal.current) if journal.current else None,
        "to": str(journal.to),
        "manager": str(journal.manager),
        "state": state(journal, journals),
        "unfinished": journal.unfinished,
        "begun": journal.begun.isoformat(),
        "ended": journal.ended.isoformat() if journal.ended else None,
        "reason": journal.reason,
        "changes": len([entry for entry in journal.entries if entry.changes]),
        "tries": len(journal.tries),
        "by": {"user": last.user, "host": last.host, "pid": last.pid} if last else None,
        "backup": journal.backup.archive if journal.backup else None,
    }


def document(journal: Journal, journals: Iterable[Journal] = ()) -> dict[str, Any]:
    """All of a run for programs: the summary, the journal as it is kept, the commands that may follow."""
    known = tuple(journals)
    ways = [command for command, _ in _ways(journal, known)]
    return {**summary(journal, known), "journal": journal.model_dump(mode="json"), "can_be_done": ways}


def page(journal: Journal, journals: Iterable[Journal] = ()) -> str:
    """All of a run for people: who tried and how it ended, the backups, each change, what can be done now."""
    known = tuple(journals)
    return "\n".join(
        (
            *_head(journal, known),
            *_tries(journal),
            *_backups(journal),
            *_changes(journal),
            "",
            "What can be done now",
            *(f"  {command}   {does}".rstrip() for command, does in _ways(journal, known)),
        )
    )


def _what(journal: Journal) -> str:
    of = f" of {journal.options['undo']}" if journal.called == "undo" and "undo" in journal.options else ""
    return f"{journal.called}{of} {journal.current or '?'} -> {journal.to}"


def _head(journal: Journal, journals: tuple[Journal, ...]) -> Iterator[str]:
    yield f"{journal.id}: {_what(journal)}, {state(journal, journals)}"
    yield f"  manager  {journal.manager}"
    if journal.of:
        yield f"  undoes   {journal.of}"
    yield f"  begun    {_time(journal.begun)} UTC"
    if journal.ended:
        yield f"  ended    {_time(journal.ended)} UTC"
    if journal.reason:
        yield from _lines("  reason   ", journal.reason)
    if journal.request:
        asked = journal.request.model_dump(mode="json", exclude_defaults=True, exclude={"to"})
        if asked:
            yield f"  asked    {', '.join(f'{name} {_short(value)}' for name, value in asked.items())}"
    options = [f"{name} {value}" for name, value in journal.options.items() if value != ""]
    if options:
        yield f"  options  {', '.join(options)}"


def _short(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _tries(journal: Journal) -> Iterator[str]:
    yield from ("", "Tries" if len(journal.tries) != 1 else "Try")
    for number, one in enumerate(journal.tries, start=1):
        last = number == len(journal.tries)
        yield f"  {number}. {one.owner}, {one.owner.tool}: {_time(one.begun)} to {_end(one, journal, last=last)}"
        if one.owner.run:
            yield f"{_INDENT}flow run {one.owner.run}"
        for part, title in (
            ("happened", "Error: "), ("observed", "Observed: "), ("safe", "Safe then: "), ("next", "Next: "),
        ):  # fmt: skip
            if one.error.get(part):
                yield from _lines(f"{_INDENT}{title}", one.error[part])
    if not journal.tries:
        yield "  none"


def _end(one: Try, journal: Journal, *, last: bool) -> str:
    if one.ended:
        return _time(one.ended)
    if last and journal.ended:
        return _time(journal.ended)
    return "now, or it was killed" if last else "an end that it did not write: it was killed"


def _backups(journal: Journal) -> Iterator[str]:
    safety = "Safety backup, of before the restore"
    later = ((f"{safety} went on", made) for made in reversed(journal.later))
    for title, made in (("Backup of before", journal.backup), *later, (safety, journal.safety)):
        if made is not None:
            yield from ("", title, *_backup(made))


def _backup(made: BackupMade) -> Iterator[str]:
    yield f"  {made.archive} on {made.host}"
    yield f"  {made.documents:,} documents of {made.database} at {', '.join(made.hosts)}; Apinizer {made.version}"
    yield f"  made {_time(made.made)} UTC; SHA-256 {made.sha256}"


def _changes(journal: Journal) -> Iterator[str]:
    yield from ("", "Changes" if journal.entries else "Changes: none was begun")
    for number, entry in enumerate(journal.entries, start=1):
        yield f"  {number}. {entry.will}   {_outcome(entry)}"
        yield from (f"{_INDENT}{line}" for line in _details(entry))


def _outcome(entry: Entry) -> str:
    if entry.unmade:
        return f"{_time(entry.begun)}, refused: it was not made"
    if entry.done is None:
        return f"{_time(entry.begun)}, its outcome is not recorded"
    return f"{_time(entry.begun)}, done after {(entry.done - entry.begun).total_seconds():.0f} s"


def _details(entry: Entry) -> Iterator[str]:
    before = entry.before
    for container, image in entry.images.items():
        old = before.images.get(container, "?") if before else "?"
        init = " (init)" if before and container in before.init else ""
        yield f"{container}{init}: {old} -> {image}"
    if before is not None:
        if entry.replicas is not None:
            yield f"replicas: {before.replicas} -> {entry.replicas}"
        else:
            yield f"was: {', '.join(filter(None, (_count(before.replicas), before.strategy)))}"
        for container, ran in before.ran.items():
            yield f"ran in {container}: {', '.join(ran)}"
    if entry.evidence:
        yield f"seen: {', '.join(f'{name} {value}' for name, value in entry.evidence.items())}"
    if entry.undo and not entry.unmade:
        yield f"undo: {entry.undo}"


def _count(replicas: int) -> str:
    return f"{replicas} replica{'' if replicas == 1 else 's'}"


def _ways(journal: Journal, journals: tuple[Journal, ...]) -> list[tuple[str, str]]:
    """Commands and what they do, but for the one that shows this page."""
    found = [(command, does) for command, _, does in (way.partition("   ") for way in ways_on(journal, journals))]
    ways = [(command, does) for command, does in found if not command.startswith("apinizer-upgrade runs show")]
    if not journal.unfinished and not any(j.unfinished for j in journals):
        target = journal.to if journal.kind == "upgrade" and journal.how is Ended.NOTHING_CHANGED else "VERSION"
        ways.append((f"apinizer-upgrade upgrade --to {target}", "begins another run"))
    return ways


def _lines(title: str, text: str) -> Iterator[str]:
    """A text under its title, further lines indented like the first."""
    first, *rest = text.strip().splitlines() or [""]
    yield f"{title}{first}"
    indent = " " * (len(title) - len(title.lstrip()) + 2)
    yield from (f"{indent}{line}" for line in rest)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
