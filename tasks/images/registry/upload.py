"""Uploads a blob (OCI distribution-spec, "Pushing blobs") so that a broken line costs a part of it at most.

A blob of one part goes as POST and one PUT.  A larger one goes in PATCHes; where one of them breaks, the registry is
asked how much it has, and the rest follows.  A registry that forgot the upload gets it from the beginning, as long as
that is still in memory: so does Docker's registry after every cut, for the state that it signs is then not that of its
disk (distribution 2.8, handlers/blobupload.go).  One that takes no second PATCH gets the blob in one stream.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from tasks.domain.errors import TemporaryError, UpgradeError
from tasks.images.model import Descriptor
from tasks.images.registry.address import Repository
from tasks.images.registry.client import RegistryClient, bare
from tasks.images.registry.parts import PART, Kept, Part, in_parts
from tasks.images.registry.proving import holds_blob
from tasks.images.registry.refusals import Answer
from tasks.images.registry.transport import STRANGE

TRIES = 5
# How much of a blob's beginning is kept, in parts.
KEPT_PARTS = 4
OCTETS = {"Content-Type": "application/octet-stream"}
# What a registry answers that does not know a second PATCH of the same upload.
NOT_IN_PARTS = frozenset({400, 404, 405, 411, 416, 501})

_KEPT = re.compile(r"(?:bytes=)?0-(\d+)")


class _LostError(Exception):
    """The registry has forgotten the upload, or has other bytes of it than were sent."""


class _WholeError(Exception):
    """The registry takes no parts."""


class Uploader:
    """Uploads to the repositories of one registry; what was learned of it is kept."""

    def __init__(self, client: RegistryClient, *, part: int = 0) -> None:
        self._client = client
        self._part = part or PART
        self._whole: set[str] = set()

    def send(self, at: Repository, chunks: Iterable[bytes], media_type: str, known: Descriptor | None) -> Descriptor:
        """Upload and describe it; `known` where digest and size are known before (`chunks` must then have them).

        Raise `TemporaryError` where the line broke and the beginning is no longer in memory.
        """
        counted = _Counted(chunks, media_type, known)
        kept = Kept(KEPT_PARTS * self._part)
        parts = _keeping(in_parts(counted, self._part), kept)
        begun = 0
        while True:
            begun += 1
            try:
                everything = chain(tuple(kept.parts), parts)
                if at.host in self._whole:
                    return self._in_one(at, everything, counted)
                return self._by_parts(at, everything, counted)
            except _WholeError:
                self._whole.add(at.host)
                again = "takes no layers in parts"
            except _LostError:
                again = "forgot an upload"
            if not kept.whole:
                raise _again(at, again, "in the middle of a layer, whose beginning is no longer in memory")
            if begun > TRIES:
                raise _again(at, again, f"{begun} times for the same layer")
            self._client.pause(begun)

    # ------------------------------------------------------------ in parts
    def _by_parts(self, at: Repository, parts: Iterator[Part], counted: "_Counted") -> Descriptor:
        first = next(parts)
        where = self._begin(at)
        if first.last:
            self._put(at, where, first.pieces, described := counted.described())
            return described
        for part in chain((first,), parts):
            if part.size:
                where = self._patch(at, where, part)
        self._put(at, where, (), described := counted.described())
        return described

    def _begin(self, at: Repository) -> str:
        what = f"begin an upload to {at.path}"
        url = self._client.url(at, "blobs/uploads/")
        answer = self._client.ask("POST", at, url, what, scopes=(at.push,))
        return self._location(url, self._client.require(answer, at, what, 202))

    def _patch(self, at: Repository, where: str, part: Part) -> str:
        """Send a part, the rest of it after a broken line; where the next one goes."""
        what = f"upload a layer to {at.path}"
        for attempt in range(1, TRIES + 1):
            self._client.heed()
            headers = {**OCTETS, "Content-Range": f"{part.start}-{part.end - 1}"}
            try:
                answer = self._client.send("PATCH", at, where, what, part.pieces, scopes=(at.push,), headers=headers)
            except TemporaryError:
                if attempt == TRIES:
                    raise
                answer = None
            if answer is not None and answer.status in (201, 202, 204):
                return self._location(where, answer) if "location" in answer.headers else where
            if answer is not None and _final(answer, part):
                self._client.require(answer, at, what, 202)
            if answer is None or answer.temporary:
                self._client.pause(attempt, answer.wait if answer else None)
            where, has = self._status(at, where, part, answer)
            if has == part.end:
                return where
            part = part.rest(has)
        raise _again(at, "does not take a layer", f"{TRIES} times the same part")

    def _status(self, at: Repository, where: str, part: Part, refused: Answer | None) -> tuple[str, int]:
        """Where the upload goes on and how many bytes the registry has, all of which were sent."""
        what = f"ask how much of a layer {at.path} has"
        answer = self._client.ask("GET", at, where, what, scopes=(at.push,))
        told = _KEPT.fullmatch(answer.headers.get("range", "").strip()) if answer.status in (200, 202, 204) else None
        of_parts = refused is not None and not refused.temporary and not refused.upload_lost
        if told is None and of_parts and part.start:
            raise _WholeError
        if told is None:
            raise _LostError
        has = int(told[1]) + 1
        # "0-0" is what registries say of nothing as well as of one byte.
        has = 0 if has == 1 else has
        if of_parts and has == part.start and part.start:
            raise _WholeError
        if not part.start <= has <= part.end:
            raise _LostError
        return self._location(where, answer) if "location" in answer.headers else where, has

    # ------------------------------------------------------------ in one stream
    def _in_one(self, at: Repository, parts: Iterator[Part], counted: "_Counted") -> Descriptor:
        """One PUT where the digest is known, else one PATCH and a PUT; a broken line cannot be mended here."""
        where = self._begin(at)
        pieces = (piece for part in parts for piece in part.pieces)
        what = f"upload a layer to {at.path}"
        if counted.known is not None:
            self._put(at, where, pieces, counted.known)
            return counted.described()
        answer = self._client.send("PATCH", at, where, what, pieces, scopes=(at.push,), headers=OCTETS)
        where = self._location(where, self._client.require(answer, at, what, 201, 202, 204))
        self._put(at, where, (), described := counted.described())
        return described

    # ------------------------------------------------------------ the end of either
    def _put(self, at: Repository, where: str, pieces: Iterable[bytes], blob: Descriptor) -> None:
        what = f"end the upload of {blob.digest} to {at.path}"
        url = f"{where}{'&' if '?' in where else '?'}digest={blob.digest}"
        again = isinstance(pieces, tuple)
        size = None if again else blob.size
        try:
            answer = self._client.send(
                "PUT", at, url, what, pieces or (b"",), size=size, scopes=(at.push,), headers=OCTETS
            )
        except TemporaryError:
            # The answer may have been lost and not the blob.
            if holds_blob(self._client, at, blob.digest):
                return
            if again:
                raise _LostError from None
            raise
        if answer.status in (201, 204) or (answer.status == 202 and holds_blob(self._client, at, blob.digest)):
            return
        if again and (answer.temporary or answer.upload_lost or answer.status == 404):
            if holds_blob(self._client, at, blob.digest):
                return
            self._client.pause(1, answer.wait)
            raise _LostError
        self._client.require(answer, at, what, 201)

    def mount(self, at: Repository, digest: str, source: Repository) -> bool:
        """Whether the registry took a blob over from another of its repositories (distribution-spec, "Mounting")."""
        what = f"mount {digest} from {source.path} to {at.path}"
        url = self._client.url(at, f"blobs/uploads/?mount={digest}&from={source.path}")
        try:
            answer = self._client.ask("POST", at, url, what, scopes=(at.push, source.pull))
        except UpgradeError:
            return False  # Not to mount is every registry's right; the upload that follows tells what is wrong.
        if answer.status == 202 and "location" in answer.headers:
            self._client.ask("DELETE", at, self._location(url, answer), "give up an upload", scopes=(at.push,))
        return answer.status == 201

    def _location(self, url: str, answer: Answer) -> str:
        if "location" not in answer.headers:
            raise UpgradeError(
                "The registry does not say where an upload goes.",
                observed=f"{bare(url)} answered {answer}",
                next=STRANGE,
            )
        return self._client.resolve(url, answer.headers["location"])


def _final(answer: Answer, part: Part) -> bool:
    """Whether a refusal has another reason than a lost upload or a registry that takes no parts."""
    if answer.temporary or answer.upload_lost:
        return False
    return answer.status not in NOT_IN_PARTS or part.start == 0


class _Counted:
    """Chunks, hashed where their digest is not known yet."""

    def __init__(self, chunks: Iterable[bytes], media_type: str, known: Descriptor | None) -> None:
        self._chunks = chunks
        self._media_type = media_type
        self._hash = hashlib.sha256()
        self._size = 0
        self.known = known

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            if self.known is None:
                self._hash.update(chunk)
                self._size += len(chunk)
            yield chunk

    def described(self) -> Descriptor:
        """What it is, after its end."""
        return self.known or Descriptor(self._media_type, f"sha256:{self._hash.hexdigest()}", self._size)


def _keeping(parts: Iterator[Part], kept: Kept) -> Iterator[Part]:
    for part in parts:
        kept.add(part)
        yield part


def _again(at: Repository, why: str, observed: str) -> TemporaryError:
    return TemporaryError(
        f"The registry {at.host} {why}.",
        observed=f"{at.path}: {observed}",
        next="Start again: what the registry has by now is not sent a second time.",
    )
