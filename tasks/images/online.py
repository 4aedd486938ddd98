"""What can be said before an upgrade whose nodes pull the images by themselves.  Pure.

A kubelet reports at most 50 images: a presence proves, an absence only where it reports fewer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.domain.finding import Finding, blocking, warning
from tasks.domain.placement import NodeFacts
from tasks.domain.reference import ImageReference
from tasks.images.demand import Demand


@dataclass(frozen=True, slots=True)
class Presence:
    """An image's full name, the nodes (their names) that report it, those that lack it, those that cannot tell."""

    name: str
    there: tuple[str, ...]
    lacking: tuple[str, ...]
    unknown: tuple[str, ...]


def presences(demand: Demand) -> tuple[Presence, ...]:
    """For each image what the kubelets of the nodes that may run it report."""
    found = []
    for wish in demand.wishes:
        groups: dict[str, list[str]] = {"there": [], "lacking": [], "unknown": []}
        for place in demand.places:
            if wish.name in place.images:
                groups[_state(wish.name, place.node)].append(place.key)
        found.append(Presence(wish.name, *(tuple(groups[state]) for state in ("there", "lacking", "unknown"))))
    return tuple(found)


def _state(name: str, node: NodeFacts) -> str:
    names = (ImageReference.find(reported) for reported in node.reported)
    if any(reference is not None and reference.normal == name for reference in names):
        return "there"
    return "lacking" if node.lists_all else "unknown"


def to_ask(demand: Demand) -> tuple[str, ...]:
    """The images that not every node is known to hold: a registry has to be asked for them."""
    return tuple(p.name for p in presences(demand) if p.lacking or p.unknown or not p.there)


def judge(demand: Demand, answers: Mapping[str, bool | None]) -> tuple[Finding, ...]:
    """The findings; `answers` says for the names of `to_ask` whether their registry holds them, None if it did not say.

    What a registry does not hold and a node lacks blocks the run.  What nobody could say is a warning: the nodes may
    reach what this machine cannot.
    """
    missing = [p for p in presences(demand) if answers.get(p.name) is False]
    silent = [p for p in presences(demand) if p.name in answers and answers[p.name] is None]
    surely = [p for p in missing if p.lacking]
    perhaps = [p for p in missing if not p.lacking and (p.unknown or not demand.nodes_known)]
    return (*_blocked(surely), *_doubtful(perhaps), *_unasked(silent))


def _blocked(found: Sequence[Presence]) -> Iterator[Finding]:
    for image in found:
        yield blocking(
            "image-missing",
            f"{image.name} is not in its registry, and {_nodes(image.lacking)} no such image.",
            "Bring it there first: apinizer-upgrade images stage, or name the right registry with --image-prefix.",
        )


def _doubtful(found: Sequence[Presence]) -> Iterator[Finding]:
    for image in found:
        yield warning(
            "image-unproved",
            f"{image.name} is not in its registry; whether the nodes hold it is not known.",
            "If they do not, its pods will not start: apinizer-upgrade images stage brings it.",
        )


def _unasked(found: Sequence[Presence]) -> Iterator[Finding]:
    """One finding for all images of a registry and the same nodes."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for image in found:
        registry, _, path = image.name.partition("/")
        groups.setdefault((registry, (*image.lacking, *image.unknown)), []).append(path)
    for (registry, nodes), names in groups.items():
        where = f"{', '.join(nodes)} did not report" if nodes else "no node is known to have"
        yield warning(
            "image-unproved",
            f"{registry} could not be asked, and {where} {', '.join(names)}.",
            "The nodes must be able to pull them. Where they cannot, choose another way: apinizer-upgrade images stage.",
        )


def _nodes(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'}"
