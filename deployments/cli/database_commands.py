"""The commands on the database: `backup`, `backups`, `verify`, `restore`.  `main` registers them."""

from deployments.cli import database_options as db
from deployments.cli import options as opt
from deployments.cli.grouping import grouped


@grouped
def backup(
    *,
    site: opt.Site,
    uri: db.Uri = None,
    uri_file: db.UriFile = None,
    database: db.Database = "",
    apinizer_version: db.ApinizerVersion = "",
    making: db.Keeping,
    whole_server: db.WholeServer = None,
    leave_out: db.LeaveOut = None,
    no_gzip: db.NoGzip = False,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Back up the database and read the backup back whole.  With --uri no cluster is needed."""
    from deployments.cli import backing_up

    settings = site.settings(backup_dir=making.backup_dir)
    settings = db.with_address(settings, uri, uri_file, database)
    left_out = tuple(leave_out) if leave_out else None
    settings = making.on(settings, whole_server=whole_server, leave_out=left_out)
    named = db.names_server(uri, uri_file)
    backing_up.backup(settings, apinizer_version or ("unknown" if named else ""), output, gzip=not no_gzip)


def backups(config: opt.Config = None, backup_dir: opt.BackupDir = "", output: opt.Output = opt.Format.TEXT) -> None:
    """List the backups in the folder, newest first: which were read back, and what is wrong with the others."""
    from deployments.cli import backing_up

    backing_up.list_backups(opt.settings(config, "", "", None, backup_dir=backup_dir), output)


@grouped
def verify(
    *,
    archive: db.Archive,
    site: opt.Site,
    uri: db.Uri = None,
    uri_file: db.UriFile = None,
    scratch_uri: db.ScratchUri = "",
    scratch_database: db.ScratchDatabase = "",
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Read an archive whole: structure, every checksum, every count of its manifest, every index definition.

    With --scratch-uri or --scratch-database it is restored there on trial as well, and every collection compared.
    """
    from deployments.cli import verifying

    if not scratch_uri and not scratch_database:
        verifying.verify(archive, output)
        return
    settings = db.with_address(site.settings(), uri, uri_file, "")
    verifying.rehearse(archive, db.with_scratch(settings, scratch_uri), scratch_database, output)


@grouped
def restore(
    *,
    archive: db.ArchiveOrFrom = None,
    site: opt.Site,
    uri: db.Uri = None,
    uri_file: db.UriFile = None,
    database: db.Database = "",
    source_database: db.SourceDatabase = "",
    include: db.Include = None,
    exclude: db.Exclude = None,
    from_: db.From = "",
    rename: db.Rename = None,
    exact: db.Exact = False,
    merge: db.Merge = "",
    from_other_installation: db.OtherInstallation = False,
    give_up: db.GiveUp = False,
    making: db.Making,
    no_safety_backup: db.NoSafetyBackup = False,
    no_cluster: db.NoCluster = False,
    yes: opt.Yes = False,
    dry_run: opt.DryRun = False,
    output: opt.Output = opt.Format.TEXT,
) -> None:
    """Put the database back from a backup.  The manager must be scaled to 0; what is there now is backed up first."""
    from deployments.cli import restoring

    settings = site.settings(backup_dir=making.backup_dir)
    settings = db.with_address(settings, uri, uri_file, database)
    settings = making.on(settings)
    wish = restoring.RestoreWish(
        archive=db.named_archive(settings, archive, from_),
        source_database=source_database,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        rename=db.renames(rename),
        exact=exact,
        merge=merge,
        other_installation=from_other_installation,
        give_up=give_up,
        safety_backup=not no_safety_backup,
        ask_cluster=not no_cluster,
    )
    restoring.restore(settings, wish, output, ask=not yes, dry_run=dry_run)
