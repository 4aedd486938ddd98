"""What can be said before an upgrade whose nodes pull the images by themselves.  Pure.

A kubelet reports at most 50 images: a presence proves, an absence only where it reports fewer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.domain.finding import Finding, blocking, warning
from tasks.domain.placement import NodeFacts
from tasks.domain.reference import ImageReference
from tasks.images.demand import Demand
from tasks.images.reported import digests_of


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
    known = demand.nodes_known
    return tuple(p.name for p in presences(demand) if p.lacking or p.unknown or not p.there or not known)


def judge(demand: Demand, answers: Mapping[str, bool | None]) -> tuple[Finding, ...]:
    """The findings; `answers` says for the names of `to_ask` whether their registry holds them, None if it did not say.

    What a registry does not hold blocks the run where a node lacks it, and where no node reports it: that one may hold
    it all the same is no proof.  What nobody could say is a warning: the nodes may reach what this machine cannot.
    """
    missing = [p for p in presences(demand) if answers.get(p.name) is False]
    silent = [p for p in presences(demand) if p.name in answers and answers[p.name] is None]
    surely = [p for p in missing if p.lacking or not p.there]
    perhaps = [p for p in missing if p not in surely]
    return (*_blocked(surely), *_doubtful(perhaps), *_unasked(silent), *_different(demand), *_imported(demand))


def _blocked(found: Sequence[Presence]) -> Iterator[Finding]:
    for image in found:
        yield blocking(
            "image-missing",
            f"{image.name} is not in its registry, and "
            + (f"{_nodes(image.lacking)} no such image." if image.lacking else "no node reports it."),
            "Bring it there first, by a way that moves images: apinizer-upgrade images stage --way …; or name the right "
            "registry with --image-prefix.",
        )


def _doubtful(found: Sequence[Presence]) -> Iterator[Finding]:
    for image in found:
        yield warning(
            "image-unproved",
            f"{image.name} is not in its registry; {', '.join(image.there)} reports it, and whether {', '.join(image.unknown) or 'every node'} has it "
            "is not known.",
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


def _different(demand: Demand) -> Iterator[Finding]:
    """Images whose digest on one node is none of another's: a tag that moved leads to both.

    Only a warning: an image that was imported may have another manifest than the same one pulled.
    """
    for wish in demand.wishes:
        reports = [(p.key, digests_of(wish.name, p.node)) for p in demand.places if wish.name in p.images]
        told = [(key, digests) for key, digests in reports if digests]
        if told and not frozenset.intersection(*(digests for _, digests in told)):
            which = "; ".join(f"{key}: {', '.join(sorted(digests))}" for key, digests in told)
            yield warning(
                "image-differs",
                f"The nodes have {wish.name} with different digests ({which}): the tag may stand for several images.",
                "Find out which one is meant. A way that moves images brings one to all and proves it: apinizer-upgrade "
                "images stage --way ….",
            )


def _imported(demand: Demand) -> Iterator[Finding]:
    """Images that a node did not pull under the name that its pods will run: nobody can tell which they are."""
    nodes: dict[str, list[str]] = {}
    for wish in demand.wishes:
        for place in demand.places:
            if wish.name in place.images and digests_of(wish.name, place.node) == frozenset():
                nodes.setdefault(wish.name, []).append(place.key)
    if nodes:
        yield warning(
            "image-imported",
            "No registry's digest is reported of "
            + "; ".join(f"{name} on {', '.join(keys)}" for name, keys in nodes.items())
            + ": it was imported or tagged there, and its pods run it whatever it is.",
            "A way that moves images proves what each node holds: apinizer-upgrade images stage --way ….",
        )
