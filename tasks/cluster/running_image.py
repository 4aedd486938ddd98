"""Which image a pod's containers run, as the kubelet reports it: a name proves nothing where a node keeps an old one.  Pure.

`status.containerStatuses[].imageID` is the image's config digest (`sha256:…`, with Docker `docker://sha256:…`) where
the image came without a registry, else a repository with the digest of the manifest that was pulled (`repo@sha256:…`);
see the CRI's `ImageStatus` and the kubelet's `convertToAPIContainerStatuses`.
"""

from collections.abc import Mapping

from tasks.cluster.answers import JsonObject
from tasks.domain.reference import ImageReference
from tasks.domain.step import RolloutStep

_SCHEMES = ("docker-pullable://", "docker://")


def expected_digests(step: RolloutStep, digests: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """By a container's name what its new image may be reported under; `digests` by the image's full name.

    A container of which nothing is known is left out.
    """
    names = {change.container: ImageReference.parse(change.new).normal for change in step.changes}
    return {container: digests[name] for container, name in names.items() if name in digests}


def runs_other(pod: JsonObject, expected: Mapping[str, frozenset[str]]) -> str:
    """ "" or which container runs another image than the one that was proved, as a sentence.

    `expected`: by the container's name the digests (config, manifest) that its image may be reported under.  A
    repository's digest that is none of them says nothing: an index and another registry have digests of their own.
    """
    status = pod.get("status") or {}
    for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        digests = expected.get(str(each.get("name")), frozenset())
        said = str(each.get("imageID") or "")
        for scheme in _SCHEMES:
            said = said.removeprefix(scheme)
        if digests and said.startswith("sha256:") and said not in digests:
            return f"container {each.get('name')} runs the image {said}, which is not the one that was proved ({', '.join(sorted(digests))})"
    return ""
