"""The commands of `apinizer-upgrade`.

Exit codes: 0 done, 1 failed, 2 usage (an option or a file is wrong), 3 blocked by a finding.
Importing this module imports neither Prefect nor a client library, so that --help answers at once.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from deployments.cli import database_commands, images_commands, rollback_commands, runs_commands
from deployments.cli import database_options as db
from deployments.cli import images_options as img
from deployments.cli import options as opt
from deployments.cli.grouping import grouped
from deployments.cli.outcome import DocumentedError, defect, tell_failure, unwritten, usage_error
from tasks.domain.errors import UpgradeError, UsageError

EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="apinizer-upgrade",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Upgrade an Apinizer installation on Kubernetes in the right order, with proof at every step.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 blocked by a finding.",
)


@app.callback(invoke_without_command=True)
def _version(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"apinizer-upgrade {installed('apinizer-upgrade')}")
        raise typer.Exit


@app.command()
@grouped
def status(
    *,
    site: opt.Site,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Show every component: namespace, deployment, container, image, version, ready pods."""
    from deployments.cli import look

    look.status(site.settings(), output)


@app.command()
@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def plan(
    *,
    to: opt.To,
    place: img.Place,
    course: opt.Course,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Show what an upgrade would do, in order, and what stands against it.  Changes nothing."""
    from deployments.cli import look

    settings = place.settings_with(images)
    look.plan(settings, course.wish(settings, to), output)


@app.command()
@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def upgrade(
    *,
    to: opt.To,
    place: img.Place,
    course: opt.Course,
    making: db.Keeping,
    patience: opt.Patience,
    on_failure: opt.OnFailureChoice = opt.OnFailure.STOP,
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Upgrade: backup, manager, and when it is Ready all others, each pod asked for its version."""
    from deployments.cli import look, upgrading

    settings = making.on(patience.on(place.settings_with(images, backup_dir=making.backup_dir)))
    wish = course.wish(settings, to)
    if dry_run:
        look.plan(settings, wish, output)
        return
    upgrading.upgrade(settings, wish, output, ask=not yes, on_failure=on_failure)


@app.command()
@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def resume(
    *,
    run: Annotated[
        str, typer.Argument(metavar="[ID]", help="The run, or how its ID begins; the newest unfinished one.")
    ] = "",
    place: img.Place,
    making: db.Keeping,
    patience: opt.Patience,
    yes: opt.Yes = False,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Go on with an unfinished run at the first step whose effect is not there; from any machine."""
    from deployments.cli import resuming

    settings = making.on(place.settings_with(images, backup_dir=making.backup_dir))
    resuming.resume(settings, run, output, ask=not yes, times=patience.given)


for _command in (
    database_commands.backup,
    database_commands.backups,
    database_commands.verify,
    database_commands.restore,
    rollback_commands.rollback,
    rollback_commands.undo,
):
    app.command()(_command)
app.add_typer(images_commands.app)
app.add_typer(runs_commands.app)


@app.command()
def demo(
    to: Annotated[str, typer.Option("--to", help="The version to upgrade the sandbox to.")] = "2025.07.0",
    start: Annotated[str, typer.Option("--from", help="The version that the sandbox starts with.")] = "2025.04.3",
    speed: Annotated[float, typer.Option("--speed", min=0.1, help="How much faster than life time runs.")] = 1.0,
) -> None:
    """Start an installation without a cluster and upgrade it, to see it happen."""
    from deployments.cli import demonstration

    demonstration.demo(start, to, speed)


@app.command()
@grouped
def deploy(
    *,
    installation: Annotated[
        str, typer.Option("--installation", help="The installation's name: its block and deployment.")
    ] = "default",
    pool: Annotated[str, typer.Option("--pool", help="The process work pool; made if it is not there.")] = "apinizer",
    site: opt.Site,
    to: Annotated[str, typer.Option("--to", help="The version that a schedule upgrades to.")] = "",
    cron: Annotated[str, typer.Option("--cron", help='A schedule, e.g. "0 2 * * 6".')] = "",
    stage_cron: Annotated[
        str, typer.Option("--stage-cron", help='When that version\'s images are brought before, e.g. "0 20 * * 5".')
    ] = "",
    backup_cron: Annotated[str, typer.Option("--backup-cron", help='When backups are made, e.g. "0 1 * * *".')] = "",
    timezone: Annotated[
        str, typer.Option("--timezone", help="The schedules' time zone, e.g. Europe/Istanbul.")
    ] = "UTC",
    no_schedule: Annotated[bool, typer.Option("--no-schedule", help="Take the schedules away.")] = False,
) -> None:
    """Register the flows with the Prefect server at PREFECT_API_URL, with their schedules; may be run again."""
    from deployments.cli import registration

    settings = site.settings() if any((site.config, site.kubeconfig, site.context, site.namespace)) else None
    registration.deploy(
        installation,
        pool,
        settings,
        to=to,
        cron=cron,
        backup_cron=backup_cron,
        stage_cron=stage_cron,
        timezone=timezone,
        keep=not no_schedule,
    )


def run() -> None:
    """The entry point: errors become their four parts on standard error and an exit code, never a traceback."""
    code = exit_code_of(app, sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter's own flush at the end would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else nobody reads any more, and nobody misses it
            code = code or tell_failure(unwritten(error), [])
    sys.exit(code)


def exit_code_of(application: Callable[..., Any], arguments: list[str]) -> int:
    """Run the application; what it raised decides the code."""
    try:
        code = application(arguments, standalone_mode=False)
    except UpgradeError as error:
        return tell_failure(error, arguments)
    except DocumentedError as both:
        return tell_failure(both.error, arguments, both.document)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        return 128 + signal.SIGPIPE  # as any command whose reader has gone
    except OSError as error:
        # Files are written by engines, which have errors of their own: this is the output.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
        return tell_failure(unwritten(error) if full else defect(error), [] if full else arguments)
    except Exception as error:
        if type(error).__name__ == "Abort":
            return _interrupted()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(str(error), file=sys.stderr)
            return UsageError.exit_code
        told = usage_error(error)
        if told is None and os.environ.get("APINIZER_UPGRADE_TRACEBACK"):
            raise
        return tell_failure(told or defect(error), arguments)
    return code if isinstance(code, int) else 0


def _interrupted() -> int:
    print("Interrupted.", file=sys.stderr)
    return EXIT_INTERRUPTED


if __name__ == "__main__":
    run()
