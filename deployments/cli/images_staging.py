"""`images stage`, `load` and `bundle`: the flows, shown as they go."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.images_options import BundleOrder
from deployments.cli.images_rows import IMAGES, image_rows
from deployments.cli.images_tables import megabytes
from deployments.cli.interruption import Interruption
from deployments.cli.live import Row
from deployments.cli.options import Format
from deployments.cli.outcome import unwritten
from deployments.cli.running import NAME, prepare, run_server, run_shown
from deployments.cli.tables import STYLE, console, plain_table
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import before_any_change
from tasks.domain.finding import Severity
from tasks.domain.plan import PlanRequest
from tasks.images.pruning import all_nodes, extra_nodes
from tasks.images.surveying import REGISTRY

PATIENCE = 10.0
BUNDLE = "bundle"
STATUS = "apinizer-upgrade images status"


def stage(settings: InstallationSettings, wish: PlanRequest, output: Format) -> None:
    """Run the flow `stage`; raise what stops it."""

    def look() -> list[Row]:
        connections = Connections.open(settings, patience=PATIENCE)
        inventory = connections.inventory()
        plan = read_plan(connections, inventory, wish)
        return image_rows(settings, connections, inventory, plan, every=True)

    def act() -> dict[str, Any]:
        from flows.stage import stage as flow

        return flow(to=wish.to.text, installation=NAME, repositories=dict(wish.repositories))

    result = _run(
        settings, output, look, _load_stage, act, f"The images are there: {STATUS} --to {wish.to} shows them."
    )
    _tell(result, output, _print_places, f"The images of {wish.to} are there.")


def load(settings: InstallationSettings, file: Path, output: Format) -> None:
    """Run the flow `load`; raise what stops it."""

    def act() -> dict[str, Any]:
        from flows.load import load as flow

        return flow(bundle=str(file), installation=NAME, way=settings.images.way)

    result = _run(settings, output, lambda: _load_rows(settings), _load_load, act, f"The images of {file} are there.")
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
            out=str(order.out or "."),
            compress=order.compress.value if order.compress else "",
            sign=str(order.sign or ""),
            replace=order.replace,
            repositories=dict(wish.repositories),
        )

    rows = [Row(BUNDLE)]
    result = _run(settings, output, lambda: rows, _load_bundle, act, "The bundle is complete.")
    _tell(result, output, _print_bundle, f"The bundle is complete: {result['path']}.")


def _run(
    settings: InstallationSettings,
    output: Format,
    look: Callable[[], list[Row]],
    load_flow: Callable[[], object],
    act: Callable[[], dict[str, Any]],
    complete: str,
) -> dict[str, Any]:
    """What would stop the run at once is said before its server is there; then the flow, shown."""
    with Interruption(), run_server() as server:
        with before_any_change():
            rows = look()
        screen = console(stderr=output is Format.JSON)
        with screen.status("Starting the run: its Prefect server, its flow"):
            prepare(server, load_flow)
        return run_shown(screen, rows, settings, act, complete=complete)


def _load_rows(settings: InstallationSettings) -> list[Row]:
    """Which node needs what is known only when the bundle has been read: every node may."""
    if settings.images.way.target == "registry":
        return [Row(BUNDLE), Row(IMAGES), Row(f"{IMAGES} on {REGISTRY}")]
    nodes = (*all_nodes(Connections.open(settings, patience=PATIENCE)), *extra_nodes(settings.images))
    keys = [f"{node.name} in {node.cluster}" if node.cluster else node.name for node in nodes]
    return [Row(BUNDLE), Row(IMAGES), *(Row(f"{IMAGES} on {key}") for key in keys)]


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
