"""The settings of images: what they are called, where they are taken from, how they get to where the pods run."""

from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from blocks.strict import Settings, faults_in
from tasks.domain.errors import UsageError
from tasks.domain.reference import VENDOR, ImageReference
from tasks.domain.way import Way

# A word that begins with a dash would be an option of ssh; a blank ends it.
_WORD = r"^([^\s\x00-\x1f-][^\s\x00-\x1f]*)?$"
# What OpenSSH's client refuses in the name of a user and of a host (valid_ruser, valid_hostname in ssh.c).
_USER = r"""^([^\s\x00-\x1f'"`;&<>|(){}-][^\s\x00-\x1f'"`;&<>|(){}]*)?$"""
_HOST = r"""^([^\s\x00-\x1f'"`;&<>|(){}$\\-][^\s\x00-\x1f'"`;&<>|(){}$\\]*)?$"""
_HOP = r"""([^\s\x00-\x1f'"`;&<>|(){}@,-][^\s\x00-\x1f'"`;&<>|(){}@,]*@)?(\[[0-9A-Fa-f:.%a-z]+\]|[A-Za-z0-9_.][A-Za-z0-9_.%-]*)(:[0-9]{1,5})?"""
_JUMP = rf"^({_HOP}(,{_HOP})*)?$"
_PLATFORM = r"^([a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?)?$"


class ContainerdSettings(Settings):
    """A containerd that holds the images: here, or on a machine that ssh reaches.

    How ssh gets there (key, known hosts, jump host) is said once, for the nodes.
    """

    ssh: str = Field(
        "",
        pattern=_HOST,
        title="SSH destination",
        description="As ssh takes it: host, user@host, an alias; here if empty.",
    )
    port: int = Field(0, ge=0, le=65535, title="SSH port", description="As ssh is configured if 0.")
    sudo: bool = Field(default=False, title="sudo", description="ctr is run by sudo -n.")
    address: str = Field(
        "", pattern=_WORD, title="Socket", description="containerd's socket, where it is not the usual one."
    )
    namespace: str = Field(
        "k8s.io", pattern=_WORD, title="Namespace", description="containerd's, in which the images are."
    )


class SourceRegistrySettings(Settings):
    """How the registry that holds the images is asked; which one it is, the prefix says."""

    user: str = Field("", title="User", description="Where it asks for a login.")
    password: SecretStr | None = Field(None, title="Password or token", description="Kept as a secret.")
    ca_file: str = Field("", title="CA file", description="PEM file of its CA, where the system does not trust it.")
    insecure: bool = Field(default=False, title="Plain HTTP", description="Only for a registry that has no TLS.")


class FromSettings(Settings):
    """What the images are taken from; which of these is asked, the way says."""

    prefix: str = Field(
        "", title="Prefix", description=f"What stands before the images' names there; {VENDOR} if empty."
    )
    docker: str = Field(
        "",
        pattern=_WORD,
        title="Docker engine",
        description="E.g. unix:///run/docker.sock, ssh://root@build; $DOCKER_HOST or the usual socket if empty.",
    )
    pull: bool = Field(default=False, title="Pull first", description="The Docker engine pulls the images before.")
    containerd: ContainerdSettings = Field(default_factory=ContainerdSettings, title="containerd")
    registry: SourceRegistrySettings = Field(default_factory=SourceRegistrySettings, title="Registry")
    bundle: str = Field("", title="Bundle", description="The file, on the machine that runs the upgrade.")
    allowed_signers: str = Field(
        "", title="Allowed signers", description="Whose signature a bundle must bear, a file as ssh-keygen takes it."
    )

    @field_validator("prefix")
    @classmethod
    def _a_prefix(cls, value: str) -> str:
        return _checked_prefix(value)


class NamedNode(Settings):
    """One node that is reached in a way of its own; what is empty is as for the others."""

    name: str = Field("", title="Name", description="As the cluster names the node.")
    cluster: str = Field(
        "", title="Cluster", description="The cluster's name; needed beside a host where there are several."
    )
    host: str = Field(
        "", pattern=_HOST, title="Host", description="Name, address or ssh alias; the node's own address if empty."
    )
    port: int = Field(0, ge=0, le=65535, title="Port")
    user: str = Field("", pattern=_USER, title="User")
    runtime: Literal["", "containerd", "docker"] = Field("", title="Runtime", description="As the node says if empty.")
    sudo: bool | None = Field(None, title="sudo")
    extra: bool = Field(
        default=False, title="Extra", description="No node of the cluster, and to be given the images all the same."
    )
    expected: bool = Field(
        default=False,
        title="Expected",
        description="Plan nothing where no cluster has it; --node says so of its nodes.",
    )
    platform: str = Field(
        "", pattern=_PLATFORM, title="Platform", description="Of a node that no cluster tells of; linux/amd64 if empty."
    )

    @model_validator(mode="after")
    def _whole(self) -> "NamedNode":
        if not self.name:
            raise ValueError("a node has a name")
        if self.extra and not (self.host and self.runtime):
            raise ValueError("an extra node needs host and runtime: no cluster tells them")
        if self.extra and self.cluster:
            raise ValueError("an extra node is in no cluster")
        return self


class NodeAccessSettings(Settings):
    """How the nodes are reached: OpenSSH's client with its own configuration, agent and known hosts."""

    user: str = Field("", pattern=_USER, title="User", description="As ssh is configured if empty.")
    port: int = Field(0, ge=0, le=65535, title="Port", description="As ssh is configured if 0.")
    identity_file: str = Field("", title="Key", description="A private key file; ssh's own and the agent's if empty.")
    config_file: str = Field("", title="SSH configuration", description="Instead of ~/.ssh/config.")
    known_hosts: str = Field("", title="Known hosts", description="Instead of ~/.ssh/known_hosts.")
    jump: str = Field("", pattern=_JUMP, title="Jump host", description="As ssh -J takes it.")
    sudo: bool = Field(default=False, title="sudo", description="ctr or docker is run by sudo -n.")
    runtime: Literal["auto", "containerd", "docker"] = Field(
        "auto", title="Runtime", description="What runs the containers; auto takes what each node says of itself."
    )
    address: str = Field("", pattern=_WORD, title="Socket", description="containerd's, where it is not the usual one.")
    namespace: str = Field(
        "k8s.io", pattern=_WORD, title="Namespace", description="containerd's; the kubelet sees k8s.io."
    )
    named: tuple[NamedNode, ...] = Field((), title="Nodes", description="Those that are reached in a way of their own.")

    @model_validator(mode="after")
    def _each_once(self) -> "NodeAccessSettings":
        names = [(node.cluster, node.name) for node in self.named]
        if len(set(names)) != len(names):
            raise ValueError("a node is named twice")
        places: dict[tuple[str, str, int], str] = {}
        for node in self.named:
            # Clones of one disk tell the same of themselves: one machine would be taken for the proof of two.
            place = (node.cluster, node.host.lower(), node.port)
            if node.host and not node.extra and places.setdefault(place, node.name) != node.name:
                raise ValueError(f"{places[place]} and {node.name} have one host, and are two nodes")
        return self

    def of(self, name: str, cluster: str = "") -> NamedNode:
        """What is said of this node alone; what says no cluster is said of the nodes of that name in all of them."""
        said = {node.cluster: node for node in self.named if node.name == name}
        return said.get(cluster) or said.get("") or NamedNode(name=name)


class ImageSourceSettings(Settings):
    """Where the nodes get images from: the prefix in front of the repository's name, and the way there.

    `as-is` keeps each container's present registry and folder; `hub` is `apinizercloud`; a registry or a proxy
    of Docker Hub names its own, e.g. `nexus.local:5000/apinizercloud`.  User, password and CA are of that registry.
    """

    kind: Literal["as-is", "hub", "registry", "proxy"] = Field(
        "as-is", title="Kind", description="What stands in front of the images' names."
    )
    prefix: str = Field("", title="Prefix", description="Registry and folder, e.g. nexus.local:5000/apinizercloud.")
    user: str = Field("", title="User", description="Of the registry, where it asks for a login.")
    password: SecretStr | None = Field(None, title="Password or token", description="Kept as a secret.")
    ca_file: str = Field(
        "", title="CA file", description="PEM file of the registry's CA, where the system does not trust it."
    )
    insecure: bool = Field(default=False, title="Plain HTTP", description="Only for a registry that has no TLS.")
    way: Way = Field(
        Way.ONLINE, title="Way", description="How images come to the nodes; online and proxy: the nodes pull them."
    )
    overwrite: bool = Field(
        default=False, title="Overwrite", description="Replace a tag of the registry that holds another image."
    )
    source: FromSettings = Field(
        default_factory=FromSettings, title="Source", description="What images are taken from."
    )
    nodes: NodeAccessSettings = Field(
        default_factory=NodeAccessSettings, title="Nodes", description="How the nodes are reached, for ways to nodes."
    )
    parallel: int = Field(
        4,
        ge=1,
        title="Nodes at once",
        description="How many nodes are looked at and proved at the same time; all are sent what is missing together.",
    )
    staging: str = Field(
        "", title="Staging folder", description="Take the images here first; straight from source to target if empty."
    )
    platform: str = Field(
        "", pattern=_PLATFORM, title="Platform", description="E.g. linux/amd64; as the nodes say if empty."
    )

    @field_validator("prefix")
    @classmethod
    def _a_prefix(cls, value: str) -> str:
        return _checked_prefix(value)

    @model_validator(mode="after")
    def _complete(self) -> "ImageSourceSettings":
        if self.kind in ("registry", "proxy") and not self.prefix:
            raise ValueError(f"a {self.kind} needs a prefix, e.g. nexus.local:5000/apinizercloud")
        if self.kind in ("as-is", "hub") and self.prefix:
            raise ValueError("a prefix needs a kind: registry or proxy")
        if self.way.target == "registry" and self.kind != "registry":
            raise ValueError(f"the way {self.way} needs the kind registry and its prefix (--image-prefix)")
        if self.way is Way.PROXY and self.kind != "proxy":
            raise ValueError("the way proxy needs the kind proxy and its prefix (--image-prefix)")
        if self.way is Way.REGISTRY_TO_REGISTRY and (self.source.prefix or VENDOR) == self.prefix:
            raise ValueError("the registry that images are taken from is the one that they are brought to")
        return self

    @property
    def wanted_prefix(self) -> str:
        """What every image is put behind, or "" to keep what is there."""
        return self.prefix or (VENDOR if self.kind == "hub" else "")


def _checked_prefix(value: str) -> str:
    value = value.strip().rstrip("/")
    if value and ImageReference.find(f"{value}/worker:1") is None:
        raise ValueError("a prefix is registry:port/folder, without a scheme, a tag or an image's name")
    return value


def way_of_bundle(settings: ImageSourceSettings) -> Way:
    """Where a bundle goes if nobody says it: to the registry where the settings' own way leads there, else to the nodes.

    A registry's prefix alone says what images are called, and not that anything may be pushed there.
    """
    return Way.BUNDLE_TO_REGISTRY if settings.way.target == "registry" else Way.BUNDLE_TO_NODES


def by_way(settings: ImageSourceSettings, way: Way | None, *, bundle: str = "") -> ImageSourceSettings:
    """The same settings with another way, or from another bundle; raise `UsageError` where they do not go together.

    Which bundle it is may be said for each run, so only here it is missed.
    """
    source = settings.source.model_copy(update={"bundle": bundle}) if bundle else settings.source
    try:
        chosen = ImageSourceSettings(**{**dict(settings), "way": way or settings.way, "source": source})
    except ValidationError as error:
        raise UsageError(
            f"The way {way or settings.way} does not go with the installation's settings of images.",
            observed=faults_in(error),
            next="Mend images in the configuration, or choose another way.",
        ) from None
    if chosen.way.source == "bundle" and not source.bundle:
        raise UsageError(
            f"The way {chosen.way} needs a bundle.",
            observed="images.source.bundle is empty.",
            next="Name the file: --bundle FILE, or images.source.bundle in the configuration.",
        )
    return chosen
