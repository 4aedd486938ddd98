"""What a restore tells while it works, and what it leaves as evidence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Phase = Literal["prove", "load", "oplog", "index", "check", "rename", "drop", "merge"]


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """How far a restore is.

    In `prove` bytes are the file's; in `load` they are the documents'; elsewhere they stay at what was loaded.
    `collection` is the one at hand, `documents` what was loaded so far.
    """

    phase: Phase
    collection: str
    collections_done: int
    collections: int
    documents: int
    bytes_done: int
    bytes_expected: int


class RestoreEvidence(BaseModel):
    """A restore that is done: what became of every collection; `bytes` are documents' before compression.

    `notes` are sentences on what came back otherwise than byte for byte, and why.
    """

    model_config = ConfigDict(frozen=True)

    database: str
    archive: Path
    sha256: str
    replaced: tuple[str, ...] = ()
    created: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    documents: int = 0
    bytes: int = 0
    notes: tuple[str, ...] = ()
