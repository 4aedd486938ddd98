"""The options that commands share, and how they, the environment and `--config` become one set of settings.

An option wins over its environment variable, that over the file.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from blocks.settings import InstallationSettings, RunSettings, installation_of, read_installation
from tasks.domain.component import Component
from tasks.domain.errors import UsageError
from tasks.domain.plan import PlanRequest
from tasks.domain.version import Version


class OnFailure(StrEnum):
    """What follows a manager that failed for good before it ever served."""

    STOP = "stop"
    ROLLBACK = "rollback"


class Format(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"


def _env(name: str) -> str:
    return f"APINIZER_UPGRADE_{name}"


Config = Annotated[
    Path | None,
    typer.Option("--config", "-f", envvar=_env("CONFIG"), help="A YAML file with the installation's settings."),
]
Kubeconfig = Annotated[
    str,
    typer.Option(
        "--kubeconfig", envvar=_env("KUBECONFIG"), help="The kubeconfig file; else $KUBECONFIG, ~/.kube/config."
    ),
]
Context = Annotated[str, typer.Option("--context", envvar=_env("CONTEXT"), help="The kubeconfig context.")]
Namespace = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", envvar=_env("NAMESPACES"), help="Look only in this namespace; may be repeated."),
]
Output = Annotated[Format, typer.Option("--output", "-o", envvar=_env("OUTPUT"), help="text or json.")]
To = Annotated[
    str, typer.Option("--to", envvar=_env("TO"), metavar="VERSION", help="The version to reach, e.g. 2025.07.0.")
]
Environments = Annotated[
    str,
    typer.Option(
        "--environments",
        envvar=_env("ENVIRONMENTS"),
        metavar="A,B",
        help="The order of the environments (their namespaces); those not named follow, the smallest first.",
    ),
]
Together = Annotated[
    bool | None,
    typer.Option(
        "--together/--one-by-one",
        envvar=_env("TOGETHER"),
        help="After the manager all components at once, or one environment after another (the default).",
    ),
]
Parallel = Annotated[
    int | None,
    typer.Option("--parallel", envvar=_env("PARALLEL"), min=1, help="How many components at once, at most (8)."),
]
ImagePrefix = Annotated[
    str,
    typer.Option(
        "--image-prefix",
        envvar=_env("IMAGE_PREFIX"),
        metavar="REGISTRY/FOLDER",
        help="Put this in front of every image's name; else each container keeps its own.",
    ),
]
Repository = Annotated[
    list[str] | None,
    typer.Option(
        "--repository",
        metavar="COMPONENT=NAME",
        help="The repository of a component at the new version; may be repeated.",
    ),
]
BackupDir = Annotated[
    str,
    typer.Option("--backup-dir", envvar=_env("BACKUP_DIR"), metavar="DIR", help="Where the backup goes (./backups)."),
]
ManagerTimeout = Annotated[
    int | None,
    typer.Option(
        "--manager-timeout",
        envvar=_env("MANAGER_TIMEOUT"),
        min=1,
        metavar="SECONDS",
        help="How long the manager may migrate (1200).",
    ),
]
Timeout = Annotated[
    int | None,
    typer.Option(
        "--timeout",
        envvar=_env("TIMEOUT"),
        min=1,
        metavar="SECONDS",
        help="How long any other component may take (600).",
    ),
]
OnFailureChoice = Annotated[
    OnFailure,
    typer.Option(
        "--on-failure",
        envvar=_env("ON_FAILURE"),
        help="Where the manager fails for good before it ever served: stop, or rollback. Never for a deadline; a person is asked.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", envvar=_env("YES"), help="Do not ask before the first change.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing.")]


def settings(
    config: Path | None,
    kubeconfig: str,
    context: str,
    namespaces: list[str] | None,
    *,
    image_prefix: str = "",
    backup_dir: str = "",
) -> InstallationSettings:
    """The installation that the options describe; raise `UsageError` where they contradict each other."""
    base = read_installation(config) if config else InstallationSettings()
    changed = base.model_dump(mode="python")
    if kubeconfig or context or namespaces:
        if len(base.clusters) > 1:
            raise UsageError(
                "--kubeconfig, --context and --namespace speak of one cluster.",
                observed=f"{config} lists {len(base.clusters)}.",
                next="Change them in the file.",
            )
        given = {"kubeconfig_path": kubeconfig, "context": context, "namespaces": tuple(_split(namespaces or ()))}
        cluster = {**changed["clusters"][0], **{k: v for k, v in given.items() if v}}
        if kubeconfig:
            cluster |= {"kubeconfig": None, "in_cluster": False}
        changed["clusters"] = (cluster,)
    if image_prefix:
        kind = changed["images"]["kind"] if changed["images"]["kind"] in ("registry", "proxy") else "registry"
        changed["images"] |= {"kind": kind, "prefix": image_prefix}
    if backup_dir:
        changed["backup_dir"] = backup_dir
    return installation_of(changed, source=str(config or "given by options"))


@dataclass(frozen=True, slots=True)
class Site:
    """Where the installation is."""

    config: Config = None
    kubeconfig: Kubeconfig = ""
    context: Context = ""
    namespace: Namespace = None

    def settings(self, *, image_prefix: str = "", backup_dir: str = "") -> InstallationSettings:
        """As `settings` has it."""
        place = (self.config, self.kubeconfig, self.context, self.namespace)
        return settings(*place, image_prefix=image_prefix, backup_dir=backup_dir)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long components may take, in seconds; what was not given is None."""

    manager_timeout: ManagerTimeout = None
    timeout: Timeout = None

    def on(self, settings: InstallationSettings) -> InstallationSettings:
        """The settings with this run's patience."""
        return with_timeouts(settings, self.manager_timeout, self.timeout)

    @property
    def given(self) -> dict[str, int]:
        """What was given, by name."""
        known = {"manager_timeout": self.manager_timeout, "timeout": self.timeout}
        return {name: seconds for name, seconds in known.items() if seconds is not None}


@dataclass(frozen=True, slots=True)
class Course:
    """In what order components follow the manager, and under which names."""

    environments: Environments = ""
    together: Together = None
    parallel: Parallel = None
    repository: Repository = None

    def wish(self, settings: InstallationSettings, to: str) -> PlanRequest:
        """As `wish` has it."""
        return wish(settings, to, self.environments, self.together, self.parallel, self.repository)


def _split(values: "list[str] | tuple[str, ...] | str") -> tuple[str, ...]:
    texts = [values] if isinstance(values, str) else values
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def with_timeouts(settings: InstallationSettings, manager: int | None, others: int | None) -> InstallationSettings:
    """The settings with this run's patience."""
    given = {"manager_timeout": manager, "timeout": others}
    upgrade = settings.upgrade.model_copy(update={k: v for k, v in given.items() if v is not None})
    return settings.model_copy(update={"upgrade": upgrade})


def wish(
    settings: InstallationSettings,
    to: str,
    environments: str,
    together: bool | None,
    parallel: int | None,
    named: list[str] | None,
) -> PlanRequest:
    """What is asked for, checked; raise `UsageError` for a version or a repository that cannot be."""
    run: RunSettings = settings.upgrade
    return PlanRequest(
        to=Version(to),
        environments=_split(environments),
        known_environments=settings.environments,
        together=run.together if together is None else together,
        parallel=parallel or run.parallel,
        prefix=settings.images.wanted_prefix,
        repositories={**run.repositories, **dict(_named(text) for text in named or ())},
    )


def _named(text: str) -> tuple[Component, str]:
    component, equals, name = text.partition("=")
    try:
        if equals and name:
            return Component(component), name
    except ValueError:
        pass
    raise UsageError(
        f"--repository {text} is not understood.",
        observed=f"Components are {', '.join(Component)}.",
        next="Write it as COMPONENT=NAME, e.g. --repository portal=apiportal.",
    )
