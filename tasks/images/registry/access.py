"""With which credentials and which trust a registry is spoken to."""

import ssl
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr

from tasks.domain.errors import UsageError


@dataclass(frozen=True, slots=True)
class Access:
    """A user with a password or token ("" and None: nobody), the file of the registry's CA, and plain HTTP where allowed.

    `insecure` allows HTTP without TLS and nothing else: a certificate that cannot be checked is refused all the same.
    """

    user: str = ""
    password: SecretStr | None = None
    ca_file: str = ""
    insecure: bool = False

    @property
    def secret(self) -> str:
        return self.password.get_secret_value() if self.password else ""

    def trust(self) -> ssl.SSLContext:
        """The system's CAs (the usual public ones where it has none) and `ca_file`.

        Raise `UsageError` where that file cannot be read.
        """
        path = Path(self.ca_file).expanduser() if self.ca_file else None
        try:
            return _context(str(path) if path else "", path.stat().st_mtime_ns if path else 0)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"The CA file {self.ca_file} cannot be used.",
                observed=str(error),
                next="Give the PEM file of the CA that signed the registry's certificate.",
            ) from None


@lru_cache(maxsize=8)
def _context(ca_file: str, _changed: int) -> ssl.SSLContext:
    """To read all CAs takes a tenth of a second: once for each state of a file."""
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:
        import certifi

        context.load_verify_locations(certifi.where())
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
