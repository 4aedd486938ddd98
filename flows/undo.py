"""One component alone back to the version that its database accepts: what a worker or a portal that failed may do."""

from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from blocks.image_settings import by_way
from blocks.installation import installation as settings_of
from flows.bringing import bring, prove
from flows.passage import Passage
from flows.rollback import told_in_rollback
from tasks.cluster.session import session
from tasks.cluster.steps import ask_versions, change_images, take_inventory, wait_until_ready
from tasks.cluster.undo_steps import begin_undo, find_undo
from tasks.domain.component import Component
from tasks.domain.errors import NOTHING_CHANGED
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.session import images_open
from tasks.record.run_record import recorded
from tasks.record.run_steps import close_journal, own_run, take_lock


@flow(name="undo", flow_run_name="undo {deployment} to {to}", persist_result=False)
def undo(
    deployment: str,
    to: Annotated[str, Field(pattern=r"^[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}$", examples=["2025.07.0"])],
    installation: str = "default",
    repositories: dict[Component, str] = {},  # noqa: B006 - never changed; the form shows an empty one
    way: Way | None = None,
    timeout: Annotated[int, Field(ge=1)] = 600,
    run: str = "",
) -> dict[str, Any]:
    """Put one component back alone; only to the version that the running manager answers, for its database accepts no other.

    Args:
        deployment: The Deployment, as namespace/name.
        to: The version, as its images are tagged.
        installation: The name of the block "Apinizer installation".
        repositories: A component's repository name at that version, where the sources disagree.
        way: How the image comes to the nodes that lack it; the installation's own way if empty.
        timeout: Seconds that the component may take to become Ready.
        run: The ID of an undo that ended early and goes on.
    """
    settings = settings_of(installation)
    request = PlanRequest(to=Version(to), prefix=settings.images.wanted_prefix, repositories=repositories)
    with (
        session(installation),
        images_open(installation, by_way(settings.images, way)),
        recorded(installation, run=str(flow_run.id or "")) as record,
        Passage("undo", NOTHING_CHANGED, told=lambda error: told_in_rollback(record, error)) as go,
    ):
        journals = go.value(go.submit(take_lock, installation, f"undo of {deployment}", run))
        run = run or own_run(journals, str(flow_run.id or ""))
        inventory = go.value(go.submit(take_inventory, installation))
        found = go.value(go.submit(find_undo, installation, inventory, deployment, request, run))
        if found.step.changes:
            bringing = bring(installation, inventory, found.plan, after=go.last, keep=go.keep)
            prove(installation, inventory, found.plan, bringing, after=go.last, keep=go.keep)
            digests = bringing.digests()
        else:
            digests = {}
        identity = go.value(go.submit(begin_undo, installation, found, deployment, request, timeout, run))
        cause = f"apinizer-upgrade: undo to {to}, run {identity}"
        changed = go.submit(change_images, installation, found.step, cause)
        go.submit(wait_until_ready, installation, found.step, changed, timeout)
        answered = go.value(go.submit(ask_versions, installation, found.step, to, digests))
        go.submit(close_journal, installation, f"{found.step.key} alone")
        go.finish()
        return {
            "run": identity,
            "deployment": str(found.step.key),
            "to": to,
            "images": list(found.step.images),
            "answered": list(answered),
        }
