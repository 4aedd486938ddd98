"""`rollback`: what it would undo and lose on the screen, the question, then the flow, shown as it goes."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from blocks.settings import InstallationSettings
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError, unwritten
from deployments.cli.return_view import RollbackWish, Shown, look, shown_value, shown_view
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import console, plain_table
from deployments.embedded import EmbeddedServer
from tasks.database.way_back import require_named
from tasks.domain.errors import HopelessError, UpgradeError, UsageError, before_any_change
from tasks.domain.journal import Journal, ways_on

PATIENCE = 10.0


def rollback(settings: InstallationSettings, wish: RollbackWish, output: Format, *, ask: bool, dry_run: bool) -> None:
    """Look, show, ask, run; raise what stops it.  Without a terminal to ask at the backup has to be named."""
    with Interruption(), nullcontext() if dry_run else run_server() as server:
        shown = _shown(settings, wish, output, whole=dry_run)
        if dry_run:
            if output is Format.JSON:
                print(json.dumps(shown_value(shown), indent=2))
            return
        _carry_out(settings, _allowed(shown, wish, ask=ask, person=attended()), shown, output, server)


def go_on(
    settings: InstallationSettings, journal: Journal, output: Format, server: EmbeddedServer | None, *, ask: bool
) -> None:
    """Go on with a rollback that ended early, in a run that has begun; `ask` says that a person is there to be asked.

    Without one its backup is put back only where it was named before.
    """
    wish = RollbackWish(run=journal.id, backup=str(journal.options.get("backup", "")))
    shown = _shown(settings, wish, output, whole=False)
    made = shown.way.upgrade.backup
    if ask:
        wish = _agreed(shown, wish.model_copy(update={"backup": ""}))
    elif made and shown.puts_back:
        with before_any_change(shown.safe):
            require_named(made, wish.backup, journal.id)
    _carry_out(settings, wish, shown, output, server)


def offered(
    settings: InstallationSettings, error: HopelessError, output: Format, server: EmbeddedServer | None
) -> UpgradeError:
    """Ask a person whether the upgrade whose manager failed is rolled back at once; the error to end with."""
    print(f"Error: {error}\n", file=sys.stderr)
    wish = RollbackWish()
    shown = _shown(settings, wish, output, whole=False)
    try:
        wish = _agreed(shown, wish)
    except UpgradeError:
        return error
    result = _carry_out(settings, wish, shown, output, server)
    safe = f"It was rolled back: every component is at {result['to']} and answers. The database: {result['database']}."
    return HopelessError(
        error.happened,
        observed="Told above.",
        safe=safe,
        next=f"apinizer-upgrade runs show {result['undone']}   tells what failed",
    )


def _shown(settings: InstallationSettings, wish: RollbackWish, output: Format, *, whole: bool) -> Shown:
    """What was found, on the screen; raise what stands against it."""
    screen = console(stderr=output is Format.JSON)
    with screen.status("Looking at the way back"):
        shown = look(settings, wish, whole=whole)
    if output is Format.TEXT or not whole:
        screen.print(shown_view(shown))
    if shown.refusal is not None:
        raise DocumentedError(shown.refusal, shown_value(shown))
    return shown


def _carry_out(
    settings: InstallationSettings, wish: RollbackWish, shown: Shown, output: Format, server: EmbeddedServer | None
) -> dict[str, Any]:
    """The flow, shown as it goes; what it did, printed too."""
    screen = console(stderr=output is Format.JSON)
    with screen.status("Starting the run: its Prefect server, its flow"):
        prepare(server, _load)
    result = run_shown(
        screen,
        _rows(shown),
        settings,
        lambda: _run(settings, wish, shown.way.under_way),
        complete="The rollback is complete: apinizer-upgrade status shows it.",
    )
    try:
        print_result(result, output)
        sys.stdout.flush()
    except OSError as error:
        raise unwritten(
            error,
            f"The rollback is complete: every component is at {result['to']} and answers. "
            f"As it was before it: {result['safety_backup'] or 'no backup was needed'}.",
            "apinizer-upgrade status shows the installation.",
        ) from None
    return result


def _allowed(shown: Shown, wish: RollbackWish, *, ask: bool, person: bool) -> RollbackWish:
    """The wish with the ID of the backup that may be put back, "" where none is.

    A person has seen what is lost and says yes, or says --yes before; where nobody attends it has to be named.  One
    that is named has to be the one, whoever names it.
    """
    made = shown.way.upgrade.backup
    if made and wish.backup:
        with before_any_change(shown.safe):
            require_named(made, wish.backup, _run_of(shown).id)
    if not person:
        if made and shown.puts_back and not wish.backup:
            run, sha256 = _run_of(shown).id, made.sha256[:12]
            raise UsageError(
                "A rollback puts the database back, so it does not begin without the backup being named.",
                observed="There is no terminal to ask at.",
                safe=shown.safe,
                next=f"apinizer-upgrade rollback {run} --dry-run   shows what would be lost\n"
                f"apinizer-upgrade rollback {run} --backup {sha256}   does it",
            )
        return wish
    return _agreed(shown, wish) if ask else _with_backup(shown, wish)


def _agreed(shown: Shown, wish: RollbackWish) -> RollbackWish:
    """Ask a person; the wish to do what was shown, and nothing else.  Raise `UpgradeError` where the answer is no."""
    _confirm(shown)
    return _with_backup(shown, wish).model_copy(update={"mark": shown.way.mark})


def _with_backup(shown: Shown, wish: RollbackWish) -> RollbackWish:
    """The wish with the backup that was shown, where none is named yet."""
    made = shown.way.upgrade.backup
    named = wish.backup or (made.sha256 if made and shown.puts_back else "")
    return wish.model_copy(update={"backup": named})


def _run_of(shown: Shown) -> Journal:
    """The rollback that goes on, else the upgrade that is undone."""
    return shown.way.under_way or shown.way.upgrade


def _confirm(shown: Shown) -> None:
    what = "Put the database back and return" if shown.puts_back else "Leave the database as it is and return"
    begun = shown.way.under_way
    agree(
        f"{what} to {shown.way.plan.to}?",
        f"The rollback {begun.id} was not gone on with." if begun else "The rollback was not started.",
        safe=shown.safe,
        next="\n".join(ways_on(_run_of(shown))),
    )


def _load() -> None:
    import flows.rollback  # noqa: F401 - loaded here, run later


def _rows(shown: Shown) -> list[Row]:
    """What the display shows, in the order in which the run comes to it."""
    plan = shown.way.plan.plan
    first = ["lock", "way back", *(["proof"] if shown.puts_back else []), "images"]
    first += ["backup", "restore"] if shown.puts_back else []
    steps = {str(step.key): step.component.value for step in (*plan.steps, *plan.there)}
    return [*map(Row, first), *(Row(key, component) for key, component in steps.items())]


def _run(settings: InstallationSettings, wish: RollbackWish, begun: Journal | None) -> dict[str, Any]:
    """`begun` is the rollback that goes on: by the way and with the folder that it had, where none is said now."""
    from flows.resume import way_of
    from flows.rollback import rollback as flow

    folder = settings.backup_dir or (str(begun.options.get("backup_dir", "")) if begun else "")
    return flow(
        run=wish.run,
        installation=NAME,
        backup=wish.backup,
        stop_all=wish.stop_all,
        without=list(wish.without),
        manager_made_anew=wish.manager_made_anew,
        way=way_of(begun, settings.images.way) if begun else None,
        backup_dir=os.fspath(Path(folder).absolute()) if folder else "",
        manager_timeout=settings.upgrade.manager_timeout,
        timeout=settings.upgrade.timeout,
        mark=wish.mark,
    )


def print_result(result: dict[str, Any], output: Format) -> None:
    """What the rollback did."""
    if output is Format.JSON:
        print(json.dumps(result, indent=2))
        return
    screen = console()
    screen.print()
    screen.print(result_view(result))


def result_view(result: dict[str, Any]) -> RenderableType:
    """The same for people."""
    table = plain_table("COMPONENT", "DEPLOYMENT", "BEFORE", "AFTER", "READY", "PODS ANSWERED")
    for row in result["rows"]:
        cells = [row[name] for name in ("component", "deployment", "before", "after", "ready")]
        table.add_row(*map(escape, cells), ", ".join(sorted(set(row["answered"]))))
    lines = [Text(f"Note: {note}") for note in result["notes"]]
    lines.append(Text(f"The database: {result['database']}."))
    if result["safety_backup"]:
        lines.append(Text(f"As it was before the rollback: {result['safety_backup']}, read back whole."))
        lines += [Text(f"As a later try found it: {each}.") for each in result["later_safety_backups"]]
        archive = result["safety_backup"].partition(" on ")[0]
        lines.append(
            Text(f"To bring a collection of it back: apinizer-upgrade restore {archive} --include NAME", "dim")
        )
    lines.append(Text(f"Rolled back to {result['to']}.", style="bold green"))
    return Group(table, *lines)
