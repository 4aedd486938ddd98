"""Which Docker engine is meant: the setting, else DOCKER_HOST, the chosen context, the usual socket, as `docker` has it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.domain.errors import UsageError

if TYPE_CHECKING:
    from docker.tls import TLSConfig

USUAL = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """An engine's address: `url`, and the certificates that belong to it (docker's TLSConfig, or None)."""

    url: str
    tls: "TLSConfig | None" = field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address without anything that may be a secret: of what stands before the host only ssh's user is none.

        Everything up to the last @ counts as standing before it: a password may hold a slash that was not encoded.
        """
        scheme, mark, rest = self.url.partition("://")
        if scheme in ("unix", "fd"):
            return self.url
        before, at, host = rest.rpartition("@")
        user = before.partition(":")[0] + at if scheme == "ssh" else ""
        return f"{scheme}{mark}{user}{re.split('[?#]', host)[0]}"

    @property
    def over_ssh(self) -> bool:
        return self.url.startswith("ssh://")


@dataclass(frozen=True, slots=True)
class SshAddress:
    """`ssh://[user@]host[:port][/socket]`: the parts; `socket` is "" for the engine's usual one there."""

    host: str
    user: str
    port: int
    socket: str


def find_address(base_url: str, environment: Mapping[str, str] | None = None) -> Address:
    """The address that `base_url` or, where it is empty, the environment says; raise `UsageError` for no address."""
    environment = os.environ if environment is None else environment
    url = base_url or environment.get("DOCKER_HOST", "")
    if url:
        return Address(_checked(Address(url)).url, _tls(url, environment))
    return _checked(_of_context(environment.get("DOCKER_CONTEXT", "")) or Address(USUAL))


def split_ssh(url: str) -> SshAddress:
    """Raise `UsageError` where the address has no host, or a password, which ssh does not take."""
    try:
        parts = urlsplit(url)
        host, port = _host(parts.netloc), parts.port or 0
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    if not host or parts.password:
        raise UsageError(
            "The address of the Docker engine over SSH is not valid.",
            observed=Address(url).shown,
            next="Write ssh://user@host, with :PORT where it is not 22; keys come from ssh's own settings.",
        )
    return SshAddress(host, parts.username or "", port, parts.path.rstrip("/"))


def _host(netloc: str) -> str:
    """The host as it is written: an alias of ssh's own settings may have capitals, which `hostname` takes away."""
    host = netloc.rpartition("@")[2]
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _checked(address: Address) -> Address:
    """The address; one over TCP has no user (docker's own client takes none either), and a port that is a number."""
    scheme, _, rest = address.url.partition("://")
    valid = re.match(r"(unix|tcp|https?|ssh)://.|fd://", address.url) is not None
    if valid and scheme in ("tcp", "http", "https"):
        try:
            parts = urlsplit(address.url)
            valid = "@" not in rest and parts.port != 0 and bool(parts.hostname)
        except ValueError:
            valid = False
    if not valid:
        raise not_valid(address)
    return address


def not_valid(address: Address) -> UsageError:
    """It is no address of an engine."""
    return UsageError(
        "The address of the Docker engine is not valid.",
        observed=address.shown,
        next="Write it as unix:///var/run/docker.sock, tcp://host:2376 (certificates come from DOCKER_CERT_PATH; "
        "there is no user and no password) or ssh://user@host.",
    )


def _tls(url: str, environment: Mapping[str, str]) -> "TLSConfig | None":
    """The certificates of DOCKER_CERT_PATH, for an address over TCP (docker's client: DOCKER_TLS_VERIFY, DOCKER_TLS)."""
    asked = environment.get("DOCKER_TLS_VERIFY") or environment.get("DOCKER_TLS")
    if not asked or not url.startswith(("tcp://", "http")):
        return None
    import docker.utils
    from docker.errors import DockerException

    try:
        given = docker.utils.kwargs_from_env({**environment, "DOCKER_HOST": url})
    except DockerException as error:
        raise UsageError(
            "The certificates for the Docker engine cannot be used.",
            observed=str(error),
            next="DOCKER_CERT_PATH is the folder that holds ca.pem, cert.pem and key.pem.",
        ) from None
    tls: TLSConfig | None = given.get("tls") or None
    return tls


def _of_context(name: str) -> Address | None:
    """The context that `docker context use` or DOCKER_CONTEXT chose; None for the default one."""
    from docker.context import ContextAPI
    from docker.context.config import get_current_context_name

    name = name or get_current_context_name()
    if name == "default":
        return None
    try:
        context = ContextAPI.get_context(name)
        found = Address(context.Host, context.TLSConfig) if context and context.Host else None
    except Exception as error:  # noqa: BLE001 -- the SDK raises bare ones for a file that it cannot read.
        raise _no_context(name, str(error)) from None
    if found is None:
        raise _no_context(name, "")
    return found


def _no_context(name: str, observed: str) -> UsageError:
    return UsageError(
        f"There is no Docker context {name!r} that can be used.",
        observed=observed,
        next="See `docker context ls`; DOCKER_CONTEXT or `docker context use` chose this one. DOCKER_HOST goes before it.",
    )
