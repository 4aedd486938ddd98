"""The ways back: `rollback` and `undo`.  `main` registers them."""

from typing import Annotated

import typer

from deployments.cli import database_options as db
from deployments.cli import images_options as img
from deployments.cli import options as opt

Run = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The upgrade to undo, as `runs` shows it, or a rollback that goes on; else the newest."
    ),
]
Backup = Annotated[
    str,
    typer.Option(
        "--backup",
        envvar="APINIZER_UPGRADE_BACKUP",
        metavar="ID",
        help="The backup that may be put back: its file's name, or the first 8 digits or more of its SHA-256. Where nobody can be asked it has to be named.",
    ),
]
StopAll = Annotated[
    bool,
    typer.Option(
        "--stop-all", help="Stop the other components too while the database is put back, not the manager alone."
    ),
]
MadeAnew = Annotated[
    bool,
    typer.Option(
        "--manager-made-anew",
        help="The manager was deleted and deployed again since the upgrade, and is this installation's all the same.",
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", metavar="NAMESPACE/NAME", help="Leave this Deployment as it is; may be repeated."),
]


Deployment = Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="NAMESPACE/NAME, as `status` shows it.")]
UndoTo = Annotated[
    str, typer.Option("--to", metavar="VERSION", help="The version to go back to: the one that the manager answers.")
]


@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def rollback(
    *,
    run: Run = "",
    place: img.Place,
    backup: Backup = "",
    stop_all: StopAll = False,
    without: Without = None,
    manager_made_anew: MadeAnew = False,
    making: db.Making,
    patience: opt.Patience,
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Go back from an upgrade: the database exactly as it was before, then the old images, the manager first.

    What was written to the database since is lost, and is shown before; a backup of it is made first.
    """
    from deployments.cli import return_view, rolling_back

    settings = making.on(patience.on(place.settings_with(images, backup_dir=making.backup_dir)))
    wish = return_view.RollbackWish(
        run=run, backup=backup, stop_all=stop_all, without=tuple(without or ()), manager_made_anew=manager_made_anew
    )
    rolling_back.rollback(settings, wish, output, ask=not yes, dry_run=dry_run)


@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def undo(
    *,
    deployment: Deployment,
    to: UndoTo,
    place: img.Place,
    repository: opt.Repository = None,
    timeout: opt.Timeout = None,
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Put one failed component back alone, where its database accepts that version; else it is refused with the reason."""
    from deployments.cli import undoing

    settings = opt.with_timeouts(place.settings_with(images), None, timeout)
    wish = opt.wish(settings, to, "", None, None, repository)
    undoing.undo(settings, deployment, wish, output, ask=not yes, dry_run=dry_run)
