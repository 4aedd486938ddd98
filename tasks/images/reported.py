"""What kubelets report of an image by its name, held against what the registry gives under that name.  Pure.

A pod whose pull policy is IfNotPresent runs what its node holds under the name, whatever that is.
"""

from collections.abc import Iterator, Mapping

from tasks.domain.errors import BlockedError
from tasks.domain.finding import Finding, blocking
from tasks.domain.placement import MOST_NAMES_REPORTED, NodeFacts
from tasks.domain.reference import ImageReference
from tasks.images.demand import Demand, Place


def digests_of(name: str, node: NodeFacts) -> frozenset[str] | None:
    """The manifests' digests of the same repository that the kubelet reports for the image of this full name.

    None where it reports no image of that name, or so many names of it that digests may have been left out.  The
    set is empty where the image was imported or tagged there, and not pulled from that repository.
    """
    repository = ImageReference.parse(name).name
    for image in node.images:
        found = [ImageReference.parse(known.normal) for each in image.names if (known := ImageReference.find(each))]
        if any(str(reference) == name for reference in found):
            digests = frozenset(each.digest for each in found if each.digest and each.name == repository)
            return digests if digests or len(image.names) < MOST_NAMES_REPORTED else None
    return None


def unreported(demand: Demand) -> frozenset[str]:
    """The full names that a node which is to hold them, and whose kubelet reports all that it has, does not report."""
    lacking: set[str] = set()
    for place in (place for place in demand.places if place.node.lists_all):
        known = (ImageReference.find(name) for name in place.node.reported)
        lacking |= set(place.images) - {reference.normal for reference in known if reference}
    return frozenset(lacking)


def doubtful(demand: Demand, manifests: Mapping[str, str]) -> Iterator[tuple[Place, str]]:
    """Places and full names that a node reports with another digest than the registry has for it, or with none.

    `manifests` are the digests that a pull of each full name would record, an index's where the tag names one.
    """
    for place in demand.places:
        for name in place.images:
            digests = digests_of(name, place.node) if name in manifests else None
            if digests is not None and manifests[name] not in digests:
                yield place, name


def held_otherwise(
    demand: Demand, manifests: Mapping[str, str], same: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[Finding]:
    """What is `doubtful` but for `same`: keys of places and full names that are the registry's image all the same."""
    for place, name in doubtful(demand, manifests):
        if (place.key, name) not in same:
            digests = digests_of(name, place.node) or ()
            has = ", ".join(sorted(digests)) or "no digest of that registry: it was imported or tagged there"
            yield blocking(
                "node-holds-other",
                f"{place.key} holds an image under the name {name} already, and its pods would run that one "
                f"({has}; the registry has {manifests[name]}).",
                f"Remove it on {place.key}, and wait a minute until its kubelet no longer reports it: "
                f"{_removal(place.node)} {name}. If it is the same image that was imported there, an upgrade proves it where "
                "ssh leads to the node (--ssh-user, --ssh-key, --node). Or choose a way to the nodes.",
            )


def require_none_held_otherwise(
    demand: Demand, manifests: Mapping[str, str], same: frozenset[tuple[str, str]] = frozenset()
) -> None:
    """Raise `BlockedError` where a pod would run another image than the one that the registry has."""
    found = tuple(held_otherwise(demand, manifests, same))
    if found:
        raise BlockedError(
            found[0].what if len(found) == 1 else "Nodes hold other images under the names that their pods will run.",
            observed="\n".join(finding.what for finding in found),
            safe="No component was changed.",
            next="\n".join(dict.fromkeys(finding.next for finding in found)),
        )


def _removal(node: NodeFacts) -> str:
    return "docker rmi" if node.engine == "docker" else "ctr -n k8s.io images rm"
