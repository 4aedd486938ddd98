"""The question before the first change: put to a person, answered with a yes or ended in four parts."""

import sys

from tasks.domain.errors import UpgradeError


def attended() -> bool:
    """Whether a person sits at the terminal."""
    return sys.stdin.isatty()


def agree(question: str, happened: str, *, safe: str, next: str) -> None:
    """Ask; raise `UpgradeError` with these parts unless the answer is yes.  Ctrl-C and the end of the input are a no."""
    import typer

    try:
        # On standard error: what is printed may go into a pipe while a person sits at the keyboard.
        if typer.confirm(question, err=True):
            return
        observed = "The answer was no."
    except typer.Abort:
        print(file=sys.stderr)
        observed = "The question was not answered: it was interrupted."
    raise UpgradeError(happened, observed=observed, safe=safe, next=next)
