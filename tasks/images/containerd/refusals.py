"""What `ctr` prints when it cannot do its work, and what a person can do about it (pure).

The words are containerd's (client.go, cmd/ctr) and Go's own of the system's errors.
"""

import re

from tasks.domain.errors import BlockedError, ForbiddenError, TemporaryError, UnprovenError, UpgradeError
from tasks.images.remote import Ran
from tasks.images.remote.refusals import told

_AWAY = re.compile(
    r"failed to dial|connection refused|connection error|context deadline exceeded|code = Unavailable|"
    r"error reading from server|transport is closing|cannot access socket",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_DENIED = re.compile(r"permission denied|must be run as root|operation not permitted", re.IGNORECASE)
_TORN = re.compile(r"unexpected EOF|unrecognized image format|missing index\.json|invalid tar header", re.IGNORECASE)
_VANISHED = re.compile(r"content digest sha256:[0-9a-f]+: not found|: not found", re.IGNORECASE)
_WRONG = re.compile(r"wrong diff id|mismatched|unexpected commit digest|failed size validation", re.IGNORECASE)
UNCOUNTED = "What came there does not count as an image, and nothing else was changed."


class AwayError(TemporaryError):
    """Nothing answers at the socket."""


def of_ctr(where: str, address: str, ran: Ran) -> UpgradeError | None:
    """The error of a ctr that ended badly on `where`, None where it ended well; `address` is the socket given."""
    if ran.code == 0:
        return None
    said, observed = ran.stderr, told(ran.stderr) or f"ctr ended with {ran.code} and said nothing."
    if _DENIED.search(said) and not _FULL.search(said):
        return ForbiddenError(
            f"ctr may not use containerd on {where}.",
            observed=observed,
            next="Log in as root there, or set sudo for this node.",
        )
    if _FULL.search(said):
        return BlockedError(
            f"The disk of {where} is full.",
            observed=observed,
            safe=UNCOUNTED,
            next="Make room there (`apinizer-upgrade images prune`), then start again.",
        )
    if _WRONG.search(said):
        return UnprovenError(
            f"A layer is not what the image's config says, as containerd on {where} found.",
            observed=observed,
            safe=UNCOUNTED,
            next="Pull the image anew at the source; if that does not help, the image is damaged where it was made.",
        )
    if _AWAY.search(said):
        usual = address or "/run/containerd/containerd.sock"
        return AwayError(
            f"containerd on {where} does not answer.",
            observed=observed,
            next=f"See that it runs there (systemctl status containerd) and that its socket is {usual}; "
            "k3s, RKE2 and others have theirs elsewhere: give its address.",
        )
    return _of_import(where, said, observed, ran.code)


def _of_import(where: str, said: str, observed: str, code: int) -> UpgradeError:
    if _TORN.search(said) or _VANISHED.search(said) or code > 128:
        return TemporaryError(
            f"The images did not get into containerd on {where}.",
            observed=observed,
            safe=UNCOUNTED,
            next="Try again: only what is missing is sent.",
        )
    return UpgradeError(
        f"ctr on {where} failed.", observed=observed, safe=UNCOUNTED, next="See containerd's log there."
    )
