"""All parts of one simulated cluster, put together."""

from __future__ import annotations

import asyncio

from deployments.sandbox.access import Access
from deployments.sandbox.audit import Audit
from deployments.sandbox.controllers import Controllers
from deployments.sandbox.faults import Faults, Pace
from deployments.sandbox.kubelet import Kubelet
from deployments.sandbox.listing import Lister
from deployments.sandbox.recorder import Recorder
from deployments.sandbox.replication import Replicator
from deployments.sandbox.resources import PODS
from deployments.sandbox.store import Store
from deployments.sandbox.watching import Watches
from deployments.sandbox.world import Installation, furnish
from deployments.sandbox.writing import Writer


class Cluster:
    """A control plane, its nodes and what is installed on them; lives on the running event loop."""

    def __init__(self, admin_token: str, speed: float) -> None:
        self.store = Store()
        self.faults = Faults()
        self.pace = Pace(speed)
        self.recorder = Recorder(self.store)
        self.audit = Audit()
        self.access = Access(self.store, admin_token)
        self.lister = Lister(self.store)
        self.watches = Watches(self.store, self.faults)
        self.writer = Writer(self.store, Replicator(self.store, self.recorder, self.faults, self.pace))
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, installation: Installation) -> None:
        """Put the installation there as one that runs already, then let controllers and kubelets work."""
        furnish(self.store, installation)
        self.kubelet = Kubelet(self.store, self.faults, self.pace, self.recorder)
        for pod in self.store.find(PODS):
            self.kubelet.adopt(pod)
        controllers = Controllers(self.store, self.faults, self.pace, self.recorder)
        self._tasks.append(controllers.start())
