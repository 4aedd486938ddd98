"""What the nodes themselves say they hold, for questions that no registry can be asked in a closed site."""

from collections.abc import Iterable

from tasks.cluster.api import KubernetesApi
from tasks.domain.discovery import JsonObject
from tasks.domain.errors import ForbiddenError
from tasks.domain.reference import ImageReference


def repositories_with(nodes: Iterable[JsonObject], candidates: Iterable[str], tag: str) -> dict[str, bool]:
    """Which of the repositories (last path parts) any node holds with `tag`.  Pure.

    A kubelet reports at most 50 images (`nodeStatusMaxImages`), so only a presence is said, never an absence.
    """
    held = set()
    for node in nodes:
        for image in (node.get("status") or {}).get("images") or ():
            for name in image.get("names") or ():
                reference = ImageReference.find(name)
                if reference and reference.tag == tag and "apinizer" in reference.prefix:
                    held.add(reference.repository)
    return {name: True for name in candidates if name in held}


def held_on_nodes(api: KubernetesApi, candidates: Iterable[str], tag: str) -> dict[str, bool]:
    """The same, asked of the cluster; empty where nodes may not be listed."""
    try:
        return repositories_with(api.list("/api/v1/nodes").items, candidates, tag)
    except ForbiddenError:
        return {}
