"""`images stage`, `load` and `bundle`: the flows, shown as they go."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.images_bundle_options import BundleOrder
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.outcome import unwritten
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import STYLE, console, plain_table
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.amounts import megabytes
from tasks.domain.errors import NotFoundError, before_any_change
from tasks.domain.finding import Severity
from tasks.domain.plan import PlanRequest

PATIENCE = 10.0
IMAGES, BUNDLE = "images", "bundle"
STATUS = "apinizer-upgrade images status"


@dataclass(frozen=True, slots=True)
class Job:
    """A run of a flow: its first lines, the look at what would stop it at once (before its server is there), the import
    of the flow, the run, and what is said of its end should the server be gone by then.
    """

    rows: list[str]
    look: Callable[[], None]
    load: Callable[[], object]
    act: Callable[[], dict[str, Any]]
    complete: str


def stage(settings: InstallationSettings, wish: PlanRequest, output: Format) -> None:
    """Run the flow `stage`; raise what stops it."""

    def look() -> None:
        connections = Connections.open(settings, patience=PATIENCE)
        read_plan(connections, connections.inventory(), wish)

    def act() -> dict[str, Any]:
        from flows.stage import stage as flow

        return flow(to=wish.to.text, installation=NAME, repositories=dict(wish.repositories))

    complete = f"The images are there: {STATUS} --to {wish.to} shows them."
    result = _run(settings, output, Job([IMAGES], look, _load_stage, act, complete))
    _tell(result, output, _print_places, f"The images of {wish.to} are there.")


def load(settings: InstallationSettings, file: Path, output: Format) -> None:
    """Run the flow `load`; raise what stops it."""

    def act() -> dict[str, Any]:
        from flows.load import load as flow

        return flow(bundle=str(file.absolute()), installation=NAME, way=settings.images.way)

    def look() -> None:
        if not file.is_file():
            raise NotFoundError(
                f"There is no bundle at {file}.",
                observed="It is a folder." if file.is_dir() else "No such file.",
                next="Name what `images bundle` wrote.",
            )
        Connections.open(settings, patience=PATIENCE).inventory()

    complete = f"The images of {file} are there."
    result = _run(settings, output, Job([BUNDLE, IMAGES], look, _load_load, act, complete))
    _tell(result, output, _print_places, f"The images of {file} are there: {STATUS} shows them.")


def bundle(settings: InstallationSettings, wish: PlanRequest, order: BundleOrder, output: Format) -> None:
    """Run the flow `bundle`; raise what stops it."""

    def act() -> dict[str, Any]:
        from flows.bundle import bundle as flow

        return flow(
            to=wish.to.text,
            installation=NAME,
            source=order.source.value if order.source else None,
            since=order.since,
            held=str(order.held or ""),
            out=str((order.out or Path()).absolute()),
            compress=order.compress.value if order.compress else "",
            sign=str(order.sign or ""),
            replace=order.replace,
            repositories=dict(wish.repositories),
        )

    result = _run(settings, output, Job([BUNDLE], lambda: None, _load_bundle, act, "The bundle is complete."))
    _tell(result, output, _print_bundle, f"The bundle is complete: {result['path']}.")


def _run(settings: InstallationSettings, output: Format, job: Job) -> dict[str, Any]:
    with Interruption(), run_server() as server:
        with before_any_change():
            job.look()
        screen = console(stderr=output is Format.JSON)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, job.load)
        return run_shown(screen, list(map(Row, job.rows)), settings, job.act, complete=job.complete)


def _load_stage() -> None:
    import flows.stage  # noqa: F401 - loaded here, run later


def _load_load() -> None:
    import flows.load  # noqa: F401 - loaded here, run later


def _load_bundle() -> None:
    import flows.bundle  # noqa: F401 - loaded here, run later


def _tell(result: dict[str, Any], output: Format, show: Callable[[dict[str, Any]], None], done: str) -> None:
    try:
        if output is Format.JSON:
            print(json.dumps(result, indent=2))
        else:
            show(result)
        sys.stdout.flush()
    except OSError as error:
        raise unwritten(error, done, f"{STATUS} shows them.") from None


def _print_places(result: dict[str, Any]) -> None:
    screen = console()
    table = plain_table("WHERE", "IMAGES", "BROUGHT", "SENT", "PINNED")
    for place in result["places"]:
        brought = ", ".join(name.rpartition("/")[2] for name in place["brought"]) or "nothing was missing"
        pinned = "yes" if place["pinned"] else "no"
        table.add_row(place["where"], f"{len(place['images'])} proved", brought, megabytes(place["sent"]), pinned)
    screen.print()
    if table.row_count:
        screen.print(table)
    for sentence in result.get("bundle", {}).get("unproven", ()):
        screen.print(f"Note: {sentence}", markup=False)
    for finding in result["findings"]:
        style = STYLE[Severity(finding["severity"])]
        screen.print(f"{finding['severity']}: {finding['what']}", style=style, markup=False)
    moved = f"{megabytes(result['sent'])} sent in {result['seconds']:.1f} s." if table.row_count else ""
    head = "Every place proved its images." if table.row_count else "Nothing is to be moved: the nodes pull."
    screen.print(f"[bold green]{head}[/] {moved}")


def _print_bundle(result: dict[str, Any]) -> None:
    screen = console()
    screen.print(f"\n[bold green]Bundled:[/] {len(result['images'])} images, {megabytes(result['size'])}.")
    screen.print(f"{result['path']}, {result['size']:,} bytes", markup=False)
    screen.print(f"SHA-256 {result['sha256']}", markup=False)
    if base := result["base"]:
        screen.print(f"It is for a site that holds {base['version'] or 'what was listed'} already.", markup=False)
    if result["signature"]:
        screen.print(f"Signature: {result['signature']}", markup=False)
