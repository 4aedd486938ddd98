"""Finds images in a registry: tag, index, manifest, config, each held to its digest."""

import json
from collections.abc import Iterable

from tasks.domain.errors import NotFoundError, UnprovenError, UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.manifest import LARGEST_MANIFEST, choose_platform, image_of, is_index, parse_manifest
from tasks.images.media import ACCEPT, INDEXES, MANIFESTS
from tasks.images.model import Image, Platform, digest_of, is_digest
from tasks.images.registry.address import Repository, label_of, repository_of
from tasks.images.registry.client import RegistryClient
from tasks.images.registry.download import whole_blob
from tasks.images.registry.refusals import Answer
from tasks.images.registry.transport import STRANGE, UntrustedError

LARGEST_CONFIG = 16 * 1024 * 1024
TAGS_TOLD = 12


def find_image(
    client: RegistryClient, reference: ImageReference, platform: Platform | None, *, hints: bool = True
) -> Image:
    """The image that a reference means for a platform; a digest in the reference counts more than its tag.

    Raise `NotFoundError` (with `hints` it tells the tags that are there), `UnprovenError` where bytes do not have their digest,
    `BlockedError` where the platform is lacking.
    """
    at = repository_of(reference)
    content, media_type, digest = read_manifest(client, at, label_of(reference), str(reference), hints=hints)
    manifest = content
    if is_index(content, media_type):
        chosen = choose_platform(content, platform, str(reference))
        manifest, _, _ = read_manifest(client, at, chosen.digest, str(reference))
    told = parse_manifest(manifest, str(reference))
    config = whole_blob(client, at, told.config, LARGEST_CONFIG)
    return image_of(reference.normal, str(reference), manifest, config, manifest_digest=digest, platform=platform)


def read_manifest(
    client: RegistryClient, at: Repository, label: str, name: str, *, hints: bool = True
) -> tuple[bytes, str, str]:
    """Content, media type and digest of what a tag or digest names; raise `NotFoundError`, `UnprovenError`, `UntrustedError`."""
    what = f"read the manifest of {name}"
    answer = client.ask("GET", at, client.url(at, f"manifests/{label}"), what, headers={"Accept": ACCEPT})
    if answer.status == 404:
        raise _not_there(tags_of(client, at) if hints else None, at, label, answer)
    client.require(answer, at, what, 200)
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    _require_of_a_registry(answer.body, media_type, at, what)
    found = digest_of(answer.body)
    for expected in (label, answer.headers.get("docker-content-digest", "")):
        if is_digest(expected) and expected != found:
            raise UnprovenError(
                f"The manifest of {name} is not the one that its digest names.",
                observed=f"expected {expected}, found {found} ({len(answer.body)} bytes from {at.host})",
                next="Ask again; if it stays so, the registry is damaged or a proxy changes what passes.",
            )
    if len(answer.body) > LARGEST_MANIFEST:
        raise UnprovenError(f"The manifest of {name} is too large.", observed=f"{len(answer.body)} bytes", next=STRANGE)
    return answer.body, media_type, found


def _require_of_a_registry(content: bytes, media_type: str, at: Repository, what: str) -> None:
    """Raise `UntrustedError` for what nothing marks as a manifest, not even a damaged one: the page of a login or a proxy."""
    if media_type in MANIFESTS or media_type in INDEXES or b'"schemaVersion"' in content:
        return
    beginning = " ".join(content[:200].decode("utf-8", "replace").split())
    raise UntrustedError(
        f"What answers at {at.host} is no registry, or something on the way answers for it.",
        observed=f"To {what}: 200 {media_type or 'without a media type'}: {beginning or 'nothing'}",
        next="Check the registry's name and port (another service, a page to log in at?), and HTTPS_PROXY, HTTP_PROXY and "
        "NO_PROXY of this machine's environment.",
    )


def tags_of(client: RegistryClient, at: Repository) -> list[str] | None:
    """The tags of a repository, None where the registry does not know it or does not tell."""
    try:
        answer = client.ask("GET", at, client.url(at, "tags/list?n=1000"), f"list the tags of {at.path}")
        listed = _json_tags(answer) if answer.status == 200 else None
    except UpgradeError:
        return None
    return listed or None


def _json_tags(answer: Answer) -> list[str]:
    try:
        told = json.loads(answer.body).get("tags") or []
        return [str(tag) for tag in told]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []


def _not_there(tags: list[str] | None, at: Repository, label: str, answer: Answer) -> NotFoundError:
    if tags is None or "NAME_UNKNOWN" in answer.codes:
        return NotFoundError(
            f"There is no repository {at}, or nothing in it.",
            observed=f"{at.host} answered {answer}",
            next="Check the folder in front of the image's name, and the repository's name at this version.",
        )
    return NotFoundError(
        f"{at} has no {'manifest' if is_digest(label) else 'tag'} {label}.",
        observed=f"It has {', '.join(_newest(tags))}"
        + (f" and {len(tags) - TAGS_TOLD} more." if len(tags) > TAGS_TOLD else "."),
        next="Check the version.",
    )


def _newest(tags: Iterable[str]) -> list[str]:
    """Some tags, those that look like the newest versions first."""
    return sorted(tags, key=_as_version, reverse=True)[:TAGS_TOLD]


def _as_version(tag: str) -> list[tuple[int, int, str]]:
    return [(1, int(part), "") if part.isascii() and part.isdigit() else (0, 0, part) for part in tag.split(".")]
