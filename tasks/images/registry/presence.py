"""Asks a registry whether it holds a tag (OCI distribution specification, `HEAD /v2/<name>/manifests/<tag>`)."""

from collections.abc import Collection

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import UpgradeError
from tasks.domain.reference import DOCKER_HUB, ImageReference
from tasks.images.media import ACCEPT
from tasks.images.registry.access import Access
from tasks.images.registry.address import label_of, repository_of

SECONDS = 5.0


def holds(reference: ImageReference, settings: ImageSourceSettings, *, registries: Collection[str] = ()) -> bool | None:
    """True or False as the registry answers for the tag, None where it could not be asked (closed site, 401).

    `registries` are the hosts of all images that are asked for, see `access_for`.  One try with little patience: who
    asks for a plan does not wait for a registry.
    """
    from tasks.images.registry.client import RegistryClient

    at = repository_of(reference)
    try:
        client = RegistryClient(access_for(at.registry, settings, registries), tries=1, seconds=SECONDS)
        try:
            url = client.url(at, f"manifests/{label_of(reference)}")
            answer = client.ask("HEAD", at, url, f"look for {reference}", headers={"Accept": ACCEPT})
        finally:
            client.close()
    except UpgradeError:
        return None
    if answer.headers.get("content-type", "").startswith("text/html"):
        return None  # a page of something on the way, whatever its status
    return {200: True, 404: False}.get(answer.status)


def access_for(registry: str, settings: ImageSourceSettings, registries: Collection[str] = ()) -> Access:
    """The settings' user, password, CA and plain HTTP for the one registry that they speak of; nothing for any other.

    That is the wanted prefix's.  Where each container keeps its own registry, it is the only one there is: with several
    among `registries`, whose password it is cannot be told, and nobody gets it.
    """
    if settings.wanted_prefix:
        meant = registry_of(f"{settings.wanted_prefix}/worker") == registry.lower()
    else:
        meant = {each.lower() for each in registries} <= {registry.lower()}
    return Access(settings.user, settings.password, settings.ca_file, settings.insecure) if meant else Access()


def registry_of(image: str) -> str:
    """The host of an image's name, `docker.io` where it has none; "" where it is no name."""
    reference = ImageReference.find(image)
    return (ImageReference.parse(reference.normal).registry or DOCKER_HUB).lower() if reference else ""
