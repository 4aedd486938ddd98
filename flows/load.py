"""A bundle brought to where the images are needed: verified whole, then what is missing of it, proved there."""

from typing import Any

from prefect import flow

from blocks.image_settings import ImageSourceSettings, by_way, way_of_bundle
from blocks.installation import installation as settings_of
from flows.passage import Passage
from flows.stage import SAFE, staged
from tasks.cluster.session import session
from tasks.domain.component import Component
from tasks.domain.way import Way
from tasks.images.bundling.release import version_in
from tasks.images.bundling.steps import verify_bundle
from tasks.images.session import images_open
from tasks.images.staging import BEGUN
from tasks.images.steps import IMAGES


@flow(name="load", flow_run_name="load {bundle}", persist_result=False)
def load(
    bundle: str,
    installation: str = "default",
    way: Way | None = None,
    allowed_signers: str = "",
    repositories: dict[Component, str] = {},  # noqa: B006 - never changed; the form shows an empty mapping
) -> dict[str, Any]:
    """Verify every byte of a bundle, then bring what is missing of it to the nodes or the registry, and prove it there.

    Args:
        bundle: The path of the bundle's file on the worker's machine.
        installation: The name of the block "Apinizer installation"; it says how nodes or the registry are reached.
        way: bundle-to-nodes or bundle-to-registry; if empty, to where the installation's own way leads, or the nodes.
        allowed_signers: Whose signature it must bear, a file as ssh-keygen takes it; the installation's own if empty.
        repositories: A component's repository name at that version, where the sources disagree, e.g. {"portal": "apiportal"}.
    """
    settings = from_bundle(settings_of(installation).images, bundle, way, allowed_signers)
    with (
        session(installation),
        images_open(installation, settings),
        Passage("loading", SAFE, {IMAGES: BEGUN}) as run,
    ):
        facts = run.value(run.submit(verify_bundle, installation))
        version = version_in(facts)
        result = staged(run, installation, version, settings, repositories)
        return {**result, "bundle": facts.as_json()}


def from_bundle(
    settings: ImageSourceSettings, bundle: str, way: Way | None, allowed_signers: str
) -> ImageSourceSettings:
    """The installation's settings with the bundle as the source; raise `UsageError` for a way that does not begin so."""
    if allowed_signers:
        source = settings.source.model_copy(update={"allowed_signers": allowed_signers})
        settings = settings.model_copy(update={"source": source})
    return by_way(settings, way or way_of_bundle(settings), bundle=bundle)
