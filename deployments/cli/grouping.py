"""Options that commands share, as groups: a dataclass whose fields are options, taken as one parameter."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

Command = Callable[..., None]


def options_of(group: type) -> list[inspect.Parameter]:
    """The options of a group, as parameters that Typer reads."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name])
        for each in fields(group)
    ]


def reads_as(command: Command, parameters: list[inspect.Parameter]) -> Command:
    """`command` with these parameters for whoever reads its signature, as Typer does."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {**{p.name: p.annotation for p in parameters}, "return": None}
    return command


def grouped(command: Command) -> Command:
    """Give a command the options of each of its parameters that is a group, where that one stands."""
    hints = get_type_hints(command, include_extras=True)
    own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    groups: dict[str, type[Any]] = {
        p.name: p.annotation for p in own if isinstance(p.annotation, type) and is_dataclass(p.annotation)
    }

    @wraps(command)
    def run(**given: Any) -> None:
        made = {
            name: group(**{o.name: given.pop(o.name) for o in options_of(group) if o.name in given})
            for name, group in groups.items()
        }
        command(**given, **made)

    read: list[inspect.Parameter] = []
    for parameter in own:
        plain = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        read += options_of(groups[parameter.name]) if parameter.name in groups else plain
    return reads_as(run, read)
