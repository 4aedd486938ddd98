"""A MongoDB URI as the tools take it, in the configuration file that is the only place where it is written.

The tools are written in Go and read a URI a little differently than this software's driver does: what is here
makes them mean the same.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote_plus

from tasks.database.connection import hosts_of
from tasks.domain.errors import UsageError

# A backup is read from the primary, and a restore only can go there: what would lead elsewhere is dropped.
_DROPPED = {"readpreference", "readpreferencetags", "maxstalenessseconds", "authsource", "appname"}
_FILES = {
    "tlscafile", "tlscertificatekeyfile", "tlscrlfile", "sslcertificateauthorityfile", "sslclientcertificatekeyfile",
}  # fmt: skip
_SECRETS = {"tlscertificatekeyfilepassword", "sslclientcertificatekeypassword"}
_SELECTION_MILLISECONDS = "10000"


@dataclass(frozen=True, slots=True)
class Address:
    """A URI in its parts; `user`, `password` and the options' values are decoded, `options` keep their order."""

    scheme: str
    hosts: str
    user: str
    password: str
    auth_source: str
    options: tuple[tuple[str, str], ...]

    @property
    def direct(self) -> bool:
        """Whether it asks for the one server it names, whatever its role."""
        return any(name.lower() == "directconnection" and value == "true" for name, value in self.options)

    @property
    def loopback(self) -> bool:
        """Whether it names the machine itself, which is another one for a tool over SSH."""
        hosts = [re.sub(r":\d+$", "", host).strip("[]") for host in self.hosts.split(",")]
        return any(host == "localhost" or host.startswith("127.") or host == "::1" for host in hosts)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may be shown nowhere: passwords as they are and as a URI writes them."""
        plain = [self.password, *(value for name, value in self.options if name.lower() in _SECRETS)]
        return tuple({text for secret in plain if secret for text in (secret, quote(secret, safe=""))})

    def files(self) -> list[str]:
        """Files of this machine that it names: certificates and keys."""
        return [value for name, value in self.options if name.lower() in _FILES]

    def uri(self, *, set_name: str = "") -> str:
        """The URI for the tool, ASCII only, without a database; `set_name` is the replica set's, where it is known.

        Without a replica set's name the tools connect directly, and to more than one host not at all
        (mongo-tools, options.go, NormalizeOptionsAndURI).
        """
        login = quote(self.user, safe="") + (f":{quote(self.password, safe='')}" if self.password else "")
        options = dict(self.options)
        known = {name.lower() for name in options}
        if self.user:
            options["authSource"] = self.auth_source
        if set_name and not self.direct and "replicaset" not in known and self.scheme == "mongodb://":
            options["replicaSet"] = set_name
        if "serverselectiontimeoutms" not in known:
            options["serverSelectionTimeoutMS"] = _SELECTION_MILLISECONDS
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in options.items())
        return f"{self.scheme}{login}{'@' if login else ''}{self.hosts}/?{query}"


def parse(uri: str) -> Address:
    """Read a URI as this software's driver does.  Raises UsageError for what is none, or what the tools cannot do."""
    hosts = hosts_of(uri)
    scheme = "mongodb+srv://" if uri.startswith("mongodb+srv://") else "mongodb://"
    rest = uri.removeprefix(scheme)
    login = rest.partition("@")[0] if "@" in rest else ""
    tail = rest.removeprefix(f"{login}@" if "@" in rest else "").removeprefix(hosts)
    path, _, query = tail.partition("?")
    # The driver reads `+` in a login as a blank (urllib's unquote_plus); Go's reads it as itself.
    user, password = (unquote_plus(part) for part in login.partition(":")[::2])
    options = parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    database = unquote_plus(path.strip("/"))
    given = {name.lower(): value for name, value in options}
    source = given.get("authsource") or (
        "$external" if given.get("authmechanism") in {"MONGODB-X509", "GSSAPI", "PLAIN"} else database or "admin"
    )
    kept = tuple(_translated(name, value) for name, value in options if name.lower() not in _DROPPED)
    return Address(scheme, hosts, user, password, source, kept)


def config(address: Address, *, set_name: str = "") -> bytes:
    """The tool's configuration file: one line of YAML, in which a quoted ASCII URI needs no escape."""
    return f'uri: "{address.uri(set_name=set_name)}"\n'.encode("ascii")


def _translated(name: str, value: str) -> tuple[str, str]:
    lower = name.lower()
    if lower == "tlsallowinvalidcertificates":
        # The Go driver knows one word for all of it.
        return "tlsInsecure", value
    if lower == "tlsallowinvalidhostnames" and value == "true":
        raise UsageError(
            "mongodump and mongorestore cannot check a certificate without checking its host name.",
            observed="The database's URI has tlsAllowInvalidHostnames=true.",
            next="Use --engine native, or a URI whose host name is in the certificate.",
        )
    return name, value
