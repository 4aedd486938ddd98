"""The commands on runs: `runs`, `runs show`, `runs abandon`.  `main` registers them."""

from typing import Annotated

import typer

from deployments.cli import options as opt
from deployments.cli.grouping import grouped
from tasks.domain.errors import UsageError

Run = Annotated[str, typer.Argument(metavar="ID", help="The run's ID, or its beginning where that is unique.")]

app = typer.Typer(
    name="runs",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="What was done: every upgrade and rollback that is recorded in the cluster, and what is unfinished.",
)


@app.callback()
@grouped
def runs(
    *,
    context_: typer.Context,
    site: opt.Site,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Show the upgrades and rollbacks that are recorded in the cluster, newest first, and which are unfinished."""
    if context_.invoked_subcommand is not None:
        _require_none_given(context_)
        return
    from deployments.cli import runs_look

    runs_look.listed(site.settings(), output)


def _require_none_given(context: typer.Context) -> None:
    """An option before the subcommand would be passed over."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--{name} stands before {context.invoked_subcommand}, where it counts for nothing.",
                observed="Options of `runs` alone are for its table.",
                next=f"Write it behind: apinizer-upgrade runs {context.invoked_subcommand} ... --{name} ...",
            )


@app.command()
@grouped
def show(
    *,
    run: Annotated[
        str, typer.Argument(metavar="[ID]", help="The run's ID or its beginning; the newest if left out.")
    ] = "",
    site: opt.Site,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Show all of one run: each change with what was there before and how to undo it, errors, backups, what can be done."""
    from deployments.cli import runs_look

    runs_look.show(site.settings(), run, output)


@app.command()
@grouped
def abandon(
    *,
    run: Run,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.")],
    site: opt.Site,
    yes: opt.Yes = False,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Say that an unfinished run is not to go on, so that another may begin.  The installation is left as it is."""
    from deployments.cli import runs_abandoning

    settings = site.settings()
    runs_abandoning.abandon(settings, run, reason, output, ask=not yes)
