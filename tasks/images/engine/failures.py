"""What a Docker engine's refusals mean; the words are moby's (client/errors.go, api/server, image/tarexport), pure."""

import re

from tasks.domain.errors import (
    BlockedError,
    ForbiddenError,
    NotFoundError,
    TemporaryError,
    UnauthorizedError,
    UnprovenError,
    UpgradeError,
)


class LayerGoneError(TemporaryError):
    """The engine was sent an archive without a layer that it seemed to have, and refused it."""


UNCHANGED = "No component was changed."

_AWAY = (
    "Cannot connect to the Docker daemon",
    "error during connect",
    "connection refused",
    "connection reset",
    "broken pipe",
    "unexpected EOF",
    "EOF",
    "timeout",
    "use of closed network connection",
)
_FULL = ("no space left on device", "disk quota exceeded")
# An archive without a layer that the engine does not have: with its own store, and with containerd's.
_LACKS = (
    "tar: no such file or directory",
    "failed to resolve layers",
    "failed to get reader from content store",
)
_UNTRUE = ("invalid diffID", "layers from manifest don't match", "invalid tar header", "gzip: invalid")
_DENIED = ("denied", "unauthorized", "no basic auth credentials", "authentication required")
_ABSENT = ("manifest unknown", "not found", "does not exist", "no such image", "reference does not exist")
_NO_PLATFORM = (
    "no matching manifest",
    "does not match the specified platform",
    "does not provide the specified platform",
)


def away(where: str, observed: str) -> TemporaryError:
    """The engine does not answer."""
    return TemporaryError(
        f"{where} does not answer.",
        observed=observed,
        next="See that it runs (systemctl status docker) and that DOCKER_HOST or the setting names the right one.",
    )


def broke_off(where: str, observed: str) -> TemporaryError:
    """The engine's answer ended in the middle."""
    return TemporaryError(
        f"{where} broke off.",
        observed=observed,
        safe=UNCHANGED,
        next="Try again: only what is missing is sent. If it happens again, look at the engine's log.",
    )


def forbidden(where: str, observed: str) -> ForbiddenError:
    """The socket may not be used."""
    return ForbiddenError(
        f"{where} may not be used by this user.",
        observed=observed,
        next="Add the user to the group docker (usermod -aG docker USER, then log in anew), or run this as root.",
    )


def untrusted(where: str, observed: str) -> BlockedError:
    """TLS failed: the engine's certificate, or this side's."""
    return BlockedError(
        f"{where} and this side do not trust each other's certificates.",
        observed=observed,
        next="DOCKER_CERT_PATH (or the Docker context) holds ca.pem of the engine's CA, and cert.pem and key.pem that it accepts.",
    )


def of_save(where: str, said: str) -> UpgradeError:
    """`docker save` did not end well."""
    if _has(said, _FULL):
        return _full(
            where,
            said,
            "`docker save` writes a copy of the images to its own disk first; make room there and start again.",
        )
    if _has(said, _ABSENT):
        return NotFoundError(
            f"{where} no longer has all of the images.", observed=said, next="Pull them there, and start again."
        )
    return _broken(where, "send the images", said)


def of_load(where: str, said: str) -> UpgradeError:
    """`docker load` did not end well."""
    if _has(said, _FULL):
        return _full(where, said, "Remove old releases there (`apinizer-upgrade images prune`) or enlarge its disk.")
    if _has(said, _LACKS):
        return LayerGoneError(
            f"{where} has not kept a layer that it had a moment ago.",
            observed=said,
            safe=UNCHANGED,
            next="Start again: what is missing is computed anew, and the layers are sent whole.",
        )
    if _has(said, _UNTRUE):
        return UnprovenError(
            f"{where} refused a layer: its content is not what its digest says.",
            observed=said,
            safe=UNCHANGED,
            next="Start again; if it stays so, the source is damaged: pull the image there anew.",
        )
    return _broken(where, "load the images", said)


def load_refused(said: str) -> bool:
    """Whether a `docker load` that ended with 0 failed all the same, from what it wrote to either output.

    It names each image that it has loaded ("Loaded image: NAME", "Loaded image ID: ..."); an error comes as the last
    line, as text or as the JSON of the engine's answer (moby: pkg/streamformatter).
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if not lines:
        return False  # One that says nothing is judged by the proof alone.
    failed = lines[-1].startswith(("Error", "{")) or _has(lines[-1], (*_FULL, *_LACKS, *_UNTRUE))
    return failed or not any(line.startswith("Loaded image") for line in lines)


def of_pull(where: str, name: str, said: str) -> UpgradeError:
    """`docker pull` was refused, by the registry or on the way to it."""
    if _has(said, _NO_PLATFORM):
        return BlockedError(
            f"{name} does not exist for the platform that was asked for.",
            observed=said,
            next="Choose a platform that the image has and the nodes run, or another version.",
        )
    if _has(said, _DENIED):
        return UnauthorizedError(
            f"The registry does not let {where} pull {name}.",
            observed=said,
            next=f"Log in there (docker login {name.partition('/')[0]}), and see that the repository is called so: "
            "a registry may answer the same where there is none.",
        )
    if _has(said, _ABSENT):
        return NotFoundError(
            f"There is no image {name} to pull.", observed=said, next="See which tags the repository has."
        )
    return TemporaryError(
        f"{where} could not pull {name}.",
        observed=said,
        next="See that it reaches the registry; where it does not, set pull: false and bring the images there by hand.",
    )


def _full(where: str, said: str, next: str) -> BlockedError:
    return BlockedError(f"{where} has no room left.", observed=said, safe=UNCHANGED, next=next)


def _broken(where: str, what: str, said: str) -> UpgradeError:
    if _has(said, _AWAY):
        return broke_off(where, f"It could not {what}: {said}")
    return UpgradeError(
        f"{where} could not {what}.", observed=said, safe=UNCHANGED, next="Look at the engine's log there."
    )


def _has(said: str, words: tuple[str, ...]) -> bool:
    return any(re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", said, re.IGNORECASE) for word in words)
