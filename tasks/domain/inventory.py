"""What an installation is made of, as it was found: immutable facts, read once, judged elsewhere."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict

from tasks.domain.component import OF_ENVIRONMENT, Component
from tasks.domain.reference import ImageReference
from tasks.domain.version import Version


class Facts(BaseModel):
    """An immutable value without room for a misspelt field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DeploymentKey(Facts):
    """Where a Deployment is: the cluster's name in the installation, its namespace, its own name."""

    cluster: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f" in {self.cluster}" if self.cluster else "")


class ComponentContainer(Facts):
    """One container (or init container) that runs an Apinizer image.

    `image` is the text of the pod template; `ports` are the TCP ports that the container declares;
    `named` is true where the operator's override says what it is.
    """

    name: str
    init: bool
    component: Component
    image: str
    ports: tuple[int, ...] = ()
    named: bool = False

    @property
    def reference(self) -> ImageReference:
        """The image, parsed (it was parsed once when it was found, so this cannot fail)."""
        return ImageReference.parse(self.image)

    @property
    def version(self) -> Version | None:
        """The version that the tag names, or None (`latest`, a digest alone)."""
        return Version.find(self.reference.tag)


class DeploymentFacts(Facts):
    """A Deployment with at least one Apinizer container, as one read of it showed it.

    `replicas` is what the spec asks for; `ready`, `updated` and `available` are its status' counts.
    `kept_by` names what else writes this object ("Helm release apinizer", "Argo CD", "Flux"), or "".
    `settled` is true when the status shows the present spec rolled out whole.
    """

    key: DeploymentKey
    uid: str
    resource_version: str
    containers: tuple[ComponentContainer, ...]
    replicas: int
    ready: int = 0
    updated: int = 0
    available: int = 0
    strategy: str = "RollingUpdate"
    paused: bool = False
    settled: bool = True
    kept_by: str = ""
    selector: str = ""

    @property
    def main(self) -> ComponentContainer:
        """The container that makes this Deployment what it is: a manager wherever it stands, because it must come
        first; else the first that is no init container.
        """
        regular = [c for c in self.containers if not c.init] or self.containers
        return next((c for c in regular if c.component is Component.MANAGER), regular[0])

    @property
    def component(self) -> Component:
        """What this Deployment is."""
        return self.main.component

    @property
    def serves(self) -> bool:
        """Whether a component runs in it; False where an image of one only initialises pods of something else.

        Its image is upgraded with the others, at the end; no version can be asked of it.
        """
        return any(not c.init for c in self.containers)

    @property
    def environment(self) -> str:
        """The environment it serves (its namespace), or "" for what serves all."""
        return self.key.namespace if self.serves and self.component in OF_ENVIRONMENT else ""

    @property
    def version(self) -> Version | None:
        """The version of its main container."""
        return self.main.version


class Inventory(Facts):
    """Everything of one installation, in all its clusters.

    `unseen` holds sentences about what could not be looked at: a namespace that is forbidden, an environment
    that the operator or the database names and no cluster shows.
    """

    deployments: tuple[DeploymentFacts, ...]
    unseen: tuple[str, ...] = ()

    def of(self, component: Component) -> tuple[DeploymentFacts, ...]:
        """The Deployments in which a component runs."""
        return tuple(d for d in self.deployments if d.serves and d.component is component)

    @property
    def environments(self) -> tuple[str, ...]:
        """Names of the environments found, sorted."""
        return tuple(sorted({d.environment for d in self.deployments if d.environment}))

    @property
    def manager(self) -> DeploymentFacts | None:
        """The manager where there is exactly one; more than one is for the plan to refuse."""
        found = self.of(Component.MANAGER)
        return found[0] if len(found) == 1 else None


def sorted_deployments(found: Iterable[DeploymentFacts]) -> tuple[DeploymentFacts, ...]:
    """In the order people read: by component as the procedure has them, then cluster, namespace, name."""
    order = list(Component)
    return tuple(sorted(found, key=lambda d: (order.index(d.component), d.key.cluster, d.key.namespace, d.key.name)))
