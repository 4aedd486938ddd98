"""Which collections a backup takes: the whole server, some databases, with or without collections left out.

Source of what is taken and what is not: mongodump's `prepare.go` (`GetValidDbs`,
`shouldSkipSystemNamespace`).  One difference on purpose: a collection with a dollar sign in its name is
taken, which mongodump passes over because of servers before 3.0 that kept indexes under such names.
"""

from collections.abc import Iterable
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from tasks.database.archive.format import Namespace
from tasks.domain.errors import UsageError

_ONLY_WHEN_NAMED: Final = frozenset({"local", "config"})
_CONFIG_SKIPPED: Final = frozenset(
    {
        "transactions",
        "system.sessions",
        "transaction_coordinators",
        "system.indexBuilds",
        "image_collection",
        "mongos",
        "system.preimages",
    }
)


class Scope(BaseModel):
    """What is asked for.  No `databases` means the whole server.

    `left_out` names collections as `database.collection`, or, where one database is asked for, also without
    the database.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    databases: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, database: str, *, left_out: Iterable[str] = ()) -> Self:
        """One database."""
        return cls(databases=(database,), left_out=tuple(left_out))

    @property
    def whole_server(self) -> bool:
        """Every database but `local` and `config`, as mongodump without `--db`."""
        return not self.databases

    def takes_database(self, name: str) -> bool:
        """Whether collections of the database `name` are asked for."""
        return name in self.databases if self.databases else name not in _ONLY_WHEN_NAMED

    def takes(self, namespace: Namespace) -> bool:
        """Whether the collection, view or time series (by its own name, not its buckets') is archived."""
        return self.takes_database(namespace.db) and not skipped_as_system(namespace) and not self.leaves_out(namespace)

    def leaves_out(self, namespace: Namespace) -> bool:
        """Whether it was named as one to leave out."""
        return any(self._meant(left_out, namespace) for left_out in self.left_out)

    def left_out_of(self, found: Iterable[Namespace]) -> list[str]:
        """`database.collection` of each of `found` that is left out though it would be archived otherwise."""
        return sorted(
            str(namespace)
            for namespace in found
            if self.takes_database(namespace.db) and not skipped_as_system(namespace) and self.leaves_out(namespace)
        )

    def idle(self, found: Iterable[Namespace]) -> list[str]:
        """What was to be left out and is none of `found`."""
        there = list(found)
        return [name for name in self.left_out if not any(self._meant(name, namespace) for namespace in there)]

    def check(self) -> None:
        """Raises UsageError where a collection to leave out names no database and it is not clear which is meant."""
        if len(self.databases) == 1:
            return
        unclear = [name for name in self.left_out if "." not in name.strip(".")]
        strange = [
            name for name in self.left_out if name not in unclear and not self.takes_database(name.split(".")[0])
        ]
        if unclear or strange:
            raise UsageError(
                f"It is not clear which collection is to be left out: {', '.join([*unclear, *strange])}.",
                observed=f"The backup takes {', '.join(self.databases) or 'the whole server'}.",
                next="Write each as database.collection.",
            )

    def _meant(self, left_out: str, namespace: Namespace) -> bool:
        if left_out == str(namespace):
            return True
        return len(self.databases) == 1 and left_out == namespace.collection


def skipped_as_system(namespace: Namespace) -> bool:
    """Whether mongodump never archives it: the server makes it anew, or it comes back by another's definition."""
    database, collection = namespace.db, namespace.collection
    if database == "admin":
        return collection == "system.keys"
    if database == "config":
        return collection in _CONFIG_SKIPPED or collection.startswith("cache.")
    return collection.startswith("system.") and collection != "system.js"
