"""Which lines a run that moves images shows as it goes."""

from blocks.settings import InstallationSettings
from deployments.cli.live import Row
from tasks.cluster.planning import Connections
from tasks.domain.inventory import Inventory
from tasks.domain.plan import Plan
from tasks.images.surveying import REGISTRY, demand_for

IMAGES = "images"


def image_rows(
    settings: InstallationSettings, connections: Connections, inventory: Inventory, plan: Plan, *, every: bool = False
) -> list[Row]:
    """A line for all, and one for each node (or the registry) that a way moves images to."""
    images = settings.images
    if not images.way.source:
        return [Row(IMAGES)]
    if images.way.target == "registry":
        return [Row(IMAGES), Row(f"{IMAGES} on {REGISTRY}")]
    places = demand_for(connections, inventory, plan, images, every=every).places
    return [Row(IMAGES), *(Row(f"{IMAGES} on {place.key}") for place in places)]
