"""What the steps of a rollback share: its journal, the backup that it puts back, its manager as it is now."""

from tasks.cluster.answers import JsonObject
from tasks.cluster.image_change import deployment_path
from tasks.cluster.session import connected
from tasks.database.restore.plan import RestoreRequest
from tasks.database.return_look import WayBack
from tasks.domain.errors import StoppedError, UnprovenError
from tasks.domain.inventory import DeploymentKey, Facts
from tasks.domain.journal import BackupMade, Entry, Journal
from tasks.record.run_record import RunRecord


class Restored(Facts):
    """What became of the database: `restored` is False where it was left alone, and `why` says so."""

    restored: bool
    why: str


def request_of(way: WayBack) -> RestoreRequest:
    """The database exactly as the backup has it: what the upgrade made is dropped."""
    return RestoreRequest(database=way.database, source_database=backup_of(way).database, exact=True)


def manager_now(installation: str, key: DeploymentKey) -> JsonObject:
    """The manager's Deployment, read afresh; raises what the API does."""
    return connected(installation).apis[key.cluster].get(deployment_path(key))


def restore_entry(way: WayBack, will: str, undo: str, record: RunRecord) -> Entry:
    """The journal's entry of what becomes of the database, begun now."""
    return Entry(kind="restore", subject=way.database, will=will, undo=undo, begun=record.now())


def backup_of(way: WayBack) -> BackupMade:
    """The backup of before the upgrade; `look_for_way_back` has made sure that there is one where it is put back."""
    if way.upgrade.backup is None:
        raise UnprovenError("The upgrade has no backup.", next="Report this defect.")
    return way.upgrade.backup


def journal_of(record: RunRecord) -> Journal:
    """The rollback's journal, which `begin_rollback` has begun or gone on with."""
    if record.journal is None:
        raise StoppedError("The rollback has no journal.", next="Report this defect.")
    return record.journal
