"""What a rollback would do, would lose, and what stands against it: read without changing anything, for people and programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from blocks.settings import InstallationSettings
from deployments.cli.survey_view import survey_view
from deployments.cli.tables import STYLE, plain_table
from tasks.cluster.never_started import Judgement, so_far
from tasks.cluster.planning import Connections
from tasks.cluster.scaler_reading import read_scalers
from tasks.database.backing_up import require_lasting
from tasks.database.connection import open_database
from tasks.database.difference import Difference, read_difference
from tasks.database.manifest import load
from tasks.database.order import BackupOrder
from tasks.database.putting_back import require_safety_place, what_stands_against
from tasks.database.restore.look import survey as survey_database
from tasks.database.restore.plan import RestorePlan, RestoreRequest
from tasks.database.return_look import (
    WayBack,
    look_for_way_back,
    read_sight,
    require_none_scales_up,
    require_old_images,
)
from tasks.database.source import address_of
from tasks.database.way_back import in_words, require_the_one
from tasks.domain.errors import NOTHING_CHANGED, BlockedError, UpgradeError, before_any_change
from tasks.domain.finding import Finding, Severity
from tasks.domain.journal import Journal
from tasks.domain.rollback_text import stopped_row
from tasks.domain.safe_before import safe_before, standing
from tasks.images.opening import Opened
from tasks.images.survey_text import survey_value
from tasks.images.surveying import Survey, survey
from tasks.images.unreached import refusal
from tasks.record.journal_store import journal_store_for

PATIENCE = 10.0


class RollbackWish(BaseModel):
    """What the options of `rollback` ask for; `backup` names the backup that is put back, "" where a person is asked.

    `mark` is that of the way back which a person has seen and agreed to, "" where nobody was asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = ""
    backup: str = ""
    stop_all: bool = False
    without: tuple[str, ...] = ()
    manager_made_anew: bool = False
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What was found.  `refusal` is what would end the rollback before its first change, `safe` what holds until then."""

    way: WayBack
    findings: tuple[Finding, ...]
    stop_all: bool
    judged: Judgement | None = None
    lost: Difference | None = None
    restore: RestorePlan | None = None
    images: Survey | None = None
    refusal: UpgradeError | None = None
    safe: str = NOTHING_CHANGED

    @property
    def puts_back(self) -> bool:
        """Whether the database is put back, as far as can be seen now."""
        left = self.way.may_leave and self.judged is not None and self.judged.unchanged
        return self.way.touches_database and not left


def look(settings: InstallationSettings, wish: RollbackWish, *, whole: bool) -> Shown:
    """Read all that a rollback looks at; with `whole` the backup and the nodes' images too.  Raises what forbids it."""
    with before_any_change():
        connections = Connections.open(settings, patience=PATIENCE)
        journals = journal_store_for(connections, connections.inventory()).all()
    safe = safe_before(standing(journals))
    with before_any_change(safe):
        shown = _looked(connections, journals, wish, whole=whole)
    return replace(shown, safe=safe, refusal=shown.refusal.with_safe(safe) if shown.refusal else None)


def _looked(connections: Connections, journals: Sequence[Journal], wish: RollbackWish, *, whole: bool) -> Shown:
    settings, stop_all = connections.settings, wish.stop_all
    order = BackupOrder.of(settings, whole_server=False, leave_out=())
    way = look_for_way_back(
        connections, journals, wish.run, order.directory, wish.without, manager_made_anew=wish.manager_made_anew
    )
    if way.under_way is not None:
        stop_all = bool(way.under_way.options.get("stop_all", stop_all))
    if not way.touches_database:
        return Shown(way, way.warnings, stop_all, images=_images(connections, way) if whole else None)
    manager = way.manager
    scalers = read_scalers(connections, (manager, *(way.others if stop_all else ())))
    api = connections.apis[manager.key.cluster]
    judged = so_far(way.manager_entries, read_sight(api, manager))
    shown = Shown(way, (*scalers, *way.warnings), stop_all, judged=judged)
    try:
        require_none_scales_up(scalers)
        lost, restore = _database(connections, way, order, whole=whole) if shown.puts_back else (None, None)
    except UpgradeError as error:
        return Shown(way, shown.findings, stop_all, judged=judged, refusal=error)
    images = _images(connections, way) if whole else None
    refusal = _refused(images) if images else None
    return Shown(way, shown.findings, stop_all, judged, lost, restore, images, refusal)


def _database(
    connections: Connections, way: WayBack, order: BackupOrder, *, whole: bool
) -> tuple[Difference | None, RestorePlan | None]:
    """What going back would lose, and with `whole` what would become of each collection, the backup read whole."""
    archive, made = Path(way.archive), way.upgrade.backup
    manifest = load(archive)
    uri = address_of(connections, way.upgrade.manager).uri.get_secret_value()
    require_lasting(order)
    with open_database(uri, timeout=PATIENCE) as client, in_words():
        require_safety_place(client, way.database, order, way.under_way)
        lost = read_difference(client, manifest, database=way.database, now=datetime.now(UTC)) if manifest else None
        if not whole or made is None:
            return lost, None
        request = RestoreRequest(database=way.database, source_database=made.database, exact=True)
        found = survey_database(client, archive, request)
        require_the_one(archive, found.proof.sha256, made)
        against = what_stands_against(found.plan, order.engine, safety_comes=True)
        if against is not None:
            raise against.error()
        return lost, found.plan


def _images(connections: Connections, way: WayBack) -> Survey | None:
    """Which images of the old version are missing where."""
    if not way.plan.plan.steps:
        return None
    opened = Opened(connections.settings.images)
    try:
        return survey(connections, way.inventory, way.plan.plan, opened)
    finally:
        opened.close()


def _refused(images: Survey) -> UpgradeError | None:
    if (unreached := refusal(images.failed)) is not None:
        return unreached
    try:
        require_old_images(images.demand, images.findings)
    except BlockedError as nowhere:
        return nowhere
    blocked = [finding for finding in images.findings if finding.severity is Severity.BLOCKING]
    if not blocked:
        return None
    return BlockedError(
        blocked[0].what, observed="\n".join(f"{f.code}: {f.what}" for f in blocked), next=blocked[0].next
    )


def shown_value(shown: Shown) -> dict[str, Any]:
    """For programs."""
    way, plan = shown.way, shown.way.plan
    return {
        "undoes": way.upgrade.id,
        "goes_on": way.under_way.id if way.under_way else None,
        "from": str(way.upgrade.to),
        "to": str(plan.to),
        "backup": way.upgrade.backup.model_dump(mode="json") if way.upgrade.backup else None,
        "puts_database_back": shown.puts_back,
        "database_unchanged": asdict(shown.judged) if shown.judged else None,
        "stop_all": shown.stop_all,
        "lost": shown.lost.model_dump(mode="json") if shown.lost else None,
        "restore": shown.restore.model_dump(mode="json", exclude={"refused", "native_only"}) if shown.restore else None,
        "steps": [step.model_dump(mode="json") for step in plan.plan.steps],
        "there": [str(step.key) for step in plan.plan.there],
        "findings": [finding.model_dump(mode="json") for finding in shown.findings],
        "images": survey_value(shown.images) if shown.images else None,
    }


def shown_view(shown: Shown) -> RenderableType:
    """For people: what is done in order, what is lost, what is to be read."""
    way, plan = shown.way, shown.way.plan
    head = f"Roll back {way.upgrade.id}: from {way.upgrade.to} to {plan.to}"
    parts: list[RenderableType] = [Text(head + (", going on where it ended" if way.under_way else ""), style="bold")]
    table = plain_table("", "WHAT", "DETAIL")
    for number, (what, detail) in enumerate(_steps(shown), start=1):
        table.add_row(str(number), escape(what), escape(detail))
    parts.append(table)
    if shown.lost is not None:
        parts.append(Text("What is lost:", style="bold"))
        parts += [Text(f"  {sentence}") for sentence in shown.lost.sentences()]
    for finding in shown.findings:
        parts.append(Text(f"{finding.severity.value}: {finding.what}", style=STYLE[finding.severity]))
        if finding.next and finding.severity is not Severity.INFO:
            parts.append(Text(f"  {finding.next}", style="dim"))
    if shown.images is not None:
        parts.append(survey_view(shown.images))
    return Group(*parts)


def _steps(shown: Shown) -> list[tuple[str, str]]:
    """What happens, in order."""
    way, plan = shown.way, shown.way.plan
    rows: list[tuple[str, str]] = []
    others = [back for back in plan.returns if back.key != way.upgrade.manager]
    if way.touches_database:
        manager = plan.of(way.manager.key)
        down = f"{manager.now} to 0 pods, until none is left" if manager.now else "wants no pods; until none is left"
        rows.append(("stop the manager", f"{manager.key}: {down}"))
        serving = [str(back.key) for back in others if back.now]
        if shown.stop_all:
            rows += [stopped_row(back) for back in others if back.now or back.replicas]
        elif shown.puts_back and serving:
            rows.append(("go on serving", f"{', '.join(serving)}; what they write meanwhile (logs) is lost"))
        if shown.puts_back:
            made = way.upgrade.backup
            rows.append(("back up the database", f"{way.database} as it is now, read back whole"))
            told = f"{way.archive}, of {made.made:%Y-%m-%d %H:%M} UTC, SHA-256 {made.sha256[:12]}…" if made else ""
            rows.append(("put the database back", f"{way.database} exactly as in {told}"))
        else:
            rows.append(("leave the database", shown.judged.why if shown.judged else ""))
    elif way.restored is not None:
        rows.append(("leave the database", "this rollback has seen to it already"))
        rows += [stopped_row(back) for back in others if shown.stop_all and back.replicas and not back.now]
    titled = [("manager", (plan.plan.manager,))] if plan.plan.manager else []
    for title, steps in (*titled, *((stage.title, stage.steps) for stage in plan.plan.stages)):
        for step in steps:
            count = plan.of(step.key).replicas
            images = ", ".join(step.images) or "as it is"
            rows.append((title, f"{step.key}: {images}, {count} pod{'s' if count != 1 else ''}"))
    if plan.plan.there:
        rows.append(("only asked", ", ".join(str(step.key) for step in plan.plan.there)))
    return rows
