"""What of a database tells whether somebody wrote to it, where its server gives no change stream."""

from collections.abc import Mapping
from typing import Any

from pymongo.errors import PyMongoError

from tasks.database.connection import Client
from tasks.database.listing import identities
from tasks.database.restore.names import PREFIX

Seen = tuple[tuple[str, bytes], int]
"""A collection's identity (UUID and definition) and its count of operations, or of documents."""

OPERATIONS, COUNTS = "operation counters", "counts"

_TRIES = 5


class Glance:
    """Looks at the collections of a database that no restore made for itself.

    `strength` says what is looked at: OPERATIONS (`top`, for whom that is allowed) or COUNTS of documents.
    """

    def __init__(self, client: Client, database: str) -> None:
        self._client, self._database = client, database
        self.strength = COUNTS

    def first(self) -> dict[str, Seen]:
        """The first look, by operations where the server allows it."""
        try:
            self._client.admin.command("top")
            self.strength = OPERATIONS
        except PyMongoError:
            self.strength = COUNTS
        return self.look()

    def look(self) -> dict[str, Seen]:
        """Identities and counts that belong together: a rename of ours in between makes both be taken again."""
        found, writes = self._identities(), dict[str, int]()
        for _ in range(_TRIES):
            writes, before = self._writes(found), found
            found = self._identities()
            if found == before:
                break
        return {name: (identity, writes.get(name, 0)) for name, identity in found.items()}

    def _identities(self) -> dict[str, tuple[str, bytes]]:
        with self._client.start_session() as session:
            return {
                name: identity
                for name, identity in identities(self._client, session, self._database).items()
                if not name.startswith(("system.", PREFIX))
            }

    def _writes(self, found: Mapping[str, tuple[str, bytes]]) -> dict[str, int]:
        if self.strength == OPERATIONS:
            totals = self._client.admin.command("top")["totals"]
            return {name: _operations(totals.get(f"{self._database}.{name}", {})) for name in found}
        return {name: self._count(name) for name, (uuid, _) in found.items() if uuid}

    def _count(self, name: str) -> int:
        return int(self._client[self._database].command({"count": name})["n"])


def _operations(total: Mapping[str, Any]) -> int:
    return sum(int(total.get(kind, {}).get("count", 0)) for kind in ("insert", "update", "remove"))
