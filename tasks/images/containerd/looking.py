"""Asks a containerd what it holds: one command for all of it."""

from collections.abc import Iterator
from dataclasses import replace

from tasks.domain.errors import BlockedError, TemporaryError
from tasks.domain.placement import NodeFacts
from tasks.images.containerd.kubelets import ELSEWHERE, USUAL, foreign
from tasks.images.containerd.listing import Looked, parse_look
from tasks.images.containerd.refusals import AwayError, of_ctr
from tasks.images.containerd.script import LOOK, Ctr

SECONDS = 120.0
_TRIES = 3
_ARE_SOCKETS = 'for each; do [ ! -S "$each" ] || echo "$each"; done'


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


def look_at_kubelets(ctr: Ctr, where: str, node: NodeFacts | None) -> tuple[Ctr, Looked]:
    """What the containerd of the node's kubelet holds, and the way to it; without `node` whatever answers.

    Where no socket is set and the usual one is not the kubelet's, the other known ones are tried.  Raise
    `BlockedError` where what answers is not the kubelet's: images that are brought there would never be used.
    """
    others: list[str] = []
    away: AwayError | None = None
    for each in _ways(ctr):
        try:
            looked = look_at(each, where)
        except AwayError as error:
            away = away or error
            if node is None:
                break
            continue
        why = foreign(looked, node, ctr.namespace) if node else ""
        if not why:
            return each, looked
        others.append(f"At {each.address or USUAL} {why}.")
    if away and not others:
        raise away
    raise BlockedError(
        f"The containerd that answers on {where} is not the one of its kubelet.",
        observed=" ".join([f"The node says {node.runtime if node else ''}.", *others]),
        next="Say the socket of the kubelet's containerd: images.nodes.address in the configuration. The kubelet's "
        "--container-runtime-endpoint there, or crictl info, tells it.",
    )


def _ways(ctr: Ctr) -> Iterator[Ctr]:
    """As it is set; else the usual socket first, then those of the others that are there."""
    yield ctr
    if not ctr.address:
        ran = ctr.remote.run(["sh", "-c", _ARE_SOCKETS, "sh", *ELSEWHERE], sudo=False)
        yield from (replace(ctr, address=each) for each in ran.stdout.decode().splitlines())
