"""What a Docker engine is asked for, whichever way it is reached."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from tasks.images.engine.answers import EngineFacts, Known
from tasks.images.model import JsonObject, Platform


class Engine(Protocol):
    """A Docker engine.  Names are full names, also `NAME@DIGEST`.

    Every method may raise `TemporaryError` (it is away), `ForbiddenError` (no permission) or `NotFoundError` (no such
    program or host).
    """

    @property
    def where(self) -> str:
        """For people: `Docker engine at unix:///run/docker.sock`."""
        ...

    def facts(self) -> EngineFacts: ...

    def known(self, names: Sequence[str]) -> tuple[Known, ...]:
        """The images behind `names`, those that it does not know left out."""
        ...

    def history(self, name: str) -> list[JsonObject]:
        """The steps that made an image, newest first; `Size` in bytes."""
        ...

    def tags(self, repository: str) -> tuple[str, ...]:
        """The tags that it has of a repository (a full name without tag)."""
        ...

    def save(self, names: Sequence[str]) -> AbstractContextManager[Iterator[bytes]]:
        """The archive of `docker save` of all `names`, as it comes; leaving the context ends it."""
        ...

    def pull(self, name: str, platform: Platform | None) -> None:
        """`docker pull`; raise `NotFoundError`, `UnauthorizedError`, `BlockedError` (platform) as the registry answers."""
        ...
