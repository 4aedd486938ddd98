"""The settings as Prefect blocks, with their forms in the UI and their secrets encrypted by the server.

A slug is for ever: what is stored under it must stay readable, so new fields need defaults.
"""

from typing import Any, ClassVar, TypeVar

from prefect.blocks.core import Block
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, model_validator

from blocks.image_settings import ImageSourceSettings
from blocks.settings import BackupSettings, ClusterSettings, DatabaseSettings, InstallationSettings, RunSettings
from blocks.strict import Settings
from tasks.domain.discovery import Correction

T = TypeVar("T", bound=Settings)

DOCUMENTATION = "https://docs.apinizer.com"


# A misspelt field is refused, and no error shows what was given.
STRICT: ConfigDict = ConfigDict(extra="forbid", hide_input_in_errors=True)


_MARKS = {"block_type_slug", "_block_document_id", "_block_document_name", "_is_anonymous"}


class Stored(BaseModel):
    """What all blocks share besides `STRICT`, which each must repeat because a block's own configuration wins."""

    @model_validator(mode="before")
    @classmethod
    def _without_marks(cls, values: Any) -> Any:
        """Prefect stores a block inside of a block with its type's slug and its document's name, which are no fields."""
        if not isinstance(values, dict):
            return values
        return {k: v for k, v in values.items() if k not in _MARKS}


class ApinizerCluster(Stored, ClusterSettings, Block):
    """A Kubernetes cluster of an installation: kubeconfig content or file, context, or the pod's own account.

    Example:
        ```python
        from blocks.registered import ApinizerCluster

        settings = ApinizerCluster.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Apinizer cluster"
    _block_type_slug = "apinizer-cluster"
    _documentation_url = HttpUrl(DOCUMENTATION)
    model_config: ClassVar[ConfigDict] = STRICT


class ApinizerDatabase(Stored, DatabaseSettings, Block):
    """The MongoDB of an installation: a URI, its parts, or the secret that the manager itself reads.

    Example:
        ```python
        from blocks.registered import ApinizerDatabase

        settings = ApinizerDatabase.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Apinizer database"
    _block_type_slug = "apinizer-database"
    _documentation_url = HttpUrl(DOCUMENTATION)
    model_config: ClassVar[ConfigDict] = STRICT


class ApinizerImageSource(Stored, ImageSourceSettings, Block):
    """Where the nodes get images from: Docker Hub, a registry, or a proxy, as a prefix.

    Example:
        ```python
        from blocks.registered import ApinizerImageSource

        settings = ApinizerImageSource.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Apinizer image source"
    _block_type_slug = "apinizer-image-source"
    _documentation_url = HttpUrl(DOCUMENTATION)
    model_config: ClassVar[ConfigDict] = STRICT


class ApinizerInstallation(Stored, Block):
    """An installation: its clusters (workers may run in another than the manager), database and image source.

    Example:
        ```python
        from blocks.registered import ApinizerInstallation

        settings = ApinizerInstallation.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Apinizer installation"
    _block_type_slug = "apinizer-installation"
    _documentation_url = HttpUrl(DOCUMENTATION)
    model_config: ClassVar[ConfigDict] = STRICT

    clusters: list[ApinizerCluster] = Field(
        default_factory=lambda: [ApinizerCluster()],
        min_length=1,
        title="Clusters",
        description="The manager is in exactly one of them; workers may run in others.",
    )
    database: ApinizerDatabase = Field(
        default_factory=ApinizerDatabase, title="Database", description="What is backed up before anything changes."
    )
    images: ApinizerImageSource = Field(
        default_factory=ApinizerImageSource, title="Images", description="Where the nodes get the new images from."
    )
    environments: list[str] = Field(
        default_factory=list,
        title="Environments",
        description="Environments that ought to be seen, in the order of their upgrade.",
    )
    overrides: list[Correction] = Field(
        default_factory=list,
        title="Overrides",
        description="Corrections of what the images of single Deployments suggest.",
    )
    backup_dir: str = Field("", title="Backup folder", description="On the worker's machine; ./backups if empty.")
    backup: BackupSettings = Field(
        default_factory=BackupSettings, title="Backup", description="How backups are made and how long they are kept."
    )
    upgrade: RunSettings = Field(
        default_factory=RunSettings, title="Upgrade", description="How an upgrade runs unless it is told otherwise."
    )

    def settings(self) -> InstallationSettings:
        """The same installation as plain settings, checked as a whole."""
        return InstallationSettings(
            clusters=tuple(_plain(ClusterSettings, c) for c in self.clusters),
            database=_plain(DatabaseSettings, self.database),
            images=_plain(ImageSourceSettings, self.images),
            environments=tuple(self.environments),
            overrides=tuple(self.overrides),
            backup_dir=self.backup_dir,
            backup=self.backup,
            upgrade=self.upgrade,
        )

    @classmethod
    def of(cls, settings: InstallationSettings) -> "ApinizerInstallation":
        """A block that holds these settings, to be saved."""
        return cls(
            clusters=[ApinizerCluster(**dict(c)) for c in settings.clusters],
            database=ApinizerDatabase(**dict(settings.database)),
            images=ApinizerImageSource(**dict(settings.images)),
            environments=list(settings.environments),
            overrides=list(settings.overrides),
            backup_dir=settings.backup_dir,
            backup=settings.backup,
            upgrade=settings.upgrade,
        )


def _plain(kind: type[T], block: T) -> T:
    return kind(**{name: getattr(block, name) for name in kind.model_fields})
