"""One component alone back to another version: only to the one that its database accepts.  Pure.

The manager migrates the database forward and never back, and every other component reads the schema of its own
version (the vendor's published procedure): so the one version that the database accepts is what the running manager
answers.
"""

from collections.abc import Mapping, Sequence

from tasks.domain.component import Component
from tasks.domain.errors import BlockedError, UsageError
from tasks.domain.finding import Finding
from tasks.domain.inventory import DeploymentFacts, Facts, Inventory
from tasks.domain.journal import Journal
from tasks.domain.plan import Plan, PlanRequest, Stage, step_of, wanted_images
from tasks.domain.reference import ImageReference
from tasks.domain.risk import risks
from tasks.domain.step import ImageChange, RolloutStep
from tasks.domain.version import Version

_ALIKE = frozenset({"paused", "kept-by", "scaled-to-zero", "interruption", "image-unrecognisable", "not-seen"})
"""Findings of a plan that concern one Deployment."""


class Undo(Facts):
    """The one step, and the plan that holds nothing else, for what brings its images and proves it.

    `recorded` is the run whose journal knew the images, "" where their names follow from the version.
    """

    step: RolloutStep
    plan: Plan
    recorded: str = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.plan.findings


def undo_step(
    inventory: Inventory,
    what: str,
    request: PlanRequest,
    *,
    running: Version | None,
    held: Mapping[str, bool] = {},
    journals: Sequence[Journal] = (),
) -> Undo:
    """The step that takes `what` (NAMESPACE/NAME, or a component that one Deployment alone is) to `request.to`.

    `running` is what the running manager answers, None where it does not.  The images are those that a journal
    recorded for that version, else what the version and the request make of the present ones; `held` as for a plan.
    Raise `UsageError` for a name that is none or several, `BlockedError` for a version that is not the database's.
    """
    deployment = find_deployment(inventory, what)
    require_accepted(deployment, request.to, running, inventory)
    plain = step_of(deployment, request, wanted_images(request, held))
    run, known = _recorded(deployment, request.to, journals)
    changes = [c.model_copy(update={"new": known.get(c.container, c.new)}) for c in plain.changes]
    unclear = [c for c in changes if c.container not in known and _unclear(deployment, c, request, held)]
    if unclear:
        raise UsageError(
            f"The repository of the {deployment.component} at {request.to} is not known.",
            observed="The published sources disagree about its name, and no run recorded it.",
            next=f"Look which one your registry holds and say --repository {deployment.component}=NAME.",
        )
    step = plain.model_copy(update={"changes": tuple(c for c in changes if c.old != c.new)})
    found = risks(inventory, request.to, running, (step,), ())
    return Undo(
        step=step,
        plan=Plan(
            to=request.to,
            current=deployment.version,
            manager=None,
            stages=(Stage(title=str(deployment.key), steps=(step,)),),
            findings=tuple(finding for finding in found if finding.code in _ALIKE),
        ),
        recorded=run,
    )


def find_deployment(inventory: Inventory, what: str) -> DeploymentFacts:
    """The one Deployment that is meant; raise `UsageError` where there is none, or several."""
    named = [d for d in inventory.deployments if what in (str(d.key), f"{d.key.namespace}/{d.key.name}")]
    found = named or [d for d in inventory.deployments if d.serves and d.component.value == what]
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{what} means several Deployments." if found else f"There is no Deployment {what}.",
        observed=", ".join(str(d.key) for d in found or inventory.deployments),
        next="Name one of them, as NAMESPACE/NAME.",
    )


def require_accepted(deployment: DeploymentFacts, to: Version, running: Version | None, inventory: Inventory) -> None:
    """Raise `BlockedError` where the database does not accept `to` for the Deployment alone."""
    key, component = deployment.key, deployment.component
    if any(c.component is Component.MANAGER for c in deployment.containers):
        raise BlockedError(
            f"The manager {key} cannot go back alone: it migrated the database forward, and never back.",
            observed=f"It runs {deployment.main.image}.",
            next="apinizer-upgrade rollback puts the database back as it was before, then every image.",
        )
    if running is None:
        manager = inventory.manager
        raise BlockedError(
            f"Which version the database accepts is not known, so {key} is left as it is.",
            observed=f"The manager {manager.key} does not answer with its version."
            if manager
            else "There is no one manager.",
            next="See that the manager is Ready (apinizer-upgrade status), then try again. If it fails itself, the way "
            "back is apinizer-upgrade rollback.",
        )
    if to < running:
        raise BlockedError(
            f"{key} cannot go back to {to} alone: the database is at {running}.",
            observed=f"The manager answers {running} and has migrated the database to it; a {component} of {to} reads "
            "a schema that is not its own.",
            next=f"Mend what keeps {running} from starting (apinizer-upgrade status), or go back with everything: "
            "apinizer-upgrade rollback.",
        )
    if to > running:
        raise BlockedError(
            f"{key} cannot go to {to} alone: the database is at {running}.",
            observed=f"The manager answers {running}, and has to be the first at {to}, because it migrates the database.",
            next=f"apinizer-upgrade upgrade --to {to} takes all of them there.",
        )


def _recorded(deployment: DeploymentFacts, to: Version, journals: Sequence[Journal]) -> tuple[str, dict[str, str]]:
    """The newest run that knows images of that version for the Deployment, and those by container."""
    for journal in sorted(journals, key=lambda j: j.begun, reverse=True):
        for entry in reversed(journal.entries):
            if entry.key != deployment.key or entry.kind != "set-image" or entry.unmade:
                continue
            for images in (entry.images, entry.before.images if entry.before else {}):
                mine = {c.name: images[c.name] for c in deployment.containers if c.name in images}
                known = {name: image for name, image in mine.items() if _version(image) == to}
                if deployment.main.name in known:
                    return journal.id, known
    return "", {}


def _version(image: str) -> Version | None:
    reference = ImageReference.find(image)
    return Version.find(reference.tag) if reference else None


def _unclear(deployment: DeploymentFacts, change: ImageChange, request: PlanRequest, held: Mapping[str, bool]) -> bool:
    component = next(c.component for c in deployment.containers if c.name == change.container)
    return wanted_images(request, held)[component] is None
