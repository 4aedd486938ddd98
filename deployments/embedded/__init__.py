"""A Prefect server for one run, started when nobody named another one.

Prefect's own ephemeral server takes its time: half of its start migrates and fills an empty database,
and almost half of the rest is Python's garbage collector walking the classes that are being imported.
Here a migrated template is loaded (`template`) into a database in memory, the server imports with the
collector off (`serve`), and it runs in a process of its own that loads while the caller reads the world.

Importing this package costs the standard library only; Prefect is imported by the server's process.
"""

from deployments.embedded.imports import quick_imports
from deployments.embedded.server import EmbeddedServer, without_heartbeats
from deployments.embedded.template import prepare

__all__ = ["EmbeddedServer", "prepare", "quick_imports", "without_heartbeats"]
