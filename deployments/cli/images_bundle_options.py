"""The options of `images bundle`: what a bundle is made from, what it leaves out, how it is written."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kind(StrEnum):
    """What holds the images that a bundle is made from."""

    DOCKER = "docker"
    CONTAINERD = "containerd"
    REGISTRY = "registry"


class Compression(StrEnum):
    """How a bundle is written."""

    ZSTD = "zstd"
    NONE = "none"


Bundle = Annotated[Path, typer.Argument(metavar="FILE", help="The bundle.")]
Since = Annotated[
    str,
    typer.Option("--since", metavar="VERSION", help="Leave out the layers that this version has: the site holds it."),
]
Held = Annotated[
    Path | None,
    typer.Option("--held", metavar="FILE", help="Leave out what the site holds, as `images status --held` wrote it."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="PATH", help="The file, or the folder that it goes to (this one); no folder is made."
    ),
]
Sign = Annotated[
    Path | None, typer.Option("--sign", metavar="KEY", help="Sign it with this private key of OpenSSH: FILE.sig.")
]
From = Annotated[
    Kind | None,
    typer.Option(
        "--from",
        envvar="APINIZER_UPGRADE_FROM",
        help="docker, containerd or registry; else as the way in the configuration, docker.",
    ),
]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite a bundle of the same name.")]


Compress = Annotated[
    Compression | None,
    typer.Option("--compress", help="zstd or none; else zstd where the layers are not compressed already."),
]


@dataclass(frozen=True, slots=True)
class BundleOrder:
    """What `images bundle` is asked for besides the version."""

    source: Kind | None
    since: str
    held: Path | None
    out: Path | None
    compress: Compression | None
    sign: Path | None
    replace: bool
