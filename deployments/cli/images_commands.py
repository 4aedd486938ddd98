"""The commands on images: `images status`, `stage`, `bundle`, `load`, `prune`.  `main` registers them."""

import typer

from deployments.cli import images_bundle_options as bun
from deployments.cli import images_options as img
from deployments.cli import options as opt

VARIABLES = "Options on images have environment variables of their names: --ssh-user is APINIZER_UPGRADE_SSH_USER."

app = typer.Typer(
    name="images",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Bring a release's images to where the pods run, before an upgrade or by file; see what the nodes hold.",
)


@app.command(epilog=VARIABLES)
@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def status(
    *,
    to: img.ToOptional = "",
    held: img.HeldOut = None,
    place: img.Place,
    repository: opt.Repository = None,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Show which releases' images each node holds; with --to what that version would have to bring.

    A way to nodes asks each node's runtime over SSH; any other takes what the kubelets report.
    """
    from deployments.cli import images_status

    settings = place.settings_with(images)
    wish = opt.wish(settings, to, "", None, None, repository) if to else None
    images_status.status(settings, wish, held, output)


@app.command(epilog=VARIABLES)
@img.takes_images(img.Going, img.Taking, img.Bundled, img.Signed, img.Registry, img.Reaching)
def stage(
    *,
    to: opt.To,
    place: img.Place,
    repository: opt.Repository = None,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Bring a version's images where its pods can run, what is missing of them, and have each node prove them.

    Changes nothing that runs: for the hours before a maintenance window.  An upgrade then finds them there.
    """
    from deployments.cli import images_staging

    settings = place.settings_with(images)
    images_staging.stage(settings, opt.wish(settings, to, "", None, None, repository), output)


@app.command(epilog=VARIABLES)
@img.takes_images(img.Taking, img.Reaching)
def bundle(
    *,
    to: opt.To,
    since: bun.Since = "",
    held: bun.Held = None,
    out: bun.Out = None,
    compress: bun.Compress = None,
    sign: bun.Sign = None,
    source: bun.From = None,
    replace: bun.Replace = False,
    config: opt.Config = None,
    repository: opt.Repository = None,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Write a version's images into one file, for a site without a line.  Needs no cluster.

    With --since or --held only what the site lacks.  The file is an OCI layout that other tools read as well.
    """
    from deployments.cli import images_staging

    settings = img.with_images(opt.settings(config, "", "", None), images)
    wish = opt.wish(settings, to, "", None, None, repository)
    order = bun.BundleOrder(source, since, held, out, compress, sign, replace)
    images_staging.bundle(settings, wish, order, output)


@app.command(epilog=VARIABLES)
@img.takes_images(img.Going, img.Signed, img.Registry, img.Reaching)
def load(
    file: bun.Bundle,
    *,
    place: img.Place,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Verify a bundle whole, then bring its images to the nodes, or to the registry with --way bundle-to-registry.

    Without --way it goes to where the configuration's own way leads.
    """
    from deployments.cli import images_staging

    settings = place.settings(image_prefix=place.image_prefix)
    images_staging.load(img.with_bundle(settings, images, file), file, output)


@app.command(epilog=VARIABLES)
@img.takes_images(img.Reaching)
def prune(
    *,
    keep: img.Keep = 0,
    config: opt.Config = None,
    kubeconfig: opt.Kubeconfig = "",
    context: opt.Context = "",
    backup_dir: opt.BackupDir = "",
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    output: opt.Output = opt.Format.TEXT,
    images: img.Choices,
) -> None:
    """Remove old releases' images from the nodes: never one in use, never one that a way back needs.

    Shows per node what goes and why the rest stays, then asks; without a terminal it needs --dry-run or --yes.
    """
    from deployments.cli import images_pruning

    settings = opt.settings(config, kubeconfig, context, None, backup_dir=backup_dir)
    images_pruning.prune(img.with_images(settings, images), keep, output, ask=not yes, dry_run=dry_run)
