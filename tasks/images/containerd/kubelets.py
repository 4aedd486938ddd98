"""Whether a containerd is the one that a node's kubelet uses (pure).

A machine can run several: the one of a Docker engine beside that of k3s or RKE2, each with a namespace k8s.io of its
own if it is asked for one.
"""

import re

from tasks.domain.placement import NodeFacts
from tasks.images.containerd.listing import Looked

USUAL = "/run/containerd/containerd.sock"
ELSEWHERE = (
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
)
"""Where k3s and RKE2, k0s, and microk8s have their sockets."""

KUBELETS_SPACE = "k8s.io"
_SEMANTIC = re.compile(r"v?(\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?)")
_GENERIC = re.compile(r"v?(\d+(?:\.\d+)*)")


def foreign(looked: Looked, node: NodeFacts, namespace: str) -> str:
    """What speaks against it being the kubelet's, "" where nothing does.

    Both are the runtime's own words: its version, which the kubelet passes on, and the images of the namespace.  Of
    these the kubelet may report too many or too few for a while, but never ones of which none is there.
    """
    told = node.runtime.partition("://")[2] if node.engine == "containerd" else ""
    server = as_reported(looked.server)
    if told and server and told != server:
        return f"its version is {looked.server}"
    reported = {name for name in node.reported if not name.startswith("<none>")}
    if namespace == KUBELETS_SPACE and reported and reported.isdisjoint(looked.names):
        return "it holds none of the images that the kubelet reports"
    return ""


def as_reported(version: str) -> str:
    """A containerd's version in the kubelet's words, "" where it is none.

    The kubelet reads it as a semantic version, else takes the leading numbers (newRuntimeVersion in
    pkg/kubelet/kuberuntime/kuberuntime_manager.go): of Debian's 1.6.20~ds1 1.6.20 is left.
    """
    found = _SEMANTIC.fullmatch(version) or _GENERIC.match(version)
    return found[1] if found else ""
