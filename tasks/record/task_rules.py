"""How this project's Prefect tasks behave: what is tried again, what is never cached."""

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from tasks.domain.errors import TemporaryError
from tasks.record import stopping
from tasks.record.feed import Event, publish
from tasks.record.feed import State as Told


def is_temporary(task: Any, task_run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect calls it by position
    """Only what may pass is tried again.  A plain function: Prefect takes a partial or a callable object for "never"."""
    error = state.data if isinstance(state.data, Exception) else state.result(raise_on_failure=False)
    if not isinstance(error, TemporaryError) or stopping.asked():
        return False
    publish(Event(task_run.name, Told.LOG, f"{error.happened} Trying again."))
    return True


# A look at the world is never answered from a cache, and a temporary error is met with patience and jitter.
LOOKS: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(2),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_temporary,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}

# A database that is restarted, or chooses another primary, is back within the minute.  The driver's own wait for a
# server (10 s) comes on top of each delay; none is long, because a run that is to stop waits for it.
PATIENT: dict[str, Any] = {**LOOKS, "retries": 5, "retry_delay_seconds": [2, 4, 5, 5, 5]}
