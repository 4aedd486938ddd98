"""What a broken line to a registry means for a person."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tasks.domain.errors import BlockedError, TemporaryError, UpgradeError, UsageError

CA_OPTION = "the registry's CA file (--registry-ca, or --source-ca for the registry that images come from)"

STRANGE = "See what answers there: something in front of the registry may be wrongly set up. The registry's own log says more."
PLAIN_OPTION = (
    "--plain-http, or --source-plain-http for the registry that images come from; insecure: in the configuration"
)


class UntrustedError(BlockedError):
    """Whoever answers is not shown to be the registry (its TLS, a page instead of an answer): nothing that it says counts."""


class SilentError(TemporaryError):
    """The other side stands still: every try costs the whole of the patience, so there are fewer of them."""


@contextmanager
def told(host: str, what: str, *, secure: bool) -> Iterator[None]:
    """Raise the project's errors for the network's; `what` was to be done, `secure` whether over TLS.

    `TemporaryError` where the line broke, the server is away or its name unknown; `UntrustedError` for a certificate
    that is not trusted; `UsageError` for an address that is none.
    """
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise UsageError(
            f"{host} is no address of a registry.",
            observed=str(error),
            next="Write HOST or HOST:PORT, without a scheme.",
        ) from None
    except httpx.HTTPError as error:
        raise _error(error, host, what, secure=secure) from None
    except OSError as error:
        raise TemporaryError(
            f"The line to the registry {host} broke.", observed=f"To {what}: {_reason(error)}", next="Try again."
        ) from None


def _error(error: httpx.HTTPError, host: str, what: str, *, secure: bool) -> UpgradeError:
    causes = tuple(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _not_trusted(host, cause)
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
            return UntrustedError(
                f"The registry {host} does not speak TLS.",
                observed=f"To {what}: {_reason(cause)}",
                next=f"Where it really has none, say so: {PLAIN_OPTION}.",
            )
        if isinstance(cause, socket.gaierror):
            return TemporaryError(
                f"The name of the registry {host} cannot be resolved.",
                observed=_reason(cause),
                next="Check the registry's name, and the name service of this machine.",
            )
    observed = f"To {what}: {_reason(causes[-1])}"
    if isinstance(error, httpx.ProxyError):
        return TemporaryError(
            f"The proxy on the way to {host} does not let through.",
            observed=observed,
            next="Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY of this machine's environment.",
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return TemporaryError(
            f"The registry {host} cannot be reached.",
            observed=observed,
            next="Check its name and port, and that it runs" + ("." if secure else " (plain HTTP was spoken)."),
        )
    if isinstance(error, httpx.TimeoutException):
        return SilentError(f"The registry {host} says nothing more.", observed=observed, next="Try again later.")
    return TemporaryError(f"The line to the registry {host} broke.", observed=observed, next="Try again.")


def _not_trusted(host: str, cause: ssl.SSLCertVerificationError) -> UpgradeError:
    why = cause.verify_message or str(cause)
    name = "Hostname mismatch" in why or "IP address mismatch" in why
    remedy = (
        "Use the name that the certificate is for"
        if name
        else f"Give {CA_OPTION}: the PEM of the authority that signed its certificate"
    )
    see = f"openssl s_client -showcerts -connect {host if ':' in host else host + ':443'} </dev/null"
    return UntrustedError(
        f"The certificate of the registry {host} is not trusted.",
        observed=f"{why}.",
        next=f"{remedy}; `{see}` shows the certificate and its issuer.",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _reason(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, httpx.HTTPError) else f"{type(error).__name__}: {text}"
