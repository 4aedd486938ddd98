"""One step of a rollout, in numbers and names: what a set-image will change and wait for."""

from tasks.domain.component import Component
from tasks.domain.inventory import DeploymentKey, Facts


class ImageChange(Facts):
    """One container's image, before and after, as texts of the pod template."""

    container: str
    init: bool = False
    old: str
    new: str


class RolloutStep(Facts):
    """The change of one Deployment.

    `uid` and `resource_version` are of the object that was judged when the plan was made; `changes` may be empty
    where the images are already the wanted ones (then only the wait is left).  `serves` is False where the images
    only initialise pods of something else.
    """

    key: DeploymentKey
    uid: str
    resource_version: str
    component: Component
    changes: tuple[ImageChange, ...]
    replicas: int
    interrupts: bool = False
    serves: bool = True
    asked: str = ""

    @property
    def is_manager(self) -> bool:
        """Whether a manager runs in it, so that it comes before all others."""
        return self.serves and self.component is Component.MANAGER

    @property
    def container(self) -> str:
        """The container that is asked for its version: the Deployment's main one."""
        return self.asked or next((change.container for change in self.changes if not change.init), "")

    @property
    def images(self) -> tuple[str, ...]:
        """The images that the pods will run after the step."""
        return tuple(change.new for change in self.changes)
