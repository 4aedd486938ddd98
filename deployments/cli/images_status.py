"""`images status`: which releases each node holds, and what a version would have to bring.  Needs no Prefect."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.settings import InstallationSettings
from deployments.cli.images_tables import releases, releases_table
from deployments.cli.interruption import Interruption
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError
from deployments.cli.survey_view import survey_view
from deployments.cli.tables import console
from tasks.cluster.planning import Connections, read_plan
from tasks.domain.errors import UpgradeError, UsageError, before_any_change
from tasks.domain.inventory import Inventory
from tasks.domain.plan import PlanRequest
from tasks.images.bundle.held import HeldList
from tasks.images.opening import Opened, target_for_node
from tasks.images.prune import HeldImage, is_ours
from tasks.images.pruning import NodeLook, all_nodes, extra_nodes, look_at_nodes, reported, repositories_of
from tasks.images.survey_text import survey_value
from tasks.images.surveying import Survey, at_once, survey
from tasks.images.unreached import refusal

PATIENCE = 10.0
PARTED = (
    "not every layer is there as it travels. Where containerd discards what it has unpacked (discard_unpacked_layers) pods "
    "run from it all the same, and nothing is to be done; else `images stage` sends what is missing."
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The nodes as they were asked: `by_runtime` over SSH, else as the kubelets report."""

    inventory: Inventory
    looks: tuple[NodeLook, ...]
    by_runtime: bool


def status(settings: InstallationSettings, wish: PlanRequest | None, held: Path | None, output: Format) -> None:
    """Print it; raise where the cluster, the source or a node could not be asked: what the others told is shown first."""
    with Interruption(), before_any_change():
        if held is not None and settings.images.way.target != "nodes":
            raise _no_runtimes()
        written = ""
        connections = Connections.open(settings, patience=PATIENCE)
        seen = _look(connections)
        wanted, error = _wanted(connections, seen.inventory, wish)
        # A node that could not be asked would be thought to hold everything.
        if held is not None and not _failed(seen):
            _write_held(settings, seen, held)
            written = f"Written: {held}"
        error = error or refusal(_failed(seen) | dict(wanted.failed if wanted else {}))
        if output is Format.JSON:
            value = _value(seen) | _wanted_value(wish, wanted)
            if error is not None:
                raise DocumentedError(error, value)
            print(json.dumps(value, indent=2))
        else:
            _print(seen)
            if wish and wanted:
                _print_survey(wish, wanted)
            if written:
                console().print(written, markup=False)
            if error is not None:
                raise error
        sys.stdout.flush()


def _wanted(
    connections: Connections, inventory: Inventory, wish: PlanRequest | None
) -> tuple[Survey | None, UpgradeError | None]:
    """What the wish would have to bring, or why that cannot be told: the nodes' part of the answer stands anyway."""
    try:
        with before_any_change():
            return (_survey(connections, inventory, wish) if wish else None), None
    except UpgradeError as error:
        return None, error


def _wanted_value(wish: PlanRequest | None, wanted: Survey | None) -> dict[str, Any]:
    return {"to": {"version": wish.to.text, **survey_value(wanted)}} if wish and wanted else {}


def _look(connections: Connections) -> Seen:
    settings = connections.settings.images
    inventory = connections.inventory()
    nodes = (*all_nodes(connections), *extra_nodes(settings))
    if settings.way.target == "nodes":
        return Seen(inventory, look_at_nodes(settings, nodes), by_runtime=True)
    return Seen(inventory, tuple(NodeLook(node, reported(node)) for node in nodes), by_runtime=False)


def _survey(connections: Connections, inventory: Inventory, wish: PlanRequest) -> Survey:
    opened = Opened(connections.settings.images)
    try:
        return survey(connections, inventory, read_plan(connections, inventory, wish), opened, every=True)
    finally:
        opened.close()


def _write_held(settings: InstallationSettings, seen: Seen, path: Path) -> None:
    """What all nodes hold."""
    targets = [target_for_node(settings.images, look.node) for look in seen.looks]
    holdings = at_once(lambda target: target.look(()), targets, settings.images.parallel)
    by_name = {look.key: each for look, each in zip(seen.looks, holdings, strict=True)}
    try:
        path.write_text(HeldList.of(by_name, datetime.now(UTC)).as_json(), encoding="utf-8")
    except OSError as error:
        raise UpgradeError(
            f"The list of what the nodes hold could not be written to {path}.",
            observed=error.strerror or type(error).__name__,
            next="Name a file that this user may write with --held.",
        ) from None


def _failed(seen: Seen) -> dict[str, UpgradeError]:
    return {look.key: look.error for look in seen.looks if look.error is not None}


def _ours(seen: Seen, look: NodeLook) -> list[HeldImage]:
    repositories = repositories_of(seen.inventory)
    return [image for image in look.images if is_ours(image, repositories)]


def _rows(seen: Seen) -> list[tuple[str, Any, str]]:
    repositories = repositories_of(seen.inventory)
    rows: list[tuple[str, Any, str]] = []
    for look in seen.looks:
        if look.error is not None:
            rows.append((look.key, None, f"could not be asked: {look.error.happened}"))
            continue
        found = releases(look.images, repositories, pins=seen.by_runtime and _tells_pins(look))
        rows += [(look.key, release, "") for release in found]
        if not found:
            rows.append((look.key, None, "no image of a component"))
    return rows


def _tells_pins(look: NodeLook) -> bool:
    """Docker knows no pinning."""
    return look.node.engine != "docker"


def _print(seen: Seen) -> None:
    console().print(releases_table(_rows(seen)))
    parted = [look.key for look in seen.looks if not all(image.complete for image in _ours(seen, look))]
    if seen.by_runtime and parted:
        print(f"Note: COMPLETE no, on {', '.join(parted)}: {PARTED}", file=sys.stderr)
    if not seen.by_runtime:
        partial = [look.key for look in seen.looks if not look.node.lists_all]
        told = f" {', '.join(partial)} may hold more: a kubelet reports 50 at most." if partial else ""
        print(f"Note: as the kubelets report; with a way to nodes each node's runtime is asked.{told}", file=sys.stderr)


def _print_survey(wish: PlanRequest, wanted: Survey) -> None:
    screen = console()
    if wanted.looks or wanted.failed:
        screen.print(f"\nWhat {wish.to} has to bring:")
    else:
        screen.print(f"\nFor {wish.to} nothing is to be sent: the nodes pull the images by themselves.")
    screen.print(survey_view(wanted))


def _value(seen: Seen) -> dict[str, Any]:
    repositories = repositories_of(seen.inventory)
    return {
        "told_by": "runtime" if seen.by_runtime else "kubelet",
        "nodes": [_node_value(look, repositories, seen.by_runtime) for look in seen.looks],
    }


def _node_value(look: NodeLook, repositories: frozenset[str], by_runtime: bool) -> dict[str, Any]:
    pins = by_runtime and _tells_pins(look)
    return {
        "node": look.node.name,
        "cluster": look.node.cluster,
        "platform": look.node.platform,
        "runtime": look.node.runtime,
        "ready": look.node.ready,
        "lists_all": by_runtime or look.node.lists_all,
        "error": look.error.as_json() if look.error else None,
        "releases": [
            {
                "version": str(each.version),
                "repositories": list(each.repositories),
                "size": each.size,
                "complete": each.complete,
                "pinned": each.pinned,
            }
            for each in releases(look.images, repositories, pins=pins)
        ],
        "images": [
            {
                "names": list(image.names),
                "digest": image.digest,
                "size": image.size,
                "complete": image.complete,
                "pinned": image.pinned if pins else None,
            }
            for image in look.images
            if is_ours(image, repositories)
        ],
    }


def _no_runtimes() -> UsageError:
    return UsageError(
        "--held asks each node's runtime, so it needs a way to nodes.",
        observed="What kubelets report names images and no layers.",
        next="Add --way docker-to-nodes (or another to nodes) and how the nodes are reached.",
    )
