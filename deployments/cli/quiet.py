"""Keeps Prefect's own lines off the screen: the command line shows the run itself, and errors in four parts."""

import logging
import os


def quiet_prefect() -> None:
    """Take Prefect's handlers for the console away; what it sends to its server stays.

    Whoever sets PREFECT_LOGGING_LEVEL wants to see its lines, and does.
    """
    if os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING") != "WARNING":
        return
    from prefect.logging.configuration import setup_logging
    from prefect.logging.handlers import PrefectConsoleHandler

    setup_logging()
    for logger in (logging.root, *map(logging.getLogger, tuple(logging.root.manager.loggerDict))):
        for handler in tuple(logger.handlers):
            if isinstance(handler, PrefectConsoleHandler):
                logger.removeHandler(handler)
