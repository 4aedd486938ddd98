"""Is the Prefect server that PREFECT_API_URL names there, and does it let us in?"""

import os
import re

from tasks.domain.errors import TemporaryError, UnauthorizedError, UsageError

CHECK = "Check PREFECT_API_URL and PREFECT_API_AUTH_STRING, and that the server runs."
UNAUTHORIZED, FORBIDDEN = 401, 403
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def check_level() -> None:
    """Raise `UsageError` for a PREFECT_LOGGING_LEVEL that Prefect would not even be imported with."""
    level = os.environ.get("PREFECT_LOGGING_LEVEL", "")
    if level and level.upper() not in LEVELS:
        raise UsageError(
            f"PREFECT_LOGGING_LEVEL is {level!r}, which is no level.",
            observed=f"Levels are {', '.join(LEVELS)}.",
            next="Set it to one of these, or unset it.",
        )


def reach(server: str) -> None:
    """Ask it something that needs the password; raise `TemporaryError` or `UnauthorizedError` where it does not answer."""
    from httpx import HTTPError, HTTPStatusError, InvalidURL
    from prefect.client.orchestration import get_client

    shown = re.sub(r"//[^/]*@", "//***@", server)
    try:
        with get_client(sync_client=True) as client:
            client.hello().raise_for_status()
            client.read_work_pools(limit=1)
    except HTTPStatusError as error:
        status = error.response.status_code
        if status in (UNAUTHORIZED, FORBIDDEN):
            raise UnauthorizedError(
                f"The Prefect server at {shown} refused the login.", observed=f"It answered {status}.", next=CHECK
            ) from None
        raise _away(shown, f"It answered {status}.") from None
    except (HTTPError, InvalidURL) as error:
        raise _away(shown, type(error).__name__) from None
    except (RuntimeError, ValueError) as error:
        # The client's own look at the server's version wraps what it met.
        raise _away(shown, type(error.__cause__ or error.__context__ or error).__name__) from None


def _away(shown: str, observed: str) -> TemporaryError:
    return TemporaryError(f"The Prefect server at {shown} does not answer.", observed=observed, next=CHECK)
