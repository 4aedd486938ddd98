"""Knows which layer a directory of an old `docker save` holds, before the archive has told it.

Up to Docker 24 `docker save` writes a layer as `<v1 ID>/layer.tar`, right after `<v1 ID>/json`, and names the layers in
`manifest.json` at the very end.  The v1 ID is the SHA-256 of that json without its id, with the layer's chain ID as
`layer_id`, the parent as a digest, keys sorted (moby: image/v1/imagev1.go, CreateID; image/tarexport/save.go).  The
chain IDs are known, so the one that gives the directory's name is the layer: a match proves itself.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from tasks.images.model import digest_of


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain ID of each layer (OCI image-spec, config.md: the digest of the parent's chain ID, a blank, the diffID)."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


class V1Ids:
    """Finds the diffID of a directory of `docker save` among the layers of images that are known."""

    def __init__(self, layers: Iterable[Sequence[str]]) -> None:
        """`layers` are the images' diffIDs in order."""
        self._diff_ids = {
            chain: diff_id for diff_ids in layers for chain, diff_id in zip(chain_ids(diff_ids), diff_ids, strict=True)
        }

    def find(self, directory: str, description: bytes) -> str | None:
        """The diffID of the layer in `directory`, None where no known layer gives that name.

        `description` is the directory's file `json`.
        """
        members = _members(description)
        if members is None:
            return None
        members.pop("id", None)
        parent = members.get("parent", "")
        if parent:
            members["parent"] = f'"sha256:{parent[1:-1]}"'
        # A layer that is not its image's last gets its `os` only after the ID was made (save.go, saveImage).
        for without in ((), ("os",)):
            kept = {key: text for key, text in members.items() if key not in without}
            for chain, diff_id in self._diff_ids.items():
                if _v1_id({**kept, "layer_id": f'"{chain}"'}) == directory:
                    return diff_id
        return None


def _v1_id(members: dict[str, str]) -> str:
    text = ",".join(f'"{key}":{members[key]}' for key in sorted(members))
    return hashlib.sha256(f"{{{text}}}".encode()).hexdigest()


def _members(document: bytes) -> dict[str, str] | None:
    """The members of a JSON object, each value as the text that stands there; None where it is no object.

    The hash is made over the very bytes that Go wrote, so no value is written anew.
    """
    decoder = json.JSONDecoder()
    members: dict[str, str] = {}
    try:
        text = document.decode()
        at = 1
        if not text.startswith("{") or text == "{}":
            return None
        while True:
            key, at = decoder.raw_decode(text, at)
            end = decoder.raw_decode(text, at + 1)[1]
            members[key] = text[at + 1 : end]
            if text[at] != ":" or text[end] not in ",}":
                return None
            at = end + 1
            if text[end] == "}":
                return members
    except (ValueError, IndexError, TypeError, RecursionError):
        return None
