"""The settings of an installation: one model for Prefect blocks, the YAML file and the command line.

Nothing here imports Prefect or a client library.  Secrets are `SecretStr`.  Unknown fields are refused.
"""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from blocks.image_settings import ImageSourceSettings as ImageSourceSettings  # noqa: PLC0414 - one door to all settings
from blocks.strict import Settings, faults_in
from tasks.domain.component import Component
from tasks.domain.discovery import Correction
from tasks.domain.errors import UsageError

DATABASE_PORT = 25080
DATABASE_NAME = "apinizerdb"
DATABASE_SECRET = "mongo-db-credentials"  # noqa: S105 - the secret's name, not its content


class ClusterSettings(Settings):
    """How a Kubernetes cluster is reached.

    Content wins over a file; without either it is `$KUBECONFIG`, `~/.kube/config`, or the service account
    of the pod that this runs in.
    """

    name: str = Field("", title="Name", description="The cluster's name in reports; needed where there are several.")
    kubeconfig: SecretStr | None = Field(
        None, title="Kubeconfig content", description="The text of a kubeconfig file. It is kept as a secret."
    )
    kubeconfig_path: str = Field(
        "", title="Kubeconfig file", description="The path of a kubeconfig file on the machine that runs the upgrade."
    )
    context: str = Field("", title="Context", description="The kubeconfig context; the current one if empty.")
    in_cluster: bool = Field(
        default=False, title="In the cluster", description="Use the service account of the pod that this runs in."
    )
    namespaces: tuple[str, ...] = Field(
        (), title="Namespaces", description="Look only in these namespaces; in all that are allowed if empty."
    )


class DatabaseSettings(Settings):
    """Where the database is: a URI, or its parts, or (both empty) the secret in the manager's namespace."""

    uri: SecretStr | None = Field(
        None, title="URI", description="As mongodb://… or mongodb+srv://…; it is kept as a secret."
    )
    host: str = Field(
        "", title="Host", description="A host, host:port or several with commas; the port is 25080 if not given."
    )
    user: str = Field("apinizer", title="User", description="The database user that the backup logs in as.")
    password: SecretStr | None = Field(None, title="Password", description="Without one there is no login.")
    auth_source: str = Field("admin", title="Authentication database", description="Where the user is defined.")
    replica_set: str = Field(
        "", title="Replica set", description="Its name, if the driver is to find the other members."
    )
    tls: bool = Field(default=False, title="TLS", description="On as well where a CA file is given.")
    tls_ca_file: str = Field(
        "", title="CA file", description="PEM file of the CA, on the machine that runs the upgrade."
    )
    name: str = Field(
        "", title="Database", description=f"{DATABASE_NAME} if empty and the secret does not say otherwise."
    )
    secret: str = Field(
        DATABASE_SECRET,
        title="Kubernetes secret",
        description="Read where neither URI nor host is given: keys dbUrl, dbName.",
    )

    @field_validator("host")
    @classmethod
    def _hosts(cls, value: str) -> str:
        hosts = [part for part in value.replace(" ", "").split(",") if part]
        if not all(_HOST.fullmatch(host) for host in hosts):
            raise ValueError("a host is host or host:port, several with commas; a whole address goes into uri")
        return ",".join(hosts)

    @model_validator(mode="after")
    def _one_way(self) -> "DatabaseSettings":
        if self.uri is not None and self.host:
            raise ValueError("give the database as a uri or as host and parts, not both")
        return self

    def given_uri(self) -> SecretStr | None:
        """The URI from URI or parts; None where the Kubernetes secret is to be read."""
        if self.uri is not None:
            return self.uri
        if not self.host:
            return None
        hosts = ",".join(_with_port(h) for h in self.host.split(","))
        # %20 and not +: the driver reads both, the database's own tools only the first.
        login = (
            f"{quote(self.user, safe='')}:{quote(self.password.get_secret_value(), safe='')}@" if self.password else ""
        )
        options = {"authSource": self.auth_source} if login else {}
        if self.replica_set:
            options["replicaSet"] = self.replica_set
        if self.tls or self.tls_ca_file:
            options["tls"] = "true"
        if self.tls_ca_file:
            options["tlsCAFile"] = self.tls_ca_file
        return SecretStr(f"mongodb://{login}{hosts}/?{urlencode(options, quote_via=quote)}")


_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%\w-]+\]|[\w.-]+)(?::[0-9]{1,5})?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def _with_port(host: str) -> str:
    """The host with its port; an IPv6 address in the brackets that a URI needs."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    return host if host.rpartition("]")[2].count(":") == 1 else f"{host}:{DATABASE_PORT}"


class RunSettings(Settings):
    """How an upgrade of this installation runs unless it is told otherwise; times are in seconds."""

    together: bool = Field(default=False, title="Together", description="After the manager all components at once.")
    parallel: int = Field(8, ge=1, title="At once", description="How many components at once, at most.")
    manager_timeout: int = Field(1200, ge=1, title="Manager's deadline", description="Seconds it may take to migrate.")
    timeout: int = Field(600, ge=1, title="Deadline", description="Seconds that any other component may take.")
    repositories: dict[Component, str] = Field(
        default_factory=dict, title="Repositories", description="A component's repository name at the new version."
    )


class BackupSettings(Settings):
    """How the database is backed up and how long backups are kept."""

    engine: Literal["auto", "native", "mongodump"] = Field(
        "auto", title="Engine", description="Who reads the database; auto takes the native one where it can."
    )
    ssh: str = Field(
        "",
        title="SSH destination",
        description="Where mongodump runs, as ssh takes it (user@primary); on the machine of the run if empty.",
    )
    whole_server: bool = Field(
        default=False, title="Whole server", description="All databases, as the published command has it."
    )
    leave_out: tuple[str, ...] = Field(
        (), title="Collections left out", description="E.g. apinizer_log. A restore cannot bring them back."
    )
    keep: int | None = Field(None, ge=1, title="Keep", description="How many backups are kept; all if empty.")
    keep_days: int | None = Field(None, ge=1, title="Keep days", description="Older backups go; none if empty.")
    ephemeral_allowed: bool = Field(
        default=False,
        title="Ephemeral place allowed",
        description="Take a folder that ends with the container, e.g. one without a volume.",
    )
    second_server: SecretStr | None = Field(
        None,
        title="Second server",
        description="The URI of another MongoDB, where backups are restored on trial; kept as a secret.",
    )

    @field_validator("leave_out")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not name.strip() for name in value):
            raise ValueError("a collection to be left out has a name")
        return tuple(name.strip() for name in value)

    @model_validator(mode="after")
    def _reachable(self) -> "BackupSettings":
        if self.ssh and self.engine == "native":
            raise ValueError("the native engine reads over the network; ssh is for mongodump")
        return self


class InstallationSettings(Settings):
    """One installation: its clusters, its database, where its images come from.

    The manager is in exactly one of the clusters; workers may run in others.
    """

    clusters: Annotated[tuple[ClusterSettings, ...], Field(min_length=1)] = (ClusterSettings(),)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    images: ImageSourceSettings = Field(default_factory=ImageSourceSettings)
    environments: tuple[str, ...] = Field(
        (), title="Environments", description="Environments that ought to be seen, in the order of their upgrade."
    )
    overrides: tuple[Correction, ...] = Field(
        (), title="Overrides", description="Corrections of what the images of single Deployments suggest."
    )
    backup_dir: str = Field("", title="Backup folder", description="./backups if empty.")
    backup: BackupSettings = Field(default_factory=BackupSettings)
    upgrade: RunSettings = Field(default_factory=RunSettings)

    @model_validator(mode="after")
    def _named(self) -> "InstallationSettings":
        names = [c.name for c in self.clusters]
        if len(names) > 1 and (len(set(names)) != len(names) or "" in names):
            raise ValueError("several clusters need a name each, all different")
        strange = sorted({o.cluster for o in self.overrides} - {"", *names})
        if strange:
            raise ValueError(f"an override names a cluster that is not listed: {', '.join(strange)}")
        self._nodes_told_apart(names)
        return self

    def _nodes_told_apart(self, clusters: list[str]) -> None:
        """Nodes of two clusters may have the same name, and one host is not both of them."""
        for node in self.images.nodes.named:
            if node.cluster and node.cluster not in clusters:
                raise ValueError(f"the node {node.name} is said to be in a cluster that is not listed: {node.cluster}")
            if len(clusters) > 1 and node.host and not node.extra and not node.cluster:
                raise ValueError(f"there are several clusters: say which one has the node {node.name}, with cluster")


def read_installation(path: Path) -> InstallationSettings:
    """The settings in a YAML file; raise `UsageError` where it is not there or not right."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise _bad_file(path, str(reason)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        # Many problems quote what was read, which may be a password that begins with *, & or !.
        said = str(getattr(error, "problem", None) or "it is not YAML")
        quotes = any(len(text) > 1 and text[0] not in "<\\" for text in re.findall("'([^']*)'", said))
        problem = "a value that begins with *, & or ! needs quotes" if quotes else said
        raise _bad_file(path, f"{where}{problem}") from None
    except ValueError:
        raise _bad_file(path, "a value looks like a date and is none; put it in quotes") from None
    if not isinstance(content, dict):
        raise _bad_file(path, "it holds no mapping")
    return installation_of(content, source=str(path))


def installation_of(content: dict[str, object], *, source: str) -> InstallationSettings:
    """The settings from plain values; the error names fields, never their values."""
    try:
        return InstallationSettings.model_validate(content)
    except ValidationError as error:
        raise _bad_file(Path(source), faults_in(error)) from None


def _bad_file(path: Path, observed: str) -> UsageError:
    return UsageError(
        f"The configuration {path} cannot be used.",
        observed=observed,
        next="Mend it; the README's section on configuration shows every field.",
    )
