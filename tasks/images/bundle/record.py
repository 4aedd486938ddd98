"""The record in a bundle, and what is told of a bundle after it was written or verified."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.domain.errors import DamagedArchiveError
from tasks.images.model import Descriptor, JsonObject


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundledImage(_Told):
    """An image: its full name, the reference at the source, and the digests of its config and its manifest."""

    name: str
    origin: str
    config: str
    manifest: str


class BlobRecord(_Told):
    """A blob; sizes are bytes; `diff_id` is "" for what is no layer."""

    digest: str
    size: int
    media_type: str
    diff_id: str = ""

    @classmethod
    def of(cls, blob: Descriptor, diff_id: str = "") -> "BlobRecord":
        return cls(digest=blob.digest, size=blob.size, media_type=blob.media_type, diff_id=diff_id)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, self.digest, self.size)


class BaseRecord(_Told):
    """What the site must hold already: the version that a differential bundle is made against, and its images."""

    version: str
    images: list[str]


class BundleRecord(_Told):
    """`apinizer-bundle.json`.  `blobs` are all that is in the bundle, `left_out` the layers that the site must hold."""

    format: Literal["apinizer-upgrade/bundle/1"] = "apinizer-upgrade/bundle/1"
    version: str
    made_at: datetime
    made_by: str
    source: str
    platforms: list[str]
    images: list[BundledImage]
    blobs: list[BlobRecord]
    base: BaseRecord | None = None
    left_out: list[BlobRecord] = []

    def as_json(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def parse(cls, content: bytes) -> "BundleRecord":
        """Raise `DamagedArchiveError` where `content` is no record of this format."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)[0]
            raise DamagedArchiveError(
                "The bundle's own record cannot be read.",
                observed=f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
                next="A newer version of this software may have written it; else copy the bundle anew.",
            ) from None


class BundleFacts(_Told):
    """What is known of a bundle.  `size` is in bytes, `sha256` (hexadecimal) covers the whole file.

    `kind` tells a bundle of this project ("bundle") from an archive of another tool ("oci-layout", "docker-save").
    `signed_by` is the identity whose signature was checked, "" where none was asked for.  `unproven` are sentences on
    what could not be proved.
    """

    path: str
    size: int
    sha256: str
    kind: Literal["bundle", "oci-layout", "docker-save"]
    compression: Literal["zstd", "none"]
    version: str = ""
    made_at: datetime | None = None
    platforms: list[str]
    images: list[BundledImage]
    base: BaseRecord | None = None
    left_out: list[BlobRecord] = []
    signed_by: str = ""
    unproven: list[str] = []

    @property
    def sha256_line(self) -> str:
        """The line that `sha256sum --check` reads."""
        return f"{self.sha256}  {self.path.rpartition('/')[2]}"

    def as_json(self) -> JsonObject:
        return self.model_dump(mode="json")
