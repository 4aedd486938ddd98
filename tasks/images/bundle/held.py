"""What a site holds: the list that travels to the connected side, and what a bundle may leave out because of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from tasks.domain.errors import UsageError
from tasks.images.model import Holdings, Image, Layer, is_digest

# A node's list of a few thousand blobs is under a megabyte.
_LARGEST: Final = 64 * 1024 * 1024


class HeldList(BaseModel):
    """What every one of `targets` holds: the digests of blobs, the diffIDs of layers, the names of complete images.

    Only what all of them hold is in it, because a bundle goes to all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["apinizer-upgrade/held/1"] = "apinizer-upgrade/held/1"
    made_at: datetime
    targets: list[str]
    names: dict[str, str]
    diff_ids: list[str]
    digests: list[str]

    @field_validator("diff_ids", "digests")
    @classmethod
    def _digests(cls, value: list[str]) -> list[str]:
        if wrong := next((each for each in value if not is_digest(each)), None):
            raise ValueError(f"{wrong!r} is no digest")
        return value

    @classmethod
    def of(cls, holdings: Mapping[str, Holdings], at: datetime) -> "HeldList":
        """What all targets hold.  A Docker engine that needs its layers whole holds nothing that could be left out."""
        each = [_one(held) for held in holdings.values()]
        names = [set(held.names.items()) for held in holdings.values()]
        return cls(
            made_at=at,
            targets=sorted(holdings),
            names=dict(sorted(set.intersection(*names))) if names else {},
            diff_ids=sorted(set.intersection(*(diff_ids for diff_ids, _ in each))) if each else [],
            digests=sorted(set.intersection(*(digests for _, digests in each))) if each else [],
        )

    def as_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def _one(held: Holdings) -> tuple[set[str], set[str]]:
    """The diffIDs and digests of one target; the digest of an uncompressed layer is its diffID."""
    if held.whole_layers:
        return set(), set()
    diff_ids = {blob.diff_id or digest for digest, blob in held.blobs.items()}
    return diff_ids, set(held.blobs)


def read_held(path: Path) -> HeldList:
    """The list in a file; raise `UsageError` where there is none that can be read."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise _unreadable(path, f"it is larger than {_LARGEST:,} bytes")
        return HeldList.model_validate_json(content)
    except OSError as problem:
        raise _unreadable(path, problem.strerror or type(problem).__name__) from None
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(path, f"{where}: {first['msg']}" if where else first["msg"]) from None


def _unreadable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is not a list of what a site holds.",
        observed=f"{why}.",
        next="Write one at the site with `apinizer-upgrade images status --held FILE`.",
    )


@dataclass(frozen=True, slots=True)
class Base:
    """What a differential bundle leaves out: the layers known by these digests or diffIDs.

    `version` and `images` say to people what the site must hold.
    """

    version: str
    images: tuple[str, ...]
    known: frozenset[str]

    @classmethod
    def of_images(cls, version: str, images: Sequence[Image]) -> "Base":
        """The site holds these images, in whatever form."""
        return cls(version, tuple(image.name for image in images), frozenset(d for i in images for d in i.diff_ids))

    @classmethod
    def of_list(cls, held: HeldList) -> "Base":
        return cls("", tuple(held.names), frozenset(held.diff_ids) | frozenset(held.digests))

    @property
    def since(self) -> str:
        """What stands in the bundle's name for it."""
        return self.version or "held"

    def has(self, layer: Layer) -> bool:
        return layer.diff_id in self.known or (layer.blob is not None and layer.blob.digest in self.known)
