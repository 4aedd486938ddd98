"""Journals as upgrades and rollbacks write them, from the few words that a case gives."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.domain.inventory import DeploymentFacts, DeploymentKey, Inventory
from tasks.domain.journal import BackupMade, Before, Entry, Journal
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version

BEGUN = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
MANAGER = DeploymentKey(cluster="", namespace="apinizer", name="m")


def before_of(facts: DeploymentFacts, **changes: Any) -> Before:
    found = Before(
        uid=facts.uid,
        generation=2,
        replicas=facts.replicas,
        strategy=facts.strategy,
        images={c.name: c.image for c in facts.containers},
        init=tuple(c.name for c in facts.containers if c.init),
    )
    return found.model_copy(update=changes)


def image_entry(facts: DeploymentFacts, images: Mapping[str, str], /, **changes: Any) -> Entry:
    """The entry of a set-image; `changes` are of what was found before it."""
    return Entry(
        kind="set-image",
        subject=str(facts.key),
        key=facts.key,
        component=facts.component,
        will=f"set {', '.join(images.values())}",
        undo="kubectl set image",
        before=before_of(facts, **changes),
        images=images,
        begun=BEGUN + timedelta(minutes=5),
        done=BEGUN + timedelta(minutes=6),
    )


def scale_entry(facts: DeploymentFacts, had: int) -> Entry:
    """The entry of a scale to zero of what had that many pods."""
    return Entry(
        kind="scale",
        subject=str(facts.key),
        key=facts.key,
        will="scale to 0",
        undo="kubectl scale",
        before=before_of(facts, replicas=had),
        replicas=0,
        begun=BEGUN + timedelta(hours=1),
        done=BEGUN + timedelta(hours=1),
    )


def backup_made(**changes: Any) -> BackupMade:
    made = BackupMade(
        host="ops",
        archive="/backups/apinizer-backup--2025.04.3--2026-11-20--01.archive",
        sha256="ab" * 32,
        documents=1000,
        database="apinizerdb",
        hosts=("db-0:25080", "db-1:25080"),
        version="2025.04.3",
        made=BEGUN,
    )
    return made.model_copy(update=changes)


def upgrade_journal(entries: tuple[Entry, ...] = (), /, **changes: Any) -> Journal:
    journal = Journal(
        id="20261120-100000-aaaa",
        kind="upgrade",
        manager=MANAGER,
        current=Version("2025.04.3"),
        to=Version("2025.07.0"),
        request=PlanRequest(to=Version("2025.07.0")),
        begun=BEGUN,
        backup=backup_made(),
        entries=entries,
    )
    return journal.model_copy(update=changes)


def rollback_journal(of: Journal, entries: tuple[Entry, ...] = (), **changes: Any) -> Journal:
    journal = Journal(
        id="20261121-100000-bbbb",
        kind="rollback",
        of=of.id,
        manager=of.manager,
        current=of.to,
        to=of.current or of.to,
        begun=BEGUN + timedelta(days=1),
        entries=entries,
    )
    return journal.model_copy(update=changes)


def facts_at(inventory: Inventory, at: str) -> DeploymentFacts:
    return next(d for d in inventory.deployments if str(d.key) == at)
