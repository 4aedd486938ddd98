"""Journals as runs leave them, from the few words that a case gives."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.domain.inventory import DeploymentKey
from tasks.domain.journal import BackupMade, Before, Entry, Journal, Owner
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW = "2025.04.3", "2025.07.0"
MANAGER = DeploymentKey(cluster="", namespace="apinizer", name="manager")
ONE = Owner(user="ayse", host="bastion", pid=4711, tool="apinizer-upgrade 0.1.0")
OTHER = Owner(user="ci", host="runner-7", pid=22, tool="apinizer-upgrade 0.1.0", run="b7")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def backup(name: str = "apinizer-backup--2025.04.3--2026-03-01--01.archive") -> BackupMade:
    return BackupMade(
        host="bastion",
        archive=f"/var/backups/{name}",
        sha256="5f" * 32,
        documents=1234,
        database="apinizerdb",
        hosts=("mongo-0:25080", "mongo-1:25080"),
        version=OLD,
        made=at(20),
    )


def key(text: str) -> DeploymentKey:
    namespace, _, name = text.partition("/")
    return DeploymentKey(cluster="", namespace=namespace, name=name)


def set_image(
    of: str = "apinizer/manager", *, to: str = NEW, was: str = OLD, repository: str = "manager", **more: Any
) -> Entry:
    """The change of a Deployment's one Apinizer container; `done` says after how many seconds, else it is open."""
    done = more.pop("done", None)
    container = more.pop("container", "main")
    new = f"apinizercloud/{repository}:{to}"
    return Entry(
        kind="set-image",
        subject=of,
        key=key(of),
        component=more.pop("component", "manager"),
        will=f"Set the image of {of} to {new}.",
        undo=f"kubectl -n {key(of).namespace} set image deployment/{key(of).name} {container}=apinizercloud/{repository}:{was}",
        before=more.pop(
            "before",
            Before(
                uid=f"uid-{of.replace('/', '-')}",
                generation=2,
                replicas=1,
                strategy="Recreate",
                images={container: more.pop("image", f"apinizercloud/{repository}:{was}")},
                ran={container: (f"docker.io/apinizercloud/{repository}@sha256:" + "ab" * 32,)},
            ),
        ),
        images={container: new},
        begun=at(30),
        done=None if done is None else at(done),
        evidence={} if done is None else {"generation": 3, "answered": to},
    ).model_copy(update=more)


def scale(of: str = "apinizer/manager", *, to: int = 0, was: int = 1, done: float | None = None) -> Entry:
    return Entry(
        kind="scale",
        subject=of,
        key=key(of),
        component="manager",
        will=f"Scale {of} to {to}.",
        undo=f"kubectl -n {key(of).namespace} scale deployment/{key(of).name} --replicas={was}",
        before=Before(uid=f"uid-{of.replace('/', '-')}", generation=2, replicas=was),
        replicas=to,
        begun=at(40),
        done=None if done is None else at(done),
    )


def restore(done: float | None = None) -> Entry:
    return Entry(
        kind="restore",
        subject="apinizerdb",
        will="Restore apinizerdb as it was before.",
        undo="apinizer-upgrade restore SAFETY --exact",
        begun=at(50),
        done=None if done is None else at(done),
    )


def journal(id: str = "20260301-120000-aa", *entries: Entry, **more: Any) -> Journal:  # noqa: A002 - it is called so
    """An upgrade that has begun; `begun` in seconds after noon."""
    begun = at(more.pop("begun", 0))
    made = Journal(
        id=id,
        kind=more.pop("kind", "upgrade"),
        manager=MANAGER,
        current=Version(OLD),
        to=Version(more.pop("to", NEW)),
        request=PlanRequest(to=Version(NEW), environments=("test", "prod")),
        options={"manager_timeout": 1200, "backup_dir": "/var/backups"},
        begun=begun,
        entries=entries,
    )
    made = made if more.pop("tries", None) == () else made.take_up(ONE, begun)
    return made.model_copy(update=more)


def rollback(of: Journal, id: str = "20260301-130000-bb", *entries: Entry, **more: Any) -> Journal:  # noqa: A002
    return journal(
        id, *entries, kind="rollback", of=of.id, to=OLD, **{"begun": 3600, "backup": of.backup, "request": None} | more
    )
