"""The plan of an upgrade: from what was found and a target to ordered steps and findings.  Pure.

The order is the procedure's: the manager alone; then, unless all others are to go together, one environment
after another; portal and integration last.  A stage begins when every step of the stage before it is Ready.
"""

from collections.abc import Mapping

from pydantic import Field

from tasks.domain.component import Component, component_of, repositories
from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, Severity, blocking
from tasks.domain.inventory import ComponentContainer, DeploymentFacts, Facts, Inventory
from tasks.domain.order import stages_of
from tasks.domain.reference import ImageReference
from tasks.domain.risk import risks
from tasks.domain.step import ImageChange, RolloutStep
from tasks.domain.version import Version


class PlanRequest(Facts):
    """What is asked for.

    `environments` is the operator's order (namespace, or cluster/namespace); those not named follow.
    `prefix` replaces registry and folder of every image (`nexus.local:5000/apinizercloud`); "" keeps each
    container's own.  `repositories` overrides a component's repository name.  `known_environments` are
    names that ought to be seen.
    """

    to: Version
    environments: tuple[str, ...] = ()
    known_environments: tuple[str, ...] = ()
    together: bool = False
    parallel: int = Field(8, ge=1)
    prefix: str = ""
    repositories: Mapping[Component, str] = Field(default_factory=dict)


class Stage(Facts):
    """Steps that may run at the same time."""

    title: str
    steps: tuple[RolloutStep, ...]


class Plan(Facts):
    """What an upgrade will do, complete before it begins.

    `manager` is None where the manager is already at the target.  `current` is the version that the running
    manager gave, else its image's.  `there` are Deployments whose images
    and status say that they are at the target already: nothing is set, and their pods are asked all the same.
    """

    to: Version
    current: Version | None
    manager: RolloutStep | None
    stages: tuple[Stage, ...]
    there: tuple[RolloutStep, ...] = ()
    findings: tuple[Finding, ...] = ()
    together: bool = False
    parallel: int = 8

    @property
    def migrates(self) -> bool:
        """Whether the manager's image changes: then it migrates the database, and a backup comes before.

        Where a former run set it already, the database may have been migrated since, and the backup of that run is
        the way back: a new one would hold the newer state.
        """
        return self.manager is not None and bool(self.manager.changes)

    @property
    def steps(self) -> tuple[RolloutStep, ...]:
        """All steps, the manager's first."""
        others = tuple(step for stage in self.stages for step in stage.steps)
        return (self.manager, *others) if self.manager else others

    @property
    def unchanged(self) -> tuple[str, ...]:
        """The names of the Deployments that are at the target already."""
        return tuple(str(step.key) for step in self.there)

    @property
    def blocked_by(self) -> tuple[Finding, ...]:
        """The findings that forbid it."""
        return tuple(f for f in self.findings if f.severity is Severity.BLOCKING)

    def require_allowed(self) -> None:
        """Raise `BlockedError` where a finding forbids the run."""
        if not self.blocked_by:
            return
        first = self.blocked_by[0]
        raise BlockedError(
            f"The upgrade to {self.to} is blocked: {first.what}",
            observed="\n".join(f"{f.code}: {f.what}" for f in self.blocked_by),
            next="\n".join(dict.fromkeys(f.next for f in self.blocked_by if f.next)),
        )


def wanted_images(request: PlanRequest, held: Mapping[str, bool]) -> dict[Component, str | None]:
    """Each component's repository at the target; None where the world left it open.

    `held` tells which of the disputed repositories (`portal`, `apiportal`) hold the tag, as far as anybody knew.
    """
    return {c: request.repositories.get(c) or settle(repositories(c, request.to), held) for c in Component}


def settle(candidates: tuple[str, ...], held: Mapping[str, bool]) -> str | None:
    """The one candidate, or the only one that holds the tag, or None."""
    if len(candidates) == 1:
        return candidates[0]
    holding = [name for name in candidates if held.get(name)]
    return holding[0] if len(holding) == 1 else None


def make_plan(inventory: Inventory, request: PlanRequest, *, held: Mapping[str, bool], running: Version | None) -> Plan:
    """The plan; `running` is what the running manager answered for its version, None where it did not."""
    names = wanted_images(request, held)
    steps, there, findings = [], [], []
    for deployment in inventory.deployments:
        undecided = _undecided(deployment, request, names)
        if undecided:
            findings += [_disputed(deployment, component, request.to, held) for component in undecided]
            continue
        step = step_of(deployment, request, names)
        if step.changes or not deployment.settled:
            steps.append(step)
        else:
            there.append(step)
    manager = inventory.manager
    current = running or (manager.version if manager else None)
    return Plan(
        to=request.to,
        current=current,
        manager=next((s for s in steps if s.is_manager), None),
        stages=tuple(
            Stage(title=title, steps=found)
            for title, found in stages_of(
                steps,
                inventory,
                request.environments,
                known=request.known_environments,
                together=request.together,
            )
        ),
        there=tuple(there),
        findings=(*findings, *risks(inventory, request.to, current, steps, request.known_environments)),
        together=request.together,
        parallel=request.parallel,
    )


def step_of(deployment: DeploymentFacts, request: PlanRequest, names: Mapping[Component, str | None]) -> RolloutStep:
    """The change of one Deployment: every Apinizer container of it that is not at the target."""
    changes = tuple(
        ImageChange(
            container=c.name, init=c.init, old=c.image, new=str(new_image(c, request, _repository(c, request, names)))
        )
        for c in deployment.containers
        if c.version != request.to
    )
    return RolloutStep(
        key=deployment.key,
        uid=deployment.uid,
        resource_version=deployment.resource_version,
        component=deployment.component,
        changes=changes,
        replicas=deployment.replicas,
        serves=deployment.serves,
        asked=deployment.main.name,
        interrupts=deployment.replicas == 1 or (deployment.strategy == "Recreate" and deployment.replicas > 0),
    )


def new_image(container: ComponentContainer, request: PlanRequest, repository: str | None) -> ImageReference:
    """The container's image at the target, behind its own prefix or the requested one.

    Raise `UsageError` where the requested prefix or repository makes no image reference.
    """
    new = container.reference.with_tag(repository or container.reference.repository, request.to.text)
    return ImageReference.parse(f"{request.prefix.rstrip('/')}/{repository}:{new.tag}" if request.prefix else str(new))


def _repository(
    container: ComponentContainer, request: PlanRequest, names: Mapping[Component, str | None]
) -> str | None:
    """The container's repository at the target; None where the world left it open.

    A name of the site's own (an override says what it is) has no part in the vendor's renames: it stays, unless the
    request names another or another registry, which holds the vendor's names.
    """
    own = container.reference.repository
    if component_of(own) is None and not request.prefix and container.component not in request.repositories:
        return own
    return names[container.component]


def _undecided(
    deployment: DeploymentFacts, request: PlanRequest, names: Mapping[Component, str | None]
) -> list[Component]:
    """The components of the Deployment that must change and whose repository nobody knows."""
    return sorted(
        {
            c.component
            for c in deployment.containers
            if c.version != request.to and _repository(c, request, names) is None
        }
    )


def _disputed(deployment: DeploymentFacts, component: Component, to: Version, held: Mapping[str, bool]) -> Finding:
    candidates = repositories(component, to)
    answers = [held.get(name) for name in candidates]
    todo = f"Look which one your registry holds and say --repository {component}=NAME."
    if all(answers):
        seen = "both hold the tag"
    elif all(answer is False for answer in answers):
        seen = "neither holds the tag"
        todo = f"Bring the images of {to} to the registry or the nodes first. If they are there, say --repository {component}=NAME."
    else:
        seen = "neither a node nor a registry could say which one holds the tag"
    return blocking(
        "repository-unknown",
        f"{deployment.key}: the image of the {component} at {to} is {' or '.join(candidates)}; the published sources "
        f"disagree, and {seen}.",
        todo,
    )
