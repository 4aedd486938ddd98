"""`restore`: what would happen on the screen, the question, then the flow, shown as it goes."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from blocks.cluster_client import configured
from blocks.settings import InstallationSettings
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError, unwritten
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import console, plain_table
from tasks.cluster.manager_pods import watch_managers
from tasks.cluster.planning import Connections
from tasks.database.backing_up import LOGIN_SECONDS
from tasks.database.connection import open_database
from tasks.database.merge_rule import MergeRule
from tasks.database.proof import prove
from tasks.database.putting_back import what_stands_against, with_remarks
from tasks.database.restore.look import look
from tasks.database.restore.plan import RestorePlan, RestoreRequest, Verb
from tasks.database.restore.plan_text import HEADS, plan_rows
from tasks.database.source import DatabaseSource, address_of, find_source
from tasks.domain.errors import (
    NOTHING_CHANGED,
    BlockedError,
    TemporaryError,
    UpgradeError,
    UsageError,
    before_any_change,
)

PATIENCE = 10.0
STYLE = {Verb.DROP.value: "bold red", Verb.REPLACE.value: "yellow", Verb.MERGE.value: "yellow", Verb.LEAVE.value: "dim"}


class RestoreWish(BaseModel):
    """What the options of `restore` ask for; `cluster` is None where nothing was said about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: Path
    source_database: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    exact: bool = False
    merge: str = ""
    other_installation: bool = False
    give_up: bool = False
    safety_backup: bool = True
    ask_cluster: bool = True

    def request(self, database: str) -> RestoreRequest:
        """The same for the engine; raise `UsageError` for a merge rule that is none."""
        return RestoreRequest(
            database=database,
            source_database=self.source_database,
            include=self.include,
            exclude=self.exclude,
            rename=self.rename,
            exact=self.exact,
            merge=MergeRule.parse(self.merge) if self.merge else None,
            other_installation=self.other_installation,
            give_up=self.give_up,
        )


def restore(settings: InstallationSettings, wish: RestoreWish, output: Format, *, ask: bool, dry_run: bool) -> None:
    """Show, ask, run; raise what stops it.  Without a terminal to ask at it needs `ask` to be false."""
    wish.request("any")  # a merge rule that is none is said before anything is looked at
    if ask and not dry_run and not attended():
        raise UsageError(
            "A restore replaces data, so it does not begin without being told to.",
            observed="There is no terminal to ask at.",
            next="Look at it with --dry-run, then say --yes.",
        )
    wish = _with_cluster(settings, wish)
    if dry_run or ask:
        with Interruption(), before_any_change():
            _show(settings, wish, output, final=dry_run)
            if not dry_run:
                _confirm()
    if dry_run:
        return
    with Interruption(), run_server() as server:
        if not ask:
            with before_any_change():
                _look_first(settings, wish)
        screen = console(stderr=output is Format.JSON)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, _load)
        result = run_shown(
            screen,
            _rows(wish),
            settings,
            lambda: _run(wish),
            complete="The restore is complete, every collection checked.",
        )
        try:
            _print(result, output)
            sys.stdout.flush()
        except OSError as error:
            raise unwritten(
                error,
                f"The restore is complete and checked. Before it: {result['safety_backup'] or 'no backup was made'}.",
                "Scale the manager up again.",
            ) from None


def _with_cluster(settings: InstallationSettings, wish: RestoreWish) -> RestoreWish:
    """Where no cluster is configured at all, nobody can be asked about a manager: said, and gone on."""
    if not wish.ask_cluster or settings.database.given_uri() is None or configured(settings.clusters):
        return wish
    print(
        "Note: no cluster is configured here, so it cannot be seen whether a manager runs on this database. See that none does.",
        file=sys.stderr,
    )
    return wish.model_copy(update={"ask_cluster": False})


def _look_first(settings: InstallationSettings, wish: RestoreWish) -> None:
    """What would stop the run at once is said before its server is there: a manager, the login, the archive's path."""
    connections, source, alive = _found(settings, wish)
    if alive is not None:
        raise alive
    if not wish.archive.is_file():
        prove(wish.archive)  # it says what is there instead
    try:
        with open_database(address_of(connections, source.manager).uri.get_secret_value(), timeout=LOGIN_SECONDS):
            pass
    except TemporaryError:
        return  # the run has more patience


def _found(
    settings: InstallationSettings, wish: RestoreWish
) -> tuple[Connections, DatabaseSource, BlockedError | None]:
    """The clusters, whose database it is, and the error of a manager that is alive."""
    connections = Connections.open(settings, patience=PATIENCE) if wish.ask_cluster else Connections(settings)
    source = find_source(connections)
    if wish.ask_cluster:
        try:
            with watch_managers(connections):
                pass
        except BlockedError as alive:
            return connections, source, alive
    return connections, source, None


def _show(settings: InstallationSettings, wish: RestoreWish, output: Format, *, final: bool) -> None:
    """Print the plan; raise its refusal, and that a manager runs."""
    connections, source, alive = _found(settings, wish)
    screen = console(stderr=output is Format.JSON)
    uri = address_of(connections, source.manager).uri.get_secret_value()
    with screen.status(f"Reading {wish.archive.name} back"), open_database(uri, timeout=PATIENCE) as client:
        plan = look(client, wish.archive, wish.request(source.name))
    backup = settings.backup
    against = what_stands_against(plan, backup.engine, safety_comes=wish.safety_backup)
    refusal: UpgradeError | None = against.error() if against else alive
    if against is None:
        try:
            plan = with_remarks(
                plan, backup.engine, backup.ssh, safety_comes=wish.safety_backup, version=source.version
            )
        except UpgradeError as nobody:
            refusal = nobody
    value = plan_value(plan, blocked=refusal is not None)
    if output is Format.TEXT:
        screen.print(plan_view(plan))
        if refusal is not None:
            raise refusal
    elif refusal is not None:
        raise DocumentedError(refusal, value)
    elif final:
        print(json.dumps(value, indent=2))


def plan_value(plan: RestorePlan, *, blocked: bool) -> dict[str, Any]:
    """The plan for programs."""
    return {**plan.model_dump(mode="json", exclude={"refused", "native_only"}), "blocked": blocked}


def plan_view(plan: RestorePlan) -> RenderableType:
    """The plan for people: what happens to each collection, then what does not."""
    head = Text(f"Restore {plan.database} from {plan.archive}: {plan.documents:,} documents", style="bold")
    table = plain_table(*(name.upper() for name in HEADS))
    for row in plan_rows(plan):
        table.add_row(Text(row[0], style=STYLE.get(row[0], "")), *(escape(cell) for cell in row[1:]))
    return Group(head, table, *(Text(f"Note: {sentence}") for sentence in plan.sentences))


def _confirm() -> None:
    agree(
        "Put the database back like this?",
        "The restore was not started.",
        safe=NOTHING_CHANGED,
        next="Run it when you are ready; --dry-run shows it once more.",
    )


def _load() -> None:
    import flows.restore  # noqa: F401 - loaded here, run later


def _rows(wish: RestoreWish) -> list[Row]:
    first = ["manager"] if wish.ask_cluster else []
    return [Row(name) for name in (*first, "plan", *(["backup", "proof"] if wish.safety_backup else []), "restore")]


def _run(wish: RestoreWish) -> dict[str, Any]:
    from flows.restore import restore as flow

    return flow(
        archive=os.fspath(wish.archive.absolute()),
        installation=NAME,
        source_database=wish.source_database,
        include=list(wish.include),
        exclude=list(wish.exclude),
        rename=wish.rename,
        exact=wish.exact,
        merge=wish.merge,
        other_installation=wish.other_installation,
        give_up=wish.give_up,
        safety_backup=wish.safety_backup,
        ask_cluster=wish.ask_cluster,
    )


def _print(result: dict[str, Any], output: Format) -> None:
    if output is Format.JSON:
        print(json.dumps(result, indent=2))
        return
    screen = console()
    screen.print(
        f"\n[bold green]Restored {escape(result['database'])}:[/] {result['documents']:,} documents, all checked."
    )
    for what in ("replaced", "created", "merged", "dropped", "left"):
        if result[what]:
            screen.print(f"{what.capitalize()}: {', '.join(result[what])}", markup=False)
    for note in result["notes"]:
        screen.print(f"Note: {note}", markup=False)
    if result["safety_backup"]:
        screen.print(f"As it was before: {result['safety_backup']}, read back whole.", markup=False)
