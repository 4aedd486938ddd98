"""Which environments the product's own database names, held against those that the clusters show.

The collection's schema is not published: names are read where a document has one, and nothing is concluded
from what is not understood.
"""

from collections.abc import Iterable
from typing import Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

COLLECTION = "environment"
MOST = 200


def unseen_environments(documents: Iterable[dict[str, Any]], shown: Iterable[str]) -> list[str]:
    """Sentences about environments whose name and namespace no cluster shows.  Pure."""
    known = {name.lower() for name in shown}
    sentences = []
    for document in documents:
        names = [v for k in ("name", "namespace", "kubernetesNamespace") if isinstance(v := document.get(k), str) and v]
        if names and not any(name.lower() in known for name in names):
            sentences.append(
                f"The database names an environment {names[0]}; no listed cluster shows a namespace of that name. "
                "If its worker runs in another cluster, add that cluster, or upgrade it there."
            )
    return sentences


def named_environments(database: Database[dict[str, Any]], shown: Iterable[str]) -> list[str]:
    """The same, read from the database; empty where the collection may not be read."""
    try:
        found = list(database[COLLECTION].find({}, {"name": 1, "namespace": 1, "kubernetesNamespace": 1}).limit(MOST))
    except OperationFailure:
        return []
    return unseen_environments(found, shown)
