"""`images prune`: what goes and why the rest stays, the question, the removal.  Needs no Prefect."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.text import Text

from blocks.settings import InstallationSettings
from deployments.cli.asking import agree, attended
from deployments.cli.interruption import Interruption
from deployments.cli.options import Format
from deployments.cli.outcome import DocumentedError
from deployments.cli.tables import console, plain_table
from tasks.cluster.planning import Connections
from tasks.database.catalogue import Backup, backups
from tasks.database.order import FOLDER
from tasks.domain.amounts import megabytes
from tasks.domain.errors import NOTHING_CHANGED, NotFoundError, UpgradeError, UsageError, before_any_change
from tasks.images.prune import Verdict
from tasks.images.pruning import NodeLook, Removed, all_nodes, judge, look_at_nodes, remove
from tasks.images.surveying import at_once

PATIENCE = 10.0
Verdicts = Mapping[str, tuple[Verdict, ...]]


def prune(settings: InstallationSettings, keep: int, output: Format, *, ask: bool, dry_run: bool) -> None:
    """Look, show, ask, look again, remove; raise where a node could not be asked or did not do it.

    Without a terminal to ask at it needs `ask` to be false.
    """
    if ask and not dry_run and not attended():
        raise _nobody_to_ask()
    with Interruption():
        with before_any_change():
            connections = Connections.open(settings, patience=PATIENCE)
            found = _backups(settings)
            looks, verdicts = _judged(connections, found, keep)
        screen = console(stderr=output is Format.JSON)
        _show(screen, looks, verdicts)
        going = sum(v.goes for each in verdicts.values() for v in each)
        removed: Sequence[Removed] = ()
        if going and not dry_run:
            if ask:
                _confirm(going, len([1 for each in verdicts.values() if any(v.goes for v in each)]))
            with screen.status("Removing them"):
                removed = _carry_out(connections, found, keep, verdicts)
        _end(screen, output, looks, verdicts, removed)


def _judged(
    connections: Connections, found: Sequence[Backup], keep: int
) -> tuple[tuple[NodeLook, ...], dict[str, tuple[Verdict, ...]]]:
    connections.inventory()  # raises where there is no Apinizer: then these are somebody else's nodes
    looks = look_at_nodes(connections.settings.images, all_nodes(connections))
    return looks, dict(judge(connections, looks, found, keep))


def _backups(settings: InstallationSettings) -> Sequence[Backup]:
    """The backups that a way back could begin with; no folder, no backups, unless somebody named it."""
    try:
        return backups(Path(settings.backup_dir or FOLDER))
    except NotFoundError:
        if settings.backup_dir:
            raise
        return ()


def _carry_out(connections: Connections, found: Sequence[Backup], keep: int, shown: Verdicts) -> tuple[Removed, ...]:
    """Judge anew, for a person may have taken an hour to answer, and remove what was shown and still may go."""
    looks, now = _judged(connections, found, keep)
    allowed = {node: {v.image.digest for v in each if v.goes} for node, each in shown.items()}
    agreed = {
        node: tuple(v for v in each if v.goes and v.image.digest in allowed.get(node, ())) for node, each in now.items()
    }
    nodes = [look for look in looks if agreed.get(look.key)]
    settings = connections.settings.images
    return at_once(lambda look: remove(settings, look, agreed[look.key]), nodes, settings.parallel)


def _nobody_to_ask() -> UsageError:
    return UsageError(
        "Images are not removed without being told to.",
        observed="There is no terminal to ask at.",
        next="Look at it with --dry-run, then say --yes.",
    )


def _confirm(images: int, nodes: int) -> None:
    agree(
        f"Remove {images} images from {nodes} node{'s' if nodes > 1 else ''}?",
        "No image was removed.",
        safe=NOTHING_CHANGED,
        next="Run it when you are ready; --dry-run shows it once more.",
    )


def _show(screen: Any, looks: Sequence[NodeLook], verdicts: Verdicts) -> None:
    table = plain_table("NODE", "IMAGE", "SIZE", "", "BECAUSE")
    for look in looks:
        for verdict in verdicts.get(look.key, ()):
            fate = Text("goes", style="bold yellow") if verdict.goes else Text("stays", style="dim")
            name = escape("\n".join(verdict.image.tagged))
            table.add_row(escape(look.key), name, megabytes(verdict.image.size), fate, escape(verdict.why))
    if table.row_count:
        screen.print(table)
    for look in looks:
        if look.error is not None:
            screen.print(Text(f"{look.key} could not be asked: {look.error.happened}", style="yellow"))
    if not any(v.goes for each in verdicts.values() for v in each):
        screen.print("Nothing to remove.")


def _end(
    screen: Any, output: Format, looks: Sequence[NodeLook], verdicts: Verdicts, removed: Sequence[Removed]
) -> None:
    for each in removed:
        if each.names:
            freed = f", {megabytes(each.freed)} more are free" if each.freed else ""
            screen.print(f"{each.node}: {len(each.names)} names removed{freed}.", markup=False)
    value = _value(looks, verdicts, removed)
    failed = [(r.node, r.error) for r in removed if r.error] + [(n.key, n.error) for n in looks if n.error]
    if failed:
        error = _failed(failed, changed=any(each.names for each in removed))
        raise DocumentedError(error, value) if output is Format.JSON else error
    if output is Format.JSON:
        print(json.dumps(value, indent=2))
    sys.stdout.flush()


def _failed(failed: Sequence[tuple[str, UpgradeError]], *, changed: bool) -> UpgradeError:
    nexts = dict.fromkeys(error.next for _, error in failed if error.next)
    return UpgradeError(
        f"Not every node was pruned: {', '.join(node for node, _ in failed)}.",
        observed="\n".join(f"{node}: {error.happened} {error.observed}".strip() for node, error in failed),
        safe="What was removed stays removed; nothing that is in use was." if changed else "Nothing was changed.",
        next="\n".join(nexts) or "See to it, then run the same command again: what went is left alone.",
    )


def _value(looks: Sequence[NodeLook], verdicts: Verdicts, removed: Sequence[Removed]) -> dict[str, Any]:
    done = {each.node: each for each in removed}
    return {
        "nodes": [
            {
                "node": look.node.name,
                "cluster": look.node.cluster,
                "error": look.error.as_json() if look.error else None,
                "images": [
                    {
                        "names": list(v.image.names),
                        "digest": v.image.digest,
                        "version": str(v.version) if v.version else None,
                        "size": v.image.size,
                        "goes": v.goes,
                        "because": v.why,
                    }
                    for v in verdicts.get(look.key, ())
                ],
                "removed": list(done[look.key].names) if look.key in done else [],
                "freed": done[look.key].freed if look.key in done else None,
            }
            for look in looks
        ]
    }
