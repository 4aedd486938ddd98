"""What a registry holds of an image under its tag: asked anew, down to every blob."""

from tasks.domain.errors import NotFoundError, UnprovenError
from tasks.domain.reference import ImageReference
from tasks.images.manifest import parse_manifest
from tasks.images.model import Image, Proof
from tasks.images.registry.address import Repository, repository_of
from tasks.images.registry.client import RegistryClient
from tasks.images.registry.lookup import find_image


def holds_blob(client: RegistryClient, at: Repository, digest: str) -> bool:
    """Whether the repository has the blob (distribution-spec, "Checking if content exists in the registry")."""
    what = f"look for {digest} in {at.path}"
    answer = client.ask("HEAD", at, client.url(at, f"blobs/{digest}"), what)
    return client.require(answer, at, what, 200, 404).status == 200


def missing_blobs(client: RegistryClient, image: Image) -> list[str]:
    """The digests of an image's manifest that its own repository does not have."""
    told = parse_manifest(image.manifest, image.name)
    at = repository_of(ImageReference.parse(image.name))
    wanted = dict.fromkeys(blob.digest for blob in (told.config, *told.layers))
    return [digest for digest in wanted if not holds_blob(client, at, digest)]


def prove_image(client: RegistryClient, image: Image, where: str) -> Proof:
    """The tag names an image with this config, and all of its blobs are there; raise `UnprovenError` otherwise."""
    try:
        there = find_image(client, ImageReference.parse(image.name), image.platform, hints=False)
    except NotFoundError as error:
        raise _unproven(image, where, f"found nothing: {error.observed}") from None
    if there.config != image.config:
        raise _unproven(image, where, f"found {there.config}")
    if missing := missing_blobs(client, there):
        raise _unproven(image, where, f"found its manifest, but not {', '.join(missing)}")
    return Proof(where, image.name, there.config, there.manifest_digest, pinned=False)


def _unproven(image: Image, where: str, found: str) -> UnprovenError:
    return UnprovenError(
        f"{where} does not hold {image.name} as it should.",
        observed=f"expected the config {image.config}; {found}",
        next="Somebody else may have pushed this tag or removed the image: look who did, then start again.",
    )
