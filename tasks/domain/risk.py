"""The rules that look at a plan before anything changes, each a function from facts to findings.  Pure."""

from collections.abc import Iterator, Sequence

from tasks.domain.component import Component
from tasks.domain.discovery import recognised
from tasks.domain.finding import Finding, blocking, info, warning
from tasks.domain.inventory import DeploymentFacts, Inventory
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version


def risks(
    inventory: Inventory,
    to: Version,
    current: Version | None,
    steps: Sequence[RolloutStep],
    known_environments: Sequence[str],
) -> tuple[Finding, ...]:
    """Every finding, the blocking ones first."""
    touched = _touched(inventory, steps)
    found = [
        *_manager(inventory),
        *_direction(inventory, to, current),
        *_afterwards(touched, steps),
        *_spelling(touched, inventory, to),
        *_presence(inventory, known_environments),
        *(finding for d in touched for finding in _deployment(d)),
        *_interruptions(touched),
    ]
    order = ("blocking", "warning", "info")
    return tuple(sorted(found, key=lambda f: order.index(f.severity)))


def _touched(inventory: Inventory, steps: Sequence[RolloutStep]) -> list[DeploymentFacts]:
    keys = {step.key for step in steps}
    return [d for d in inventory.deployments if d.key in keys]


def _manager(inventory: Inventory) -> Iterator[Finding]:
    managers = inventory.of(Component.MANAGER)
    if not managers:
        yield blocking(
            "no-manager",
            "No manager was found, and nothing may be updated before the manager has migrated the database.",
            "Name the manager's cluster and namespace in the configuration, or look whether you may see it: apinizer-upgrade status.",
        )
    if len(managers) > 1:
        names = ", ".join(str(d.key) for d in managers)
        yield blocking(
            "several-managers",
            f"There are {len(managers)} managers ({names}): that is more than one installation.",
            "Limit the run to the namespaces of one installation with --namespace.",
        )
    for manager in managers:
        if manager.replicas > 1:
            yield warning(
                "manager-pods",
                f"{manager.key} has {manager.replicas} pods: an old one may write while a new one migrates the database.",
                f"Run one during the upgrade: kubectl scale -n {manager.key.namespace} deployment/{manager.key.name} --replicas=1.",
            )
        if manager.replicas == 0:
            yield blocking(
                "manager-stopped",
                f"{manager.key} is scaled to zero, so no manager would migrate the database.",
                f"Start it first: kubectl scale -n {manager.key.namespace} deployment/{manager.key.name} --replicas=1.",
            )


def _direction(inventory: Inventory, to: Version, current: Version | None) -> Iterator[Finding]:
    newer = {d.key: max(found) for d in inventory.deployments if (found := [v for v in _versions(d) if v > to])}
    if current and current > to:
        yield blocking(
            "downgrade",
            f"The manager is at {current}, newer than {to}: downgrading is not supported, because the database has been migrated forward.",
            "The only way back is the database as it was before the upgrade, then the old images.",
        )
    elif newer:
        names = ", ".join(f"{key} at {version}" for key, version in newer.items())
        yield blocking(
            "downgrade",
            f"Newer than {to} already: {names}.",
            f"Upgrade to that version or a later one instead of {to}.",
        )
    if current is None and inventory.manager:
        yield blocking(
            "version-unknown",
            f"The manager's image {inventory.manager.main.image} names no version, and the running manager did not answer with one.",
            "See that the manager is Ready, or give its image the tag of its release.",
        )
    elif current and _months(to) - _months(current) > 6:
        yield warning(
            "large-step",
            f"From {current} to {to} is a large step.",
            "Take major steps one at a time and watch the manager's migration at each.",
        )
    versions = {d.version for d in inventory.deployments if d.version}
    unknown = {d.main.image for d in inventory.deployments if d.version is None}
    if len(versions) + len(unknown) > 1:
        names = ", ".join([*map(str, sorted(versions)), *sorted(unknown)])
        yield warning("mixed-versions", f"The components are at different versions: {names}.")


def _versions(d: DeploymentFacts) -> list[Version]:
    return [c.version for c in d.containers if c.version]


def _months(version: Version) -> int:
    return version.line[0] * 12 + version.line[1]


def _presence(inventory: Inventory, known_environments: Sequence[str]) -> Iterator[Finding]:
    for component in Component:
        if component is not Component.MANAGER and not inventory.of(component):
            yield info("component-missing", f"No {component} was found; it is skipped.")
    seen = {d.environment for d in inventory.deployments} | {
        f"{d.key.cluster}/{d.environment}" for d in inventory.deployments
    }
    for name in known_environments:
        if name not in seen:
            yield warning(
                "environment-unseen",
                f"The environment {name} is named, and no listed cluster shows it; it will not be upgraded.",
                "Add its cluster to the configuration, or upgrade it there before it is used with the new manager.",
            )
    for sentence in inventory.unseen:
        yield warning("not-seen", sentence)


def _deployment(d: DeploymentFacts) -> Iterator[Finding]:
    if d.paused:
        yield blocking(
            "paused",
            f"{d.key} is paused: a new image would not be rolled out.",
            f"kubectl rollout resume -n {d.key.namespace} deployment/{d.key.name}",
        )
    if d.kept_by:
        yield warning(
            "kept-by",
            f"{d.key} is kept by {d.kept_by}: an image set here drifts from it, and a self-healing controller puts the old one back.",
            "Suspend its synchronisation during the upgrade and write the new version there afterwards.",
        )
    if d.replicas == 0 and d.component is not Component.MANAGER:
        yield info("scaled-to-zero", f"{d.key} is scaled to zero: its image is set, and no pod can prove it.")
    elif d.ready < d.replicas:
        yield warning("not-ready-before", f"{d.key} has {d.ready} of {d.replicas} pods ready before the upgrade.")
    for container in d.containers:
        if container.version is None:
            yield warning("tag-unknown", f"{d.key} runs {container.image}, whose tag names no version.")


def _afterwards(touched: Sequence[DeploymentFacts], steps: Sequence[RolloutStep]) -> Iterator[Finding]:
    """Components are found by their images: one that gets an image of another name could not be found again."""
    kinds = {(d.key, c.name): c.component for d in touched for c in d.containers if not c.named}
    for step in steps:
        for change in step.changes:
            component = kinds.get((step.key, change.container))
            if component is not None and recognised(change.new) is not component:
                yield blocking(
                    "image-unrecognisable",
                    f"{step.key} would run {change.new}, which nothing marks as Apinizer's {component}: it would not be found again.",
                    "Use a folder whose name holds apinizer and the vendor's repository name, or say what it is with "
                    "an override for this container.",
                )


def _spelling(touched: Sequence[DeploymentFacts], inventory: Inventory, to: Version) -> Iterator[Finding]:
    """2026.04.1 and 2026.04.01 are one version and two tags."""
    others = {v.text for d in inventory.deployments for v in _versions(d) if v == to and v.text != to.text}
    if touched and others:
        yield warning(
            "tag-spelling",
            f"What is at {to} already has the tag {', '.join(sorted(others))}; the others would be given the tag {to}.",
            "Give the version as the tag is written in the registry.",
        )


def _interruptions(touched: Sequence[DeploymentFacts]) -> Iterator[Finding]:
    """One sentence for all: what stops before its new pods start, and what has a single pod."""
    stopping = [f"{d.key} (strategy Recreate)" for d in touched if d.strategy == "Recreate" and d.replicas]
    single = [f"{d.key} (one pod)" for d in touched if d.strategy != "Recreate" and d.replicas == 1]
    if stopping or single:
        yield info(
            "interruption", f"Their traffic may be interrupted while they are updated: {', '.join(stopping + single)}."
        )
