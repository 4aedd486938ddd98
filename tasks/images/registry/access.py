"""With which credentials and which trust a registry is spoken to."""

import ssl
from dataclasses import dataclass
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
        """The system's CAs, the usual public ones, and `ca_file`; raise `UsageError` where that cannot be read."""
        import certifi

        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        if self.ca_file:
            try:
                context.load_verify_locations(str(Path(self.ca_file).expanduser()))
            except (OSError, ValueError) as error:
                raise UsageError(
                    f"The CA file {self.ca_file} cannot be used.",
                    observed=str(error),
                    next="Give the PEM file of the CA that signed the registry's certificate.",
                ) from None
        return context
