"""The open connections of a run, found by the installation's name.

A Prefect task's parameters are stored and shown, so they carry the name; clients and secrets stay here.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from blocks.installation import installation
from tasks.cluster.planning import Connections
from tasks.cluster.watch import WatchHub


@dataclass(frozen=True, slots=True)
class Session:
    """The clients of an installation's clusters, and one hub of shared watches for each."""

    connections: Connections
    hubs: Mapping[str, WatchHub]


_open: dict[str, Session] = {}


@contextmanager
def session(name: str, *, clusters: bool = True) -> Iterator[Session]:
    """Open the installation `name` for the tasks of a run; raise `UsageError` where it cannot be opened.

    Without `clusters` no kubeconfig is looked for: the run needs the database alone.
    """
    settings = installation(name)
    connections = Connections.open(settings) if clusters else Connections(settings)
    _open[name] = Session(connections, {key: WatchHub(api) for key, api in connections.apis.items()})
    try:
        yield _open[name]
    finally:
        _open.pop(name, None)


def connected(name: str) -> Connections:
    """The clients that `session` opened."""
    return _open[name].connections


def hub(name: str, cluster: str) -> WatchHub:
    """The watches of one of its clusters."""
    return _open[name].hubs[cluster]
