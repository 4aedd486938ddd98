"""The rules of proof: a target holds an image when its own runtime names the expected config; a tag must not have moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.domain.errors import DriftError, UnprovenError
from tasks.domain.finding import Finding, warning
from tasks.domain.reference import ImageReference
from tasks.images.model import Image, Proof


@dataclass(frozen=True, slots=True)
class Found:
    """What a runtime answers for a name: the config's digest, the manifest's where it has one, and whether it is pinned.

    `lacks` are digests of blobs that the image names and the runtime does not hold.
    """

    config: str
    manifest_digest: str = ""
    pinned: bool = False
    lacks: tuple[str, ...] = ()


def judge(where: str, images: Sequence[Image], found: Mapping[str, Found]) -> tuple[Proof, ...]:
    """The proofs of `images`, in order, from what the runtime answers by full name.

    Raise `UnprovenError` that lists every image which is absent, another one, or not whole.
    """
    wrong = [fault for image in images if (fault := _fault(image, found.get(image.name)))]
    if wrong:
        raise UnprovenError(
            f"{where} does not hold {'the image' if len(wrong) == 1 else f'{len(wrong)} images'} as expected.",
            observed="\n".join(wrong),
            safe="No component was changed.",
            next="Bring the images again (`apinizer-upgrade images stage`); what is there does not travel twice.",
        )
    return tuple(
        Proof(where, image.name, image.config, found[image.name].manifest_digest, found[image.name].pinned)
        for image in images
    )


def require_same(planned: Sequence[Image], now: Sequence[Image]) -> None:
    """Raise `DriftError` where a name at the target would get another image now than was planned.

    A tag may have been moved, or another of the names that it may have at the source exists by now.
    """
    was = {image.name: image for image in planned}
    moved = [
        f"{image.origin}: now {image.config}, planned {before.config}"
        + (f" from {before.origin}" if before.origin != image.origin else "")
        for image in now
        if (before := was.get(image.name, image)).config != image.config
    ]
    if moved:
        raise DriftError(
            "A tag was moved since the plan was made.",
            observed="\n".join(moved),
            safe="No component was changed.",
            next="Find out who pushed the tag anew; then plan again.",
        )


def one_for_several(found: Mapping[str, Sequence[Image]]) -> tuple[Finding, ...]:
    """Names of a release that lead to one and the same image at the source: one of them was tagged by mistake."""
    findings = []
    for images in found.values():
        names: dict[str, list[str]] = {}
        for image in images:
            names.setdefault(image.config, []).append(image.origin)
        for config, origins in names.items():
            components = {ImageReference.parse(origin).repository for origin in origins}
            if len(components) > 1:
                what = f"{', '.join(sorted(set(origins)))} are one and the same image ({config})."
                todo = "Find out which of the tags is wrong at the source before any component runs it."
                findings.append(warning("image-of-another", what, todo))
    return tuple(dict.fromkeys(findings))


def _fault(image: Image, found: Found | None) -> str:
    if found is None:
        return f"{image.name}: expected {image.config}, found none"
    if found.config != image.config:
        return f"{image.name}: expected {image.config}, found {found.config or 'no config'}"
    if found.lacks:
        return f"{image.name}: {len(found.lacks)} of its blobs are missing, the first is {found.lacks[0]}"
    return ""
