"""A release's images in one file, for sites with no line to where images are; made where they can be had."""

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from blocks.image_settings import by_way
from blocks.installation import installation as settings_of
from flows.passage import Passage
from tasks.domain.component import Component
from tasks.domain.version import Version
from tasks.domain.way import Way
from tasks.images.bundling.release import BundleOrder
from tasks.images.bundling.steps import find_base, find_release, prove_bundle, write_bundle
from tasks.images.session import images_open

VERSION = r"^[0-9]{4}\.[0-9]{1,2}\.[0-9]{1,4}$"


@flow(name="bundle", flow_run_name="bundle {to}", persist_result=False)
def bundle(
    to: Annotated[str, Field(pattern=VERSION, examples=["2025.07.0"])],
    installation: str = "default",
    source: Literal["docker", "containerd", "registry"] | None = None,
    since: Annotated[str, Field(pattern=rf"^$|{VERSION}")] = "",
    held: str = "",
    out: str = ".",
    compress: Literal["", "zstd", "none"] = "",
    sign: str = "",
    replace: bool = False,  # noqa: FBT001, FBT002 - a field of the form
    repositories: dict[Component, str] = {},  # noqa: B006 - never changed; the form shows an empty mapping
) -> dict[str, Any]:
    """Write the images of a version into one file, read it back whole, and sign it on wish. It needs no cluster.

    Args:
        to: The version whose images are bundled, as they are tagged, e.g. 2025.07.0.
        installation: The name of the block "Apinizer installation"; it says where images are taken from.
        source: What images are taken from; that of the installation's way if empty, else a Docker engine.
        since: The version that the site runs; its layers are left out, and loading onto a site without them is refused.
        held: A file from "images status --held" on the site, instead of a version; what it lists is left out.
        out: The folder or the file to write, on the worker's machine.
        compress: zstd or none; if empty, zstd where the source's layers are not compressed already.
        sign: A private key of ssh-keygen on the worker's machine, to sign the file with; not signed if empty.
        replace: Whether a file of that name is replaced.
        repositories: A component's repository name at that version, where the sources disagree, e.g. {"portal": "apiportal"}.
    """
    settings = settings_of(installation).images
    kind = source or (settings.way.source if settings.way.source not in ("", "bundle") else "docker")
    order = BundleOrder(
        to=Version(to),
        since=Version(since) if since else None,
        held=held,
        out=out,
        compress=compress,
        sign=sign,
        replace=replace,
    )
    order.require_place()  # now, and not when everything has been found
    chosen = by_way(settings, Way(f"{kind}-to-nodes"))
    with images_open(installation, chosen), Passage("bundling", "No bundle was written.") as run:
        images = run.submit(find_release, installation, to, repositories)
        base = run.submit(find_base, installation, order, repositories)
        path = run.submit(write_bundle, installation, order, images, base)
        proved = run.submit(prove_bundle, installation, order, path)
        run.finish()
        bundled = proved.result()
        return {**bundled.facts.as_json(), "signature": bundled.signature}
