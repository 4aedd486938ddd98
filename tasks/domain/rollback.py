"""The way back from an upgrade: from its journal and what is there now to the steps that undo it.  Pure.

Downgrading is not supported by the product: the only way back is the database as it was, then the old images, the
manager first (the vendor's published procedure, section 3).  Which images those were, under which names, the journal
knows; they are not derived from a version, because names were changed in between and prefixes are the site's own.
"""

from collections.abc import Collection, Iterator, Sequence

from tasks.domain.component import Component
from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, Severity, blocking
from tasks.domain.inventory import DeploymentFacts, DeploymentKey, Facts, Inventory
from tasks.domain.journal import Journal
from tasks.domain.order import stages_of
from tasks.domain.plan import Plan, PlanRequest, Stage
from tasks.domain.reference import ImageReference
from tasks.domain.rollback_findings import Former, check_left_out, gone, left_out, problems_of, usual
from tasks.domain.step import ImageChange, RolloutStep
from tasks.domain.version import Version


class Return(Facts):
    """One Deployment at the end of the way back.

    `replicas` is the count that it is to have then, `now` the count that its spec asks for now.  `expected` is the
    version that its pods are to answer, None where its image's tag names none.  `at_old` says that its images are
    the old ones already, `touched` that the upgrade may have changed them.
    """

    key: DeploymentKey
    uid: str
    component: Component
    replicas: int
    now: int
    expected: Version | None
    at_old: bool
    touched: bool


class RollbackPlan(Facts):
    """What a rollback will do, complete before it begins.

    `plan` is its rollouts in the form of an upgrade's: `to` the old version, the manager, the stages, and what is
    only asked.  `database` says that the manager's image may have been set by the run, so that the database is put
    back unless it is proved that no container of the new manager ever started.
    """

    run: str
    manager_key: DeploymentKey
    plan: Plan
    returns: tuple[Return, ...]
    database: bool

    @property
    def to(self) -> Version:
        return self.plan.to

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.plan.findings

    @property
    def blocked_by(self) -> tuple[Finding, ...]:
        return self.plan.blocked_by

    @property
    def manager(self) -> Return | None:
        """The manager; None only where a finding says that it is not to be had."""
        return next((one for one in self.returns if one.key == self.manager_key), None)

    @property
    def replicas(self) -> dict[DeploymentKey, int]:
        """How many pods each Deployment is to have at the end."""
        return {one.key: one.replicas for one in self.returns}

    def of(self, key: DeploymentKey) -> Return:
        """What becomes of one Deployment of the plan; raise `KeyError` for one that is not of it."""
        found = next((one for one in self.returns if one.key == key), None)
        if found is None:
            raise KeyError(str(key))
        return found

    def expected(self, step: RolloutStep) -> Version | None:
        """What the pods of a step are to answer: not `to` for one that ran beside the manager at another version."""
        return self.of(step.key).expected

    def require_allowed(self) -> None:
        """Raise `BlockedError` where a finding forbids the rollback."""
        found = self.blocked_by
        if found:
            raise BlockedError(
                f"The rollback to {self.to} is blocked: {found[0].what}",
                observed="\n".join(f"{f.code}: {f.what}" for f in found),
                next="\n".join(dict.fromkeys(f.next for f in found if f.next)),
            )


def rollback_plan(
    journal: Journal,
    inventory: Inventory,
    *,
    running: Version | None = None,
    rollbacks: Sequence[Journal] = (),
    without: Collection[str] = (),
    made_anew: str = "",
) -> RollbackPlan:
    """The plan of going back from the upgrade of `journal`.

    `running` is what the manager answers for its version now, `rollbacks` are the journals of rollbacks of the run
    (the present one, where it is gone on with, and abandoned ones): they know the replicas of before.  `without` are
    Deployments, as text, that are left as they are; `made_anew` is the uid of a manager that counts as the one of before.
    Raise `UsageError` for one that is not there or is the manager, `BlockedError` where the old version is not known.
    """
    old = old_version(journal)
    check_left_out(journal, inventory, without)
    returns: list[Return] = []
    steps: list[RolloutStep] = []
    there: list[RolloutStep] = []
    findings = [*gone(journal, inventory, without), *left_out(without)]
    for deployment in inventory.deployments:
        if str(deployment.key) in without:
            continue
        former = Former(journal, deployment.key)
        problems = list(problems_of(deployment, former, old, database=journal.manager_begun, made_anew=made_anew))
        findings += problems
        if any(p.severity is Severity.BLOCKING for p in problems):
            continue
        step, back = _way_back(deployment, former, old, _replicas(deployment, journal, rollbacks))
        returns.append(back)
        through = back.at_old and deployment.settled and back.now == back.replicas
        (there if through and not (journal.manager_begun and step.is_manager) else steps).append(step)
    request = journal.request or PlanRequest(to=old)
    current = running or (inventory.manager.version if inventory.manager else None)
    findings += [
        *_beside_the_database(returns, journal, current),
        *usual(inventory, old, current, steps, {one.key: one.replicas for one in returns}),
    ]
    return RollbackPlan(
        run=journal.id,
        manager_key=journal.manager,
        plan=_plan(old, current, inventory, request, steps, there, findings),
        returns=tuple(returns),
        database=journal.manager_begun,
    )


def _plan(
    old: Version,
    current: Version | None,
    inventory: Inventory,
    request: PlanRequest,
    steps: Sequence[RolloutStep],
    there: Sequence[RolloutStep],
    findings: Sequence[Finding],
) -> Plan:
    """In the order of the upgrade; environments that it named and that are gone have their own finding."""
    shown = {name for d in inventory.deployments for name in (d.environment, f"{d.key.cluster}/{d.environment}")}
    # What is stopped meanwhile counts with the pods that it is to have: the smallest environment stays the first.
    replicas = {step.key: step.replicas for step in (*steps, *there)}
    counted = tuple(d.model_copy(update={"replicas": replicas.get(d.key, d.replicas)}) for d in inventory.deployments)
    stages = stages_of(
        steps,
        inventory.model_copy(update={"deployments": counted}),
        [name for name in request.environments if name in shown],
        known=request.known_environments,
        together=request.together,
    )
    order = list(Severity)
    return Plan(
        to=old,
        current=current,
        manager=next((s for s in steps if s.is_manager), None),
        stages=tuple(Stage(title=title, steps=found) for title, found in stages),
        there=tuple(there),
        findings=tuple(sorted(findings, key=lambda f: order.index(f.severity))),
        together=request.together,
        parallel=request.parallel,
    )


def old_version(journal: Journal) -> Version:
    """The version that the run began at; raise `BlockedError` where nothing says which it was."""
    images = Former(journal, journal.manager).images
    tags = (ImageReference.parse(image).tag for image in images.values())
    found = journal.current or next((v for tag in tags if (v := Version.find(tag))), None)
    if found is None:
        raise BlockedError(
            f"The run {journal.id} does not say which version it began at.",
            observed="Neither did the manager answer with one, nor does its old image's tag name one.",
            next=f"Go back by hand: apinizer-upgrade runs show {journal.id} has the old images and the commands.",
        )
    return found


def _way_back(deployment: DeploymentFacts, former: Former, old: Version, replicas: int) -> tuple[RolloutStep, Return]:
    images = {c.name: former.images.get(c.name, c.image) for c in deployment.containers}
    changes = tuple(
        ImageChange(container=c.name, init=c.init, old=c.image, new=images[c.name])
        for c in deployment.containers
        if c.image != images[c.name]
    )
    tagged = Version.find(ImageReference.parse(images[deployment.main.name]).tag)
    manager = deployment.serves and deployment.component is Component.MANAGER
    step = RolloutStep(
        key=deployment.key,
        uid=deployment.uid,
        resource_version=deployment.resource_version,
        component=deployment.component,
        changes=changes,
        replicas=replicas,
        serves=deployment.serves,
        asked=deployment.main.name,
        interrupts=replicas == 1 or (deployment.strategy == "Recreate" and replicas > 0),
    )
    return step, Return(
        key=deployment.key,
        uid=deployment.uid,
        component=deployment.component,
        replicas=replicas,
        now=deployment.replicas,
        # What the running manager answered before weighs more than its image's tag.
        expected=old if manager and former.before else tagged,
        at_old=not changes,
        touched=former.before is not None,
    )


def _replicas(deployment: DeploymentFacts, journal: Journal, rollbacks: Sequence[Journal]) -> int:
    """How many pods it is to have at the end.

    What the present rollback found before it first scaled it; else what its owner wants now; else, where it stands
    at zero, what an abandoned rollback took it down from.  A manager at zero gets the pods of before the upgrade:
    the published procedure has people scale it down by hand.
    """
    key = deployment.key
    mine = sorted((j for j in rollbacks if j.of == journal.id), key=lambda j: j.begun)
    # An entry of another Deployment (an edited journal, one that was made anew since) knows nothing of this one's pods.
    entries = [(j, e.before) for j in mine if (e := j.entry("scale", key)) and e.before]
    scaled = [(j, before.replicas) for j, before in entries if before.uid == deployment.uid]
    present = next((count for j, count in scaled if j.unfinished), 0)
    abandoned = next((count for j, count in reversed(scaled) if not j.unfinished and count), 0)
    found = present or deployment.replicas or abandoned
    if found or deployment.key != journal.manager:
        return found
    before = Former(journal, key).before
    return max(1, before.replicas if before else 1)


def _beside_the_database(returns: Sequence[Return], journal: Journal, current: Version | None) -> Iterator[Finding]:
    """Without the manager's own way back its database stays as it is, and takes no other version than the manager's."""
    for one in returns if not journal.manager_begun else ():
        if one.touched and not one.at_old and one.expected != current:
            yield blocking(
                "database-newer",
                f"{one.key} would go back to {one.expected or 'an unknown version'}, and the database is the manager's, "
                f"at {current or 'an unknown version'}, which the run {journal.id} did not bring there.",
                f"Go on instead: apinizer-upgrade resume {journal.id}. The way back is the rollback of the run that "
                "brought the manager there (apinizer-upgrade runs).",
            )
