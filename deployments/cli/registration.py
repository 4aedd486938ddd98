"""`deploy`: registers work pool, blocks and the flows' deployments with a Prefect server.  May be run again."""

import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from blocks.image_settings import ImageSourceSettings
from blocks.settings import ClusterSettings, InstallationSettings
from deployments.cli.server import check_level, reach
from deployments.cli.tables import console
from tasks.domain.errors import UsageError
from tasks.domain.version import Version

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
FILE = Path(__file__).parent.parent / "prefect.yaml"


def deploy(
    installation: str,
    pool: str,
    settings: InstallationSettings | None,
    *,
    to: str,
    cron: str,
    backup_cron: str,
    timezone: str,
    keep: bool,
    stage_cron: str = "",
) -> None:
    """Register everything; raise `UsageError` for what cannot be, `TemporaryError` where the server is away.

    `cron` is when the upgrade to `to` runs, `stage_cron` when its images are brought, `backup_cron` when a backup is
    made.  Without one the schedules that are there stay, unless `keep` is false.
    """
    if not NAME.fullmatch(installation):
        raise UsageError(
            f"{installation!r} cannot be an installation's name.",
            observed="A block's name is of lower-case letters, digits and dashes.",
            next="Name it like site-a.",
        )
    check_level()
    wanted = _checked_schedules(to, cron, stage_cron, backup_cron, timezone)
    server = os.environ.get("PREFECT_API_URL", "")
    if not server:
        raise UsageError(
            "No Prefect server is named.",
            observed="PREFECT_API_URL is not set.",
            next="Start one (prefect server start) and set PREFECT_API_URL=http://HOST:4200/api.",
        )
    declared = yaml.safe_load(FILE.read_text(encoding="utf-8"))["deployments"]
    reach(server)
    say = console().print
    say(f"Work pool {pool}: {_make_pool(pool, declared[0]['work_pool']['type'])}", markup=False)
    say(f"Block apinizer-installation/{installation}: {_save_block(installation, settings)}", markup=False)
    for each in declared:
        flow = each["entrypoint"].rpartition(".")[2]
        present = _present_schedules(f"{flow}/{installation}") if keep else []
        schedules = [_cron(wanted[flow])] if flow in wanted else present
        name = _apply(each, installation, pool, settings, schedules)
        say(f"Deployment {name}: registered, {_told(schedules)}", markup=False)
    say(
        f"\nStart a worker where the cluster and the backup folder can be reached:\n  prefect worker start --pool {pool}",
        markup=False,
    )
    say(
        f"Start a run here, in the UI, or from CI by REST:\n  prefect deployment run 'upgrade/{installation}' -p to=VERSION",
        markup=False,
    )


def _checked_schedules(
    to: str, cron: str, stage_cron: str, backup_cron: str, timezone: str
) -> dict[str, dict[str, Any]]:
    """The schedules that are asked for, by the flow's name."""
    if to:
        Version(to)
    if (cron or stage_cron) and not to:
        raise UsageError("A schedule needs a version.", next="Say which version it is for: --to VERSION.")
    wanted = {}
    if cron:
        wanted["upgrade"] = _checked_schedule(cron, timezone, {"to": to})
    if stage_cron:
        wanted["stage"] = _checked_schedule(stage_cron, timezone, {"to": to})
    if backup_cron:
        wanted["backup"] = _checked_schedule(backup_cron, timezone, {})
    return wanted


def _checked_schedule(cron: str, timezone: str, parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(
            f"{timezone!r} is not a time zone.",
            observed="The tz database does not know it.",
            next="Name it as the tz database does, e.g. Europe/Istanbul.",
        ) from None
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=cron, timezone=timezone)
    except ValidationError:
        raise UsageError(
            f"{cron!r} is not a cron schedule.",
            observed="It has five fields: minute, hour, day of the month, month, weekday.",
            next='Write minute, hour, day, month and weekday, e.g. "0 2 * * 6" for Saturdays at two.',
        ) from None
    return {"cron": cron, "timezone": timezone, "parameters": parameters}


def _make_pool(name: str, kind: str) -> str:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type=kind))
        except ObjectAlreadyExists:
            found = client.read_work_pool(name)
            if found.type != kind:
                raise UsageError(
                    f"The work pool {name} is of the type {found.type}.",
                    next=f"Name another: --pool NAME. One of the type {kind} is made if it is not there.",
                ) from None
            return "there already"
    return "made"


def _save_block(name: str, settings: InstallationSettings | None) -> str:
    from blocks.registered import ApinizerCluster, ApinizerDatabase, ApinizerImageSource, ApinizerInstallation

    for kind in (ApinizerCluster, ApinizerDatabase, ApinizerImageSource, ApinizerInstallation):
        kind.register_type_and_schema()
    if settings is not None:
        ApinizerInstallation.of(_absolute(settings)).save(name, overwrite=True)
        return "saved"
    try:
        ApinizerInstallation.load(name)
    except ValueError:
        ApinizerInstallation.of(_absolute(InstallationSettings())).save(name)
        return "made: the worker's own kubeconfig, the database from the manager's secret"
    return "there already, left as it is"


def _absolute(settings: InstallationSettings) -> InstallationSettings:
    """Paths as the worker on this machine will find them, whatever folder it is started in."""

    def whole(path: str) -> str:
        return str(Path(path).expanduser().resolve()) if path else ""

    clusters = tuple(_cluster(c, whole(c.kubeconfig_path)) for c in settings.clusters)
    images = _images(settings.images, whole)
    return settings.model_copy(
        update={"clusters": clusters, "images": images, "backup_dir": whole(settings.backup_dir)}
    )


def _images(images: ImageSourceSettings, whole: Callable[[str], str]) -> ImageSourceSettings:
    source, nodes = images.source, images.nodes
    registry = source.registry.model_copy(update={"ca_file": whole(source.registry.ca_file)})
    files = {name: whole(getattr(nodes, name)) for name in ("identity_file", "config_file", "known_hosts")}
    taken = {name: whole(getattr(source, name)) for name in ("bundle", "allowed_signers")}
    return images.model_copy(
        update={
            "ca_file": whole(images.ca_file),
            "staging": whole(images.staging),
            "nodes": nodes.model_copy(update=files),
            "source": source.model_copy(update={**taken, "registry": registry}),
        }
    )


def _cluster(cluster: ClusterSettings, path: str) -> ClusterSettings:
    return cluster.model_copy(update={"kubeconfig_path": path})


def _cron(schedule: dict[str, Any]) -> Any:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    when = CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"])
    return DeploymentScheduleCreate(schedule=when, parameters=schedule["parameters"])


def _present_schedules(deployment: str) -> list[Any]:
    """The schedules of a deployment ("upgrade/site-a") as it is registered now."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(deployment)
        except ObjectNotFound:
            return []
    return [
        DeploymentScheduleCreate(schedule=s.schedule, active=s.active, parameters=s.parameters) for s in found.schedules
    ]


def _told(schedules: list[Any]) -> str:
    if not schedules:
        return "no schedule"
    whens = (
        f"{getattr(s.schedule, 'cron', 'a schedule')} {getattr(s.schedule, 'timezone', '') or ''}" for s in schedules
    )
    return f"scheduled: {'; '.join(when.strip() for when in whens)}"


def _apply(
    declared: dict[str, Any],
    installation: str,
    pool: str,
    settings: InstallationSettings | None,
    schedules: list[Any],
) -> str:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.deployments.runner import RunnerDeployment
    from prefect.types.entrypoint import EntrypointType

    module, _, name = declared["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    defaults = {**declared["parameters"], "installation": installation}
    if settings is not None and name == "upgrade":
        defaults |= _upgrade_defaults(settings)
    made = RunnerDeployment.from_flow(
        flow,
        name=installation,
        description=declared["description"],
        tags=[*declared["tags"], f"installation:{installation}"],
        parameters=defaults,
        schedules=schedules,
        concurrency_limit=ConcurrencyLimitConfig(**declared["concurrency_limit"]),
        enforce_parameter_schema=declared["enforce_parameter_schema"],
        work_pool_name=pool,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    made.apply()
    return made.full_name


def _upgrade_defaults(settings: InstallationSettings) -> dict[str, Any]:
    """How the upgrade of this installation runs, as the form shows it."""
    from flows.upgrade import Order

    run = settings.upgrade
    return {
        "order": (Order.TOGETHER if run.together else Order.ONE_BY_ONE).value,
        "parallel": run.parallel,
        "manager_timeout": run.manager_timeout,
        "timeout": run.timeout,
        "repositories": {c.value: name for c, name in run.repositories.items()},
    }
