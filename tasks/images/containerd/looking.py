"""Asks a containerd what it holds: one command for all of it."""

from tasks.domain.errors import TemporaryError
from tasks.images.containerd.listing import Looked, parse_look
from tasks.images.containerd.refusals import of_ctr
from tasks.images.containerd.script import LOOK, Ctr

SECONDS = 120.0
_TRIES = 3


def look_at(ctr: Ctr, where: str) -> Looked:
    """What the namespace holds now; raise the error of a ctr that cannot tell."""
    why = ""
    for _ in range(_TRIES):
        ran = ctr.remote.run(ctr.command(LOOK), timeout=SECONDS, sudo=False)
        if error := of_ctr(where, ctr.address, ran):
            raise error
        try:
            return parse_look(ran.stdout)
        except ValueError as error:
            # Garbage collection took a document away between two of the script's lines.
            why = str(error)
    raise TemporaryError(
        f"What containerd on {where} holds could not be read.", observed=why, next="Try again in a moment."
    )
