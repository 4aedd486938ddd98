"""Everything of an upgrade's images but the upgrade: brought and proved before the maintenance window begins."""

import time
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from blocks.image_settings import ImageSourceSettings, by_way
from flows.bringing import Bringing, bring
from flows.passage import Passage
from tasks.cluster.session import session
from tasks.cluster.steps import take_inventory
from tasks.domain.component import Component
from tasks.domain.finding import Finding
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.session import images_open
from tasks.images.staging import BEGUN
from tasks.images.steps import IMAGES, find_in_the_way, plan_images

SAFE = "No component was changed."


@flow(name="stage", flow_run_name="stage {installation} for {to}", persist_result=False)
def stage(
    to: Annotated[str, Field(pattern=r"^[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}$", examples=["2025.07.0"])],
    installation: str = "default",
    way: Way | None = None,
    repositories: dict[Component, str] = {},  # noqa: B006 - never changed; the form shows an empty mapping
) -> dict[str, Any]:
    """Bring the images of a version to where an upgrade will need them, and prove them there; no component is changed.

    Args:
        to: The version whose images are wanted, as they are tagged, e.g. 2025.07.0.
        installation: The name of the block "Apinizer installation"; it says where images come from and how nodes are reached.
        way: From where to where; the installation's own way if empty.
        repositories: A component's repository name at that version, where the sources disagree, e.g. {"portal": "apiportal"}.
    """
    with session(installation) as open_session:
        settings = by_way(open_session.connections.settings.images, way)
        with images_open(installation, settings), Passage("staging", SAFE, {IMAGES: BEGUN}) as run:
            return staged(run, installation, Version(to), settings, repositories)


def staged(
    run: Passage, installation: str, to: Version, settings: ImageSourceSettings, repositories: dict[Component, str]
) -> dict[str, Any]:
    """The steps of staging, within a run that has opened the installation and its images; what was brought where."""
    request = PlanRequest(to=to, prefix=settings.wanted_prefix, repositories=repositories)
    inventory = run.submit(take_inventory, installation)
    planned = run.submit(plan_images, installation, inventory, request)
    plan = run.value(planned)
    begun = time.monotonic()
    bringing = bring(installation, inventory.result(), plan, after=[planned], keep=run.keep, every=True)
    run.finish()
    seconds = round(time.monotonic() - begun, 3)
    others: tuple[Finding, ...] = ()
    if settings.way.target == "registry" and bringing.settled:
        asked = (installation, bringing.demand, bringing.found, bringing.settled[0])
        others = run.value(run.submit(find_in_the_way, *asked))
    return {"to": str(to), "way": settings.way.value, "seconds": seconds} | result_of(bringing, others)


def result_of(bringing: Bringing, others: tuple[Finding, ...]) -> dict[str, Any]:
    """What came of it, place by place, for the run's result."""
    places = [
        {
            "place": settled.place,
            "where": settled.where,
            "images": {proof.name: proof.config for proof in settled.proofs},
            "brought": list(settled.brought),
            "sent": settled.sent,
            "pinned": settled.pinned,
        }
        for settled in bringing.results()
    ]
    return {
        "places": places,
        "sent": sum(settled.sent for settled in bringing.results()),
        "findings": [finding.model_dump(mode="json") for finding in (*bringing.noticed(), *others)],
    }
