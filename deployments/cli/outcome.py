"""How a command ends: four parts on standard error, one JSON document on standard output where it was asked for."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tasks.domain.errors import UpgradeError, UsageError

OUTPUT_VARIABLE = "APINIZER_UPGRADE_OUTPUT"


class DocumentedError(Exception):
    """An error that belongs to a document: a blocked plan is still a plan to read."""

    def __init__(self, error: UpgradeError, document: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.error = error
        self.document = document


def wants_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether the output is to be JSON, read from the bare arguments: the parser itself may have failed.  Pure."""
    value = environment.get(OUTPUT_VARIABLE, "")
    for argument, following in zip(arguments, [*arguments, ""][1:], strict=True):
        if argument in ("-o", "--output"):
            value = following
        elif argument.startswith("--output="):
            value = argument.partition("=")[2]
        elif argument.startswith("-o") and len(argument) > 2:
            value = argument[2:].removeprefix("=")
    return value == "json"


def tell_failure(error: UpgradeError, arguments: Sequence[str], document: Mapping[str, Any] | None = None) -> int:
    """Tell it where it belongs; the exit code."""
    if wants_json(arguments, os.environ):
        with suppress(OSError):  # an output that takes nothing: the other one still does
            document = {**(document or {}), "error": error.as_json(), "exit_code": error.exit_code}
            print(json.dumps(document, indent=2), flush=True)
    print(f"{'Blocked' if error.exit_code == 3 else 'Error'}: {error}", file=sys.stderr)
    return error.exit_code


def usage_error(error: Exception) -> UsageError | None:
    """A complaint of the option parser in four parts; None where the exception is none of its."""
    told = getattr(error, "format_message", None)
    if not callable(told) or not isinstance(getattr(error, "exit_code", None), int):
        return None
    command = getattr(getattr(error, "ctx", None), "command_path", None) or "apinizer-upgrade"
    return UsageError(
        str(told()).replace("\n", " "), observed="The command line was not understood.", next=f"Ask {command} --help."
    )


def unwritten(error: OSError, safe: str = "Nothing was changed.", next: str = "") -> UpgradeError:
    """The output could not be written (a full disk); `safe` says what was done all the same."""
    return UpgradeError(
        "The result could not be written to the output.",
        observed=error.strerror or type(error).__name__,
        safe=safe,
        next=next or "Write it elsewhere, or to the terminal.",
    )


def defect(error: Exception) -> UpgradeError:
    """An exception that nobody foresaw.  Its text is left out: it may hold an address with a password."""
    trace, where = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        where = f"{code.co_filename.rpartition('site-packages/')[2]}:{trace.tb_lineno} {code.co_name}"
        trace = trace.tb_next
    return UpgradeError(
        "A defect of this program ended it.",
        observed=f"{type(error).__name__} at {where}",
        safe="What was done already stays as it is: apinizer-upgrade status shows it.",
        next="Report it with the line above; APINIZER_UPGRADE_TRACEBACK=1 shows where it came from.",
    )
