"""Asks a registry whether it holds a tag (OCI distribution specification, `HEAD /v2/<name>/manifests/<tag>`)."""

import re
import ssl
from typing import TYPE_CHECKING

from blocks.image_settings import ImageSourceSettings
from tasks.domain.reference import ImageReference

if TYPE_CHECKING:
    import httpx

ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"
)
SECONDS = 5.0
DOCKER_HUB_HOST = "registry-1.docker.io"


def holds(reference: ImageReference, settings: ImageSourceSettings) -> bool | None:
    """True or False as the registry answers for the tag, None where it could not be asked (closed site, 401).

    Basic and bearer authentication (distribution specification, "token authentication"); plain HTTP only where
    the settings allow it.
    """
    import httpx

    host = reference.registry or DOCKER_HUB_HOST
    scheme = "http" if settings.insecure and reference.registry else "https"
    path = reference.path if reference.registry or "/" in reference.path else f"library/{reference.path}"
    url = f"{scheme}://{host}/v2/{path}/manifests/{reference.tag}"
    try:
        with httpx.Client(timeout=SECONDS, verify=_trust(settings), follow_redirects=True) as client:
            answer = client.head(url, headers={"Accept": ACCEPT})
            if answer.status_code == 401:
                login = _login(client, answer.headers.get("www-authenticate", ""), settings)
                answer = client.head(url, headers={"Accept": ACCEPT, **login})
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return {200: True, 404: False}.get(answer.status_code)


def _trust(settings: ImageSourceSettings) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True


def _login(client: "httpx.Client", challenge: str, settings: ImageSourceSettings) -> dict[str, str]:
    """The Authorization header that answers a registry's challenge."""
    import httpx

    user, secret = settings.user, settings.password.get_secret_value() if settings.password else ""
    if challenge.lower().startswith("basic"):
        request = client.build_request("GET", "http://basic")
        next(httpx.BasicAuth(user, secret).auth_flow(request))
        return {"Authorization": request.headers["Authorization"]}
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm")
    if not settings.insecure and not realm.startswith("https://"):
        raise ValueError("the registry sends its login to an address without TLS")
    answer = client.get(realm, params=fields, auth=(user, secret) if user else None).raise_for_status().json()
    return {"Authorization": f"Bearer {answer.get('token') or answer['access_token']}"}
