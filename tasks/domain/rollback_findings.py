"""What forbids a way back, and what is to be read before it: from the journal and what is there now.  Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from tasks.domain.component import Component
from tasks.domain.errors import UsageError
from tasks.domain.finding import Finding, blocking, warning
from tasks.domain.inventory import ComponentContainer, DeploymentFacts, DeploymentKey, Inventory
from tasks.domain.journal import Before, Entry, Journal, planned_name
from tasks.domain.reference import ImageReference
from tasks.domain.risk import risks
from tasks.domain.step import RolloutStep
from tasks.domain.version import Version

_ALIKE = frozenset({"several-managers", "paused", "not-seen", "scaled-to-zero", "interruption"})
"""Findings that say of a way back what they say of an upgrade."""


class Former:
    """What the journal knows of one Deployment before the upgrade and of what the upgrade made of it."""

    def __init__(self, journal: Journal, key: DeploymentKey) -> None:
        self.entries: tuple[Entry, ...] = tuple(
            e for e in journal.entries if e.key == key and e.kind == "set-image" and e.before and not e.unmade
        )
        self.images: dict[str, str] = {}
        """Old images by container, of the containers that the upgrade was to change only."""
        self.known: dict[str, set[str]] = {}
        for entry in self.entries:
            old: Mapping[str, str] = entry.before.images if entry.before else {}
            for container, image in entry.images.items():
                # A later try may have found the new image there already: what the first one found counts.
                if container in old:
                    self.images.setdefault(container, old[container])
                self.known.setdefault(container, set()).add(image)

    @property
    def before(self) -> Before | None:
        """The Deployment as the first try found it."""
        return self.entries[0].before if self.entries else None


def problems_of(
    deployment: DeploymentFacts, former: Former, old: Version, *, database: bool, made_anew: str = ""
) -> Iterator[Finding]:
    """Why this Deployment cannot be taken back, or what is to be read before it is."""
    key, before = deployment.key, former.before
    if before is None:
        yield from _untouched(deployment, old, database=database)
        return
    if deployment.uid not in (before.uid, made_anew):
        yield blocking(
            "made-anew",
            f"{key} was deleted and made anew since the upgrade: what is recorded is of another Deployment.",
            ANEW if _is_manager(deployment) else _leave(key),
        )
        return
    if deployment.uid != before.uid:
        yield warning(
            "made-anew",
            f"{key} was deleted and made anew since the upgrade, and counts as the one of before: its database is put "
            "back and its recorded images are set; all else of it stays as it is now.",
        )
    now = {c.name: c for c in deployment.containers}
    for container, image in former.images.items():
        found = now.get(container)
        if found is None:
            yield blocking(
                "third-image",
                f"{key} has no container {container} with an image of Apinizer any more; it ran {image} before.",
                _put_back(deployment, former, container),
            )
        elif found.image not in {image, *former.known[container]}:
            yield blocking(
                "third-image",
                f"{key}: container {container} runs {found.image}, neither the old image {image} nor the new one.",
                _put_back(deployment, former, container),
            )
        else:
            yield from _old_image(key, found, image)
    if deployment.kept_by:
        yield warning(
            "kept-by",
            f"{key} is kept by {deployment.kept_by}: an image set here drifts from it, and a self-healing controller "
            "puts the new one back.",
            "Suspend its synchronisation during the rollback and write the old image there.",
        )


def _old_image(key: DeploymentKey, container: ComponentContainer, image: str) -> Iterator[Finding]:
    """What cannot be proved of an old image that is to be set again."""
    reference = ImageReference.parse(image)
    if container.image == image:
        return
    if reference.digest:
        yield warning(
            "by-digest",
            f"{key}: the old image {image} is pinned by its digest, so it is neither looked for on the nodes nor "
            "brought there.",
            "See that the nodes hold it or can pull it.",
        )
    elif Version.find(reference.tag) is None:
        yield warning(
            "tag-unknown",
            f"{key}: the tag of the old image {image} names no version; what it means now may be another image.",
        )


def _untouched(deployment: DeploymentFacts, old: Version, *, database: bool) -> Iterator[Finding]:
    version = max((c.version for c in deployment.containers if c.version), default=None)
    key = deployment.key
    if _is_manager(deployment):
        if database:
            yield blocking(
                "another-manager",
                f"{key} is a manager that the upgrade did not touch: it would write to the database that is put back.",
                "Limit the run to the namespaces of one installation with --namespace.",
            )
    elif database and version and version > old:
        yield blocking(
            "newer",
            f"{key} is at {version} and was not touched by the upgrade: the database of {old} is not for it.",
            _leave(key),
        )


ANEW = "If it is this installation's manager all the same, say so: --manager-made-anew."


def _is_manager(deployment: DeploymentFacts) -> bool:
    return deployment.serves and deployment.component is Component.MANAGER


def _put_back(deployment: DeploymentFacts, former: Former, container: str) -> str:
    """The manager cannot be left out: its image is put back by hand, as the upgrade set it last."""
    if not _is_manager(deployment):
        return _leave(deployment.key)
    key, image = deployment.key, [entry.images[container] for entry in former.entries if container in entry.images][-1]
    return (
        "See who changed it, and put it back as the upgrade left it: "
        f"kubectl -n {key.namespace} set image deployment/{key.name} {container}={image}"
    )


def _leave(key: DeploymentKey) -> str:
    return f"Put it back as the upgrade left it or as it was before, or leave it as it is: --without {key}."


def check_left_out(journal: Journal, inventory: Inventory, without: Collection[str]) -> None:
    known = {str(d.key) for d in inventory.deployments} | {str(e.key) for e in journal.entries if e.key}
    if str(journal.manager) in without:
        raise UsageError(
            f"The manager {journal.manager} cannot be left out of a rollback.",
            observed="The database is put back for the old manager; the new one would migrate it again.",
            next="Leave out other Deployments only.",
        )
    if strange := sorted(set(without) - known):
        raise UsageError(
            f"There is no Deployment {', '.join(strange)} to be left out.",
            observed=f"Known: {', '.join(sorted(known))}.",
            next="Write NAMESPACE/NAME.",
        )


def left_out(without: Collection[str]) -> list[Finding]:
    return [
        warning("left-out", f"{key} is left as it is: whether it works with the old database is not looked at.")
        for key in sorted(without)
    ]


def gone(journal: Journal, inventory: Inventory, without: Collection[str]) -> list[Finding]:
    there = {d.key for d in inventory.deployments}
    changed = dict.fromkeys(
        [journal.manager, *(e.key for e in journal.entries if e.key and e.kind == "set-image" and not e.unmade)]
    )
    named = {planned_name(key) for key in (*there, *changed)} | set(without)
    unchanged = [
        warning("gone", f"{name} was of the upgrade's plan, was not changed by it, and is gone: it is not made anew.")
        for name in journal.planned
        if name not in named
    ]
    return unchanged + [
        blocking(
            "gone",
            f"{key} is gone, or none of its containers runs an image of Apinizer any more.",
            "Look whether it may be seen (apinizer-upgrade status), or make it anew with the old image."
            if key == journal.manager
            else f"If it is gone for good, leave it out: --without {key}.",
        )
        for key in changed
        if key not in there and str(key) not in without
    ]


def usual(
    inventory: Inventory,
    old: Version,
    current: Version | None,
    steps: Sequence[RolloutStep],
    replicas: Mapping[DeploymentKey, int],
) -> list[Finding]:
    """What a plan says of any rollout, with the pods that there will be."""
    then = tuple(d.model_copy(update={"replicas": replicas.get(d.key, d.replicas)}) for d in inventory.deployments)
    found = risks(inventory.model_copy(update={"deployments": then}), old, current, steps, ())
    return [finding for finding in found if finding.code in _ALIKE]
