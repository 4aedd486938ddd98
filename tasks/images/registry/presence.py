"""Asks a registry whether it holds a tag (OCI distribution specification, `HEAD /v2/<name>/manifests/<tag>`)."""

from blocks.image_settings import ImageSourceSettings
from tasks.domain.errors import UpgradeError
from tasks.domain.reference import ImageReference
from tasks.images.media import ACCEPT
from tasks.images.registry.access import Access
from tasks.images.registry.address import label_of, repository_of

SECONDS = 5.0


def holds(reference: ImageReference, settings: ImageSourceSettings) -> bool | None:
    """True or False as the registry answers for the tag, None where it could not be asked (closed site, 401).

    One try with little patience: who asks for a plan does not wait for a registry.
    """
    from tasks.images.registry.client import RegistryClient

    access = Access(settings.user, settings.password, settings.ca_file, settings.insecure)
    at = repository_of(reference)
    try:
        client = RegistryClient(access, tries=1, seconds=SECONDS)
        try:
            url = client.url(at, f"manifests/{label_of(reference)}")
            answer = client.ask("HEAD", at, url, f"look for {reference}", headers={"Accept": ACCEPT})
        finally:
            client.close()
    except UpgradeError:
        return None
    return {200: True, 404: False}.get(answer.status)
