"""Bundles as Prefect tasks: find a release, write it to a file, prove the file; prove one that was carried here."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from prefect import task

from tasks.domain.amounts import megabytes
from tasks.domain.component import Component
from tasks.domain.version import Version
from tasks.images.bundle import Base, BundleFacts
from tasks.images.bundling import release
from tasks.images.bundling.release import Bundled, BundleOrder
from tasks.images.model import Image
from tasks.images.session import opened_for
from tasks.record.feed import State
from tasks.record.shares import ShareTold
from tasks.record.task_rules import LOOKS, PATIENT
from tasks.record.telling import failure_told, tell

BUNDLE = "bundle"
"""The subject under which a bundle's progress is told."""

Repositories = Mapping[Component, str]


@task(name="find release", task_run_name="find release {version}", **LOOKS)
def find_release(installation: str, version: str, repositories: Repositories) -> tuple[Image, ...]:
    """What the images of the release are at the source."""
    opened = opened_for(installation)
    with failure_told(BUNDLE):
        found = release.find_release(opened, Version(version), repositories)
    tell(BUNDLE, State.RUNNING, f"{len(found)} images of {version} found at {opened.source().where}")
    return found


@task(name="find base", task_run_name="find base", **LOOKS)
def find_base(installation: str, order: BundleOrder, repositories: Repositories) -> Base | None:
    """What the site holds already."""
    with failure_told(BUNDLE):
        return release.base_of(opened_for(installation), order, repositories)


@task(name="write bundle", task_run_name="write bundle", **PATIENT)
def write_bundle(installation: str, order: BundleOrder, images: tuple[Image, ...], base: Base | None) -> str:
    """Write the file; its path."""
    bar = ShareTold(BUNDLE, "Written")
    with failure_told(BUNDLE):
        facts = release.make_bundle(
            opened_for(installation),
            order,
            images,
            base,
            datetime.now(UTC),
            lambda done, all_: bar.show(done, all_, megabytes(done)),
        )
    tell(BUNDLE, State.RUNNING, f"{megabytes(facts.size)} written, being read back")
    return facts.path


@task(name="prove bundle", task_run_name="prove bundle", **LOOKS)
def prove_bundle(installation: str, order: BundleOrder, path: str) -> Bundled:
    """Read it back whole; sign it on wish."""
    bar = ShareTold(BUNDLE, "Read back")
    with failure_told(BUNDLE):
        bundled = release.prove_bundle(
            opened_for(installation),
            order,
            Path(path),
            lambda done, all_: bar.show(done, all_, f"{megabytes(done)} read back"),
        )
    bar.complete("read back whole")
    signed = ", signed" if bundled.signature else ""
    tell(BUNDLE, State.DONE, f"{path}: {megabytes(bundled.facts.size)}, read back whole{signed}", 1.0)
    return bundled


@runtime_checkable
class Provable(Protocol):
    """A source that is proved whole before anything is taken from it."""

    def verify(self, progress: release.Progress) -> BundleFacts: ...


@task(name="verify bundle", task_run_name="verify bundle", **LOOKS)
def verify_bundle(installation: str) -> BundleFacts:
    """Prove every byte of the bundle that images are to be taken from, and its signature where signers are named."""
    source = opened_for(installation).source()
    bar = ShareTold(BUNDLE, "Verified")
    if not isinstance(source, Provable):
        raise TypeError("the way does not begin with a bundle")
    with failure_told(BUNDLE):
        facts = source.verify(
            lambda done, all_: bar.show(done, all_, f"{megabytes(done)} of {megabytes(all_)} verified")
        )
    bar.complete("verified")
    signer = f", signed by {facts.signed_by}" if facts.signed_by else ""
    # Only what is in it can be held to its digests: of another tool's archive more is not said than is so.
    proved = f"{len(facts.images)} images, every byte verified{signer}"
    if facts.unproven:
        proved = f"{len(facts.images)} images, each layer is the one that its config names{signer}. "
    tell(BUNDLE, State.DONE, proved + " ".join(facts.unproven), 1.0)
    return facts
