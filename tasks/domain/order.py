"""Which steps follow which, after the manager.  Pure."""

from collections.abc import Iterable, Sequence

from tasks.domain.component import OF_ENVIRONMENT, Component
from tasks.domain.errors import UsageError
from tasks.domain.inventory import DeploymentFacts, Inventory
from tasks.domain.step import RolloutStep

Stages = list[tuple[str, tuple[RolloutStep, ...]]]


def environment_order(
    inventory: Inventory, wanted: Sequence[str], known: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """The environments as (cluster, namespace) in the order they are taken.

    Those of this run come first, as named (`prod`, or `cluster/prod`), then those of the installation's settings
    as far as they are seen.  The rest follow with the fewest worker pods first, so that the smallest environment
    meets a bad release before the largest does.
    Raise `UsageError` for a name that no cluster shows: a typo would change the order silently.
    """
    found = {(d.key.cluster, d.key.namespace) for d in inventory.deployments if d.environment}
    ordered: list[tuple[str, str]] = []
    for name in wanted:
        matching = sorted(e for e in found if name in (e[1], f"{e[0]}/{e[1]}"))
        if not matching:
            raise UsageError(
                f"There is no environment {name!r}.",
                observed=f"Environments with a worker or a cache: {_shown(found) or 'none'}.",
                next="Name environments by their namespace, in the order in which they are to be upgraded.",
            )
        ordered += [e for e in matching if e not in ordered]
    for name in known:
        ordered += [e for e in sorted(found) if name in (e[1], f"{e[0]}/{e[1]}") and e not in ordered]
    rest = sorted(found - set(ordered), key=lambda e: (_worker_pods(inventory.deployments, e), e))
    return (*ordered, *rest)


def _shown(found: Iterable[tuple[str, str]]) -> str:
    """Their names as they may be given: with the cluster where there are several."""
    environments = sorted(found)
    several = len({cluster for cluster, _ in environments}) > 1
    return ", ".join(f"{cluster}/{name}" if several else name for cluster, name in environments)


def _worker_pods(deployments: Iterable[DeploymentFacts], environment: tuple[str, str]) -> int:
    return sum(
        d.replicas
        for d in deployments
        if d.component is Component.WORKER and (d.key.cluster, d.key.namespace) == environment
    )


def _of_environment(step: RolloutStep) -> bool:
    return step.serves and step.component in OF_ENVIRONMENT


def stages_of(
    steps: Sequence[RolloutStep],
    inventory: Inventory,
    wanted: Sequence[str],
    *,
    known: Sequence[str] = (),
    together: bool = False,
) -> Stages:
    """The stages after the manager, without empty ones."""
    order = environment_order(inventory, wanted, known)
    others = [s for s in steps if not s.is_manager]
    if together:
        return [("all components together", tuple(others))] if others else []
    several = len({cluster for cluster, _ in order}) > 1
    stages: Stages = [
        (
            f"environment {cluster}/{namespace}" if several else f"environment {namespace}",
            tuple(s for s in others if _of_environment(s) and (s.key.cluster, s.key.namespace) == (cluster, namespace)),
        )
        for cluster, namespace in order
    ]
    stages.append(("portal and integration", tuple(s for s in others if not _of_environment(s))))
    return [(title, found) for title, found in stages if found]


def lanes(steps: Sequence[RolloutStep], parallel: int) -> list[tuple[RolloutStep, ...]]:
    """At most `parallel` chains: each step waits for the one before it in its chain, so no more run at once."""
    return [tuple(steps[first::parallel]) for first in range(min(parallel, len(steps)))]
