"""Which environments the product's own database names, held against those that the clusters show.

The collection's schema is not published: names are read where a document has one, and nothing is concluded
from what is not understood.
"""

from collections.abc import Iterable
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

COLLECTION = "environment"
FIELDS = ("name", "namespace", "kubernetesNamespace")
MOST = 200


def unseen_environments(documents: Iterable[dict[str, Any]], shown: Iterable[str]) -> list[str]:
    """A sentence about environments whose name and namespace no cluster shows, if there are any.  Pure."""
    known = {name.lower() for name in shown}
    unseen = []
    for document in documents:
        names = [v for k in FIELDS if isinstance(v := document.get(k), str) and v]
        if names and not any(name.lower() in known for name in names):
            unseen.append(names[0])
    if not unseen:
        return []
    return [
        (
            f"The database names environments that no listed cluster shows as a namespace: {', '.join(sorted(set(unseen)))}. "
            "If a worker of theirs runs in another cluster, add that cluster, or upgrade it there."
        )
    ]


def named_environments(database: Database[dict[str, Any]], shown: Iterable[str]) -> list[str]:
    """The same, read from the database; empty where the collection may not be read."""
    try:
        found = list(database[COLLECTION].find({}, dict.fromkeys(FIELDS, 1)).limit(MOST))
    except OperationFailure:
        return []
    return unseen_environments(found, shown)
