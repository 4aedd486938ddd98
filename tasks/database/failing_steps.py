"""The look before an automatic way back, as a Prefect task: the manager fails again although its database answers."""

from contextlib import ExitStack

from prefect import task

from tasks.cluster.session import connected, hub
from tasks.database.connection import Client, open_database
from tasks.database.fails_for_good import why_not_for_good
from tasks.database.source import address_of
from tasks.domain.inventory import DeploymentKey
from tasks.record import stopping
from tasks.record.feed import State
from tasks.record.task_rules import LOOKS
from tasks.record.telling import failure_told, tell

ANSWER_SECONDS = 2.0
WATCHED_SECONDS = 330.0
"""The kubelet's longest pause between two starts is 300 s (MaxContainerBackOff)."""


@task(name="failed for good", task_run_name="failed for good: {manager}", **LOOKS)
def see_it_fail_again(installation: str, manager: DeploymentKey, uid: str, images: dict[str, str]) -> str:
    """ "" once the manager failed in a whole run while its database answered; else why that is not sure."""
    name = str(manager)
    tell(name, State.RUNNING, "watched once more before going back: does it fail again while the database answers?")
    with failure_told(name), ExitStack() as stack:
        uri = address_of(connected(installation), manager).uri.get_secret_value()
        view = stack.enter_context(hub(installation, manager.cluster).view(manager.namespace))
        why = why_not_for_good(
            view, uid, images, _Asked(uri, stack), deadline_seconds=WATCHED_SECONDS, stop=stopping.asked
        )
    tell(name, State.RUNNING, why or "it failed again, from its start to its end")
    return why


class _Asked:
    """Whether the database answers now, through one client as long as it does."""

    def __init__(self, uri: str, stack: ExitStack) -> None:
        self._uri, self._stack = uri, stack
        self._client: Client | None = None

    def __call__(self) -> bool:
        try:
            if self._client is None:
                opened = open_database(self._uri, timeout=ANSWER_SECONDS, reply_timeout=ANSWER_SECONDS)
                self._client = self._stack.enter_context(opened)
            self._client.admin.command("ping")
        except Exception:  # noqa: BLE001 - whatever it is, it is no answer
            return False
        return True
