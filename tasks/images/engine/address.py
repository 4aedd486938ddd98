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


@dataclass(frozen=True, slots=True)
class Address:
    """An engine's address: `url`, and the certificates that belong to it (docker's TLSConfig, or None)."""

    url: str
    tls: "TLSConfig | None" = field(default=None, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """The address without a password."""
        return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1@", self.url)

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
        return _checked(Address(url, _tls(url, environment)))
    return _checked(_of_context(environment.get("DOCKER_CONTEXT", "")) or Address(USUAL))


def split_ssh(url: str) -> SshAddress:
    """Raise `UsageError` where the address has no host, or a password, which ssh does not take."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError:
        host, port, parts = "", 0, urlsplit("")
    if not host or parts.password:
        raise UsageError(
            "The address of the Docker engine over SSH is not valid.",
            observed=Address(url).shown,
            next="Write ssh://user@host, with :PORT where it is not 22; keys come from ssh's own settings.",
        )
    return SshAddress(host, parts.username or "", port, parts.path.rstrip("/"))


def _checked(address: Address) -> Address:
    if not re.match(r"(unix|tcp|https?|ssh)://.|fd://", address.url):
        raise UsageError(
            "The address of the Docker engine is not valid.",
            observed=address.shown,
            next="Write it as unix:///var/run/docker.sock, tcp://host:2376 or ssh://user@host.",
        )
    return address


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
