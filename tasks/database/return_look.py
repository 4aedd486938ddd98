"""What a rollback would do: read from the journals, the cluster and the backup's manifest, nothing changed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tasks.cluster.api import KubernetesApi
from tasks.cluster.image_change import deployment_path
from tasks.cluster.never_started import Sight
from tasks.cluster.planning import Connections
from tasks.cluster.rollout_view import uid
from tasks.cluster.running_version import ask_running_version
from tasks.cluster.watch import PATHS
from tasks.database.connection import hosts_of
from tasks.database.source import address_of
from tasks.database.way_back import find_archive, require_manifest
from tasks.domain.errors import BlockedError, DriftError
from tasks.domain.finding import Finding, Severity
from tasks.domain.inventory import DeploymentFacts, Facts, Inventory
from tasks.domain.journal import Entry, Journal
from tasks.domain.rollback import RollbackPlan, rollback_plan
from tasks.domain.rollback_allowed import require_allowed
from tasks.domain.rollback_choice import choose_rollback
from tasks.domain.rollback_restored import restored_entry
from tasks.images.demand import Demand
from tasks.images.online import presences


class WayBack(Facts):
    """The upgrade to undo, the rollback that is under way (None where one begins), and what is planned.

    `archive` is the backup's path on this machine, "" where the database has not to be put back; `generation` is the
    manager's as it is now; `without` are the Deployments that are left as they are; `made_anew` is the uid of a manager
    that counts as the one of before though it is not.
    """

    upgrade: Journal
    under_way: Journal | None = None
    inventory: Inventory
    plan: RollbackPlan
    database: str
    generation: int = 0
    without: tuple[str, ...] = ()
    made_anew: str = ""
    archive: str = ""
    warnings: tuple[Finding, ...] = ()

    @property
    def manager(self) -> DeploymentFacts:
        """The manager as it was found; `look_for_way_back` has made sure that there is one."""
        return next(d for d in self.inventory.deployments if d.key == self.upgrade.manager)

    @property
    def mark(self) -> str:
        """What a person agrees to, as a short text that is another where anything of it is: which Deployments get which
        images and how many pods, whether the database is put back and from which backup.

        What changes by itself while a manager crashes (counts of pods, versions answered) is not of it.
        """
        steps = {str(step.key): step.changes for step in (*self.plan.plan.steps, *self.plan.plan.there)}
        backup = self.upgrade.backup
        agreed = [
            self.upgrade.id,
            self.under_way.id if self.under_way else "",
            self.database,
            backup.sha256 if backup and self.touches_database else "",
            *self.without,
            *sorted(
                f"{one.key} {one.uid} {one.replicas} "
                + " ".join(f"{c.container}: {c.old} to {c.new}" for c in steps.get(str(one.key), ()))
                for one in self.plan.returns
            ),
        ]
        return hashlib.sha256("\n".join(agreed).encode()).hexdigest()[:16]

    def require_agreed(self, mark: str) -> None:
        """Raise `DriftError` where a person agreed to another plan than this one; "" where nobody was asked."""
        if mark and mark != self.mark:
            raise DriftError(
                "The way back is another than the one that was shown.",
                observed="Between the question and the lock somebody changed the installation, or a run went on.",
                next="Run it again: it shows how it is now, and asks again.",
            )

    @property
    def touches_database(self) -> bool:
        """Whether the database is still to be put back, or to be proved unchanged."""
        return self.plan.database and self.restored is None

    @property
    def others(self) -> tuple[DeploymentFacts, ...]:
        """All other Deployments that the plan knows, in which a component runs."""
        known = {each.key for each in self.plan.returns}
        return tuple(d for d in self.inventory.deployments if d.key in known and d.key != self.upgrade.manager)

    @property
    def manager_entries(self) -> tuple[Entry, ...]:
        """What the upgrade recorded of the manager."""
        return tuple(entry for entry in self.upgrade.entries if entry.key == self.upgrade.manager)

    @property
    def restored(self) -> Entry | None:
        """What the rollback under way has recorded of the database as done, where no new manager may have run since."""
        if self.under_way is None:
            return None
        stopped = [
            e for e in self.under_way.entries if e.kind == "scale" and e.key == self.upgrade.manager and e.changes
        ]
        # One that was made anew since has generations of its own.
        if any(e.before and e.before.uid != self.manager.uid for e in stopped[-1:]):
            return None
        back = self.plan.of(self.upgrade.manager)
        return restored_entry(self.under_way, at_old=back.at_old, replicas=back.now, generation=self.generation)

    @property
    def may_leave(self) -> bool:
        """Whether the database may still turn out to be unchanged: no try before this one has begun to stop the manager.

        The proof looks at the manager right before it is stopped.
        """
        return not self.restoring and (self.under_way is None or self.under_way.of_manager("scale") is None)

    @property
    def restoring(self) -> bool:
        """Whether the rollback under way has begun to put the database back and has not recorded its end."""
        entries = self.under_way.entries if self.under_way else ()
        return self.restored is None and any(e.kind == "restore" and not e.unmade for e in entries)


def look_for_way_back(
    connections: Connections,
    journals: Sequence[Journal],
    run: str,
    directory: str,
    without: Sequence[str] = (),
    *,
    manager_made_anew: bool = False,
) -> WayBack:
    """Find the upgrade that `run` means and plan the way back from it; the backup is only found, not read.

    What the rollback under way leaves as it is stays so, whatever `without` adds.  `manager_made_anew` says that the
    manager which is there is this installation's though it is another Deployment than before; the rollback under way
    remembers which one was meant.
    Raises what `choose_rollback`, `require_allowed` and `find_archive` raise, and BlockedError for a plan's findings.
    """
    upgrade, under_way = choose_rollback(journals, run)
    inventory = connections.inventory()
    manager = next((d for d in inventory.deployments if d.key == upgrade.manager), None)
    going_on = under_way.id if under_way else ""
    if manager is None:
        require_allowed(upgrade, journals, manager=None, under_way=going_on)
        raise BlockedError(
            f"The manager {upgrade.manager} is not there.",
            observed="No Deployment of that name runs a manager's image.",
            next="Bring it back as it was, then run the rollback again.",
        )
    address = address_of(connections, manager.key)
    hosts = tuple(sorted(hosts_of(address.uri.get_secret_value()).split(",")))
    anew = manager.uid if manager_made_anew else _made_anew(under_way)
    warnings = require_allowed(
        upgrade, journals, manager=manager, hosts=hosts, database=address.name, under_way=going_on, made_anew=anew
    )
    running = ask_running_version(connections.apis[manager.key.cluster], manager) if manager.ready else None
    former = [j for j in journals if j.kind == "rollback" and j.of == upgrade.id]
    left = (*without, *(_left_out(under_way, upgrade, inventory) if under_way else ()))
    plan = rollback_plan(upgrade, inventory, running=running, rollbacks=former, without=left, made_anew=anew)
    plan.require_allowed()
    found = WayBack(
        upgrade=upgrade,
        under_way=under_way,
        inventory=inventory,
        plan=plan,
        database=address.name,
        generation=int(
            connections.apis[manager.key.cluster].get(deployment_path(manager.key))["metadata"]["generation"]
        ),
        without=tuple(dict.fromkeys(left)),
        made_anew=anew,
        warnings=(*warnings, *(f for f in plan.plan.findings if f not in plan.blocked_by)),
    )
    if upgrade.backup is None or not plan.database or found.restored:
        return found
    archive = find_archive(upgrade.backup, Path(directory))
    require_manifest(archive)
    return found.model_copy(update={"archive": str(archive)})


def _made_anew(under_way: Journal | None) -> str:
    return str(under_way.options.get("made_anew", "")) if under_way else ""


def _left_out(under_way: Journal, upgrade: Journal, inventory: Inventory) -> tuple[str, ...]:
    """What the rollback was told to leave as it is, as far as it is still known."""
    known = {str(d.key) for d in inventory.deployments} | {str(e.key) for e in upgrade.entries if e.key}
    return tuple(name for name in str(under_way.options.get("without", "")).split(",") if name in known)


def read_sight(api: KubernetesApi, manager: DeploymentFacts) -> Sight:
    """The manager's Deployment, the ReplicaSets and the pods of its namespace, as they are now."""
    space = manager.key.namespace
    found = {kind: api.list(path.format(space)).items for kind, path in PATHS.items()}
    deployment = next((d for d in found["deployments"] if uid(d) == manager.uid), None)
    return Sight(deployment, tuple(found["replicasets"]), tuple(found["pods"]))


def require_none_scales_up(findings: Sequence[Finding]) -> None:
    """Raise `BlockedError` where something would start again what is stopped while the database is put back."""
    against = [finding for finding in findings if finding.severity is Severity.BLOCKING]
    if against:
        raise BlockedError(
            f"The manager would not stay stopped: {against[0].what}",
            observed="\n".join(finding.what for finding in against),
            next="\n".join(dict.fromkeys(finding.next for finding in against if finding.next)),
        )


def require_old_images(demand: Demand, findings: Sequence[Finding]) -> None:
    """Raise `BlockedError` where an image of the old version is on no node and no registry could say that it has it.

    An upgrade only warns of that: its manager is put back by pulling.  Here the database would be the old one's already.
    """
    unproved = {finding.what for finding in findings if finding.code == "image-unproved"}
    nowhere = [p.name for p in presences(demand) if not p.there and any(_path(p.name) in what for what in unproved)]
    if nowhere:
        raise BlockedError(
            "Images of the old version are nowhere to be had, as far as can be seen.",
            observed=f"No node reports them, and their registry could not be asked: {', '.join(nowhere)}.",
            next="Bring them by a way that moves images (--way, as of apinizer-upgrade images stage), or pull them on the "
            "nodes; then run it again.",
        )


def _path(name: str) -> str:
    return name.partition("/")[2]
