"""Where the journals of an installation are, its manager there or not: a run may have lost it, and its journal tells of it."""

from tasks.cluster.planning import Connections
from tasks.domain.errors import BlockedError, ForbiddenError, NotFoundError
from tasks.domain.inventory import DeploymentKey
from tasks.record.journal_object import SELECTOR
from tasks.record.journal_store import JournalStore, journal_store_for


def find_stores(connections: Connections) -> tuple[JournalStore, ...]:
    """The store of the one manager; where there is not one, every namespace that holds a journal by its labels.

    Raises what `journal_store_for` and the inventory raise where the account may not look further than the manager's
    namespace, and the errors of `KubernetesApi`.
    """
    try:
        return (journal_store_for(connections, connections.inventory()),)
    except (NotFoundError, BlockedError) as missing:
        try:
            places = [
                DeploymentKey(cluster=cluster, namespace=str(thing["metadata"]["namespace"]), name="")
                for cluster, api in connections.apis.items()
                for thing in api.list("/api/v1/configmaps", labels=SELECTOR).items
            ]
        except ForbiddenError:
            raise missing from None
        if not places:
            raise
        return tuple(journal_store_for(connections, place) for place in dict.fromkeys(places))
