"""The options that say how images come to the nodes, and how they, the environment and `--config` become settings."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from blocks.image_settings import by_way, way_of_bundle
from blocks.settings import InstallationSettings, installation_of
from deployments.cli import options as opt
from deployments.cli.grouping import Command, grouped, options_of, reads_as
from tasks.domain.errors import UsageError
from tasks.domain.way import Way

FROM, REGISTRY, NODES = "Images: from where", "Images: the registry", "Images: how nodes are reached"


def _env(name: str) -> str:
    return f"APINIZER_UPGRADE_{name}"


def _option(name: str, metavar: str, text: str, panel: str) -> Any:
    variable = _env(name.removeprefix("--").replace("-", "_").upper())
    return typer.Option(
        name, envvar=variable, show_envvar=False, metavar=metavar, help=text, rich_help_panel=panel, show_default=False
    )


def _from(name: str, metavar: str, text: str) -> Any:
    return _option(name, metavar, text, FROM)


def _to(name: str, metavar: str, text: str) -> Any:
    return _option(name, metavar, text, REGISTRY)


def _ssh(name: str, metavar: str, text: str) -> Any:
    return _option(name, metavar, text, NODES)


def _flag(name: str, text: str, panel: str) -> Any:
    variable = _env(name.partition("/")[0].removeprefix("--").replace("-", "_").upper())
    return typer.Option(name, envvar=variable, show_envvar=False, help=text, rich_help_panel=panel, show_default=False)


@dataclass(frozen=True, slots=True)
class Going:
    """From where to where."""

    way: Annotated[
        str,
        _from("--way", "WAY", "online, proxy, or FROM-to-TO: docker, containerd, registry, bundle to nodes, registry."),
    ] = ""


@dataclass(frozen=True, slots=True)
class Bundled:
    """The bundle, where the way begins with one."""

    bundle: Annotated[str, _from("--bundle", "FILE", "The bundle, for a way that begins with one.")] = ""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a bundle's signature is held against."""

    signers: Annotated[
        str, _from("--signers", "FILE", "The bundle must be signed by one of these (allowed signers of ssh-keygen).")
    ] = ""


@dataclass(frozen=True, slots=True)
class Taking:
    """Where images are taken from.  What is empty stays as the file has it."""

    source_prefix: Annotated[
        str, _from("--source-prefix", "PREFIX", "What stands before the images' names there (apinizercloud).")
    ] = ""
    docker_host: Annotated[str, _from("--docker-host", "ADDRESS", "The Docker engine; else $DOCKER_HOST.")] = ""
    containerd_host: Annotated[
        str,
        _from("--containerd-host", "HOST", "The containerd's machine: root@host, ssh://root@host:2222; else this one."),
    ] = ""
    source_user: Annotated[
        str,
        _from("--source-user", "USER", "Of the registry it comes from; password: $APINIZER_UPGRADE_SOURCE_PASSWORD."),
    ] = ""
    source_ca: Annotated[str, _from("--source-ca", "FILE", "That registry's CA.")] = ""
    source_plain_http: Annotated[bool | None, _flag("--source-plain-http", "That registry has no TLS.", FROM)] = None
    platform: Annotated[str, _from("--platform", "OS/ARCH", "E.g. linux/arm64; else as the nodes say.")] = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """How the registry is asked that the containers' images are pulled from; --image-prefix names it."""

    registry_user: Annotated[str, _to("--registry-user", "USER", "Password: $APINIZER_UPGRADE_REGISTRY_PASSWORD.")] = ""
    registry_ca: Annotated[str, _to("--registry-ca", "FILE", "Its CA, where the system does not trust it.")] = ""
    plain_http: Annotated[bool | None, _flag("--plain-http", "It has no TLS.", REGISTRY)] = None
    overwrite: Annotated[bool | None, _flag("--overwrite", "Replace a tag that holds another image.", REGISTRY)] = None


@dataclass(frozen=True, slots=True)
class Reaching:
    """How nodes are reached.  What is empty stays as the file has it, and there as ssh is configured."""

    ssh_user: Annotated[str, _ssh("--ssh-user", "USER", "Who logs in.")] = ""
    ssh_port: Annotated[int | None, _ssh("--ssh-port", "PORT", "The port of ssh.")] = None
    ssh_key: Annotated[str, _ssh("--ssh-key", "FILE", "The private key; else the agent's and ssh's own.")] = ""
    ssh_config: Annotated[str, _ssh("--ssh-config", "FILE", "Instead of ~/.ssh/config.")] = ""
    known_hosts: Annotated[str, _ssh("--known-hosts", "FILE", "Instead of ~/.ssh/known_hosts.")] = ""
    jump: Annotated[str, _ssh("--jump", "HOST", "A jump host, as ssh -J takes it.")] = ""
    sudo: Annotated[bool | None, _flag("--sudo/--no-sudo", "Run ctr or docker by sudo -n.", NODES)] = None
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="NODE",
            rich_help_panel=NODES,
            help="Where a node is: [CLUSTER/]NAME=[USER@]HOST[:PORT]; may be repeated.",
        ),
    ] = None


class Choices:
    """What the options of one command say about images: `chosen` holds those that were given, by field."""

    def __init__(self, **chosen: Any) -> None:
        self.chosen = {name: value for name, value in chosen.items() if value not in (None, "", [])}

    def get(self, name: str) -> Any:
        """The value, or None where the option was not given."""
        return self.chosen.get(name)


def takes_images(*groups: type) -> Callable[[Command], Command]:
    """Give a command the options of these groups: they reach its parameter `images` as `Choices`.

    Its other parameters may be groups too, as `grouped` has it.
    """
    options = {option.name: option for group in groups for option in options_of(group)}

    def decorate(command: Command) -> Command:
        plain = grouped(command)

        @wraps(plain)
        def run(**given: Any) -> None:
            chosen = {name: given.pop(name) for name in options if name in given}
            plain(**given, images=Choices(**chosen))

        own = [p for p in inspect.signature(plain).parameters.values() if p.name != "images"]
        return reads_as(run, [*own, *options.values()])

    return decorate


def with_images(settings: InstallationSettings, choices: Choices) -> InstallationSettings:
    """The settings with what the options say of images; raise `UsageError` where they contradict each other."""
    content: dict[str, object] = settings.model_dump(mode="python")
    images = settings.images.model_dump(mode="python")
    source, nodes = images["source"], images["nodes"]
    if way := choices.get("way"):
        images["way"] = way_of(way)
        if images["way"] is Way.PROXY and images["kind"] == "registry":
            images["kind"] = "proxy"  # --image-prefix alone says registry
    _put(images, choices, {"platform": "platform", "overwrite": "overwrite", "plain_http": "insecure"})
    _put(images, choices, {"registry_user": "user", "registry_ca": "ca_file"})
    _put(source["registry"], choices, {"source_user": "user", "source_ca": "ca_file", "source_plain_http": "insecure"})
    for place, name in ((images, "REGISTRY_PASSWORD"), (source["registry"], "SOURCE_PASSWORD")):
        if password := os.environ.get(_env(name)):
            place["password"] = password
    _put(source, choices, {"source_prefix": "prefix", "docker_host": "docker"})
    _put(source, choices, {"bundle": "bundle", "signers": "allowed_signers"})
    _put(source["containerd"], choices, {"containerd_host": "ssh"})
    _require_port(choices)
    _put(nodes, choices, {"ssh_user": "user", "ssh_port": "port", "ssh_key": "identity_file"})
    _put(nodes, choices, {"ssh_config": "config_file", "known_hosts": "known_hosts", "jump": "jump", "sudo": "sudo"})
    nodes["named"] = _named(nodes["named"], choices.get("node") or ())
    chosen = installation_of({**content, "images": images}, source="given by options")
    if way:
        by_way(chosen.images, None)  # raises where it lacks what it needs
    return chosen


def _require_port(choices: Choices) -> None:
    """0 means ssh's own in the configuration, and a slip on the command line; ports that are too high the settings refuse."""
    if choices.get("ssh_port") == 0:
        raise UsageError(
            "--ssh-port 0 is no port.", observed="Ports are 1 to 65535.", next="Leave it out, and ssh takes its own."
        )


def _put(place: dict[str, Any], choices: Choices, names: dict[str, str]) -> None:
    place |= {field: choices.get(name) for name, field in names.items() if choices.get(name) is not None}


def way_of(text: str) -> Way:
    """The way of that name; raise `UsageError` that lists them."""
    try:
        return Way(text)
    except ValueError:
        raise UsageError(
            f"--way {text} is not understood.",
            observed=f"Ways are {', '.join(Way)}.",
            next="Take one of these; the README says which published commands each replaces.",
        ) from None


_NODE = re.compile(
    r"(?:(?P<cluster>[^/=@\s]+)/)?(?P<name>[^/=@\s]+)="
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s]+)(?::(?P<port>[0-9]+))?"
)


def _named(present: tuple[dict[str, Any], ...], given: "list[str] | tuple[str, ...]") -> list[dict[str, Any]]:
    """The nodes of the file, each with what an option says of it, then those that it does not name."""
    named = {(node["cluster"], node["name"]): dict(node) for node in present}
    said: dict[tuple[str, str], str] = {}
    for text in given:
        found = _NODE.fullmatch(text)
        if found is None or found["host"].startswith("-") or not 0 < int(found["port"] or 22) < 65536:
            raise UsageError(
                f"--node {text} is not understood.",
                observed="It is not of the form [CLUSTER/]NAME=[USER@]HOST[:PORT].",
                next="Write it as the cluster names the node, e.g. --node node-a=10.0.0.5:2222.",
            )
        key = _key(text, found["cluster"] or "", found["name"], named)
        if key in said:
            raise UsageError(
                f"--node {text} says anew where {found['name']} is.",
                observed=f"--node {said[key]} was given too.",
                next="Say once where each node is.",
            )
        said[key] = text
        parts = {"host": found["host"].strip("[]"), "user": found["user"], "port": int(found["port"] or 0)}
        entry = named.setdefault(key, {"cluster": key[0], "name": key[1]})
        entry["expected"] = True
        entry |= {part: value for part, value in parts.items() if value}
    return list(named.values())


def _key(text: str, cluster: str, name: str, named: Mapping[tuple[str, str], object]) -> tuple[str, str]:
    """Which entry of the file is meant: without a cluster the only one of that name."""
    known = [key for key in named if key[1] == name]
    if cluster or not known:
        return cluster, name
    if len(known) > 1:
        raise UsageError(
            f"--node {text} does not say which node is meant.",
            observed=f"The configuration names it in {' and '.join(key[0] or 'no cluster' for key in known)}.",
            next=f"Say the cluster too: --node {max(known)[0]}/{text}.",
        )
    return known[0]


HeldOut = Annotated[
    Path | None, typer.Option("--held", metavar="FILE", help="Write what every node holds to this file, for a bundle.")
]
Keep = Annotated[
    int, typer.Option("--keep", min=0, metavar="N", help="Keep N releases more, the newest ones.", show_default=False)
]
ToOptional = Annotated[
    str, typer.Option("--to", envvar=_env("TO"), metavar="VERSION", help="Show what this version would have to bring.")
]


@dataclass(frozen=True, slots=True)
class Place(opt.Site):
    """Where the installation is, and what stands before its images' names."""

    image_prefix: opt.ImagePrefix = ""

    def settings_with(self, images: Choices, *, backup_dir: str = "") -> InstallationSettings:
        """What the options say of the installation and of its images."""
        return with_images(opt.Site.settings(self, image_prefix=self.image_prefix, backup_dir=backup_dir), images)


_SOURCE = {"docker": "Docker engine", "containerd": "containerd", "registry": "registry"}


def with_bundle(settings: InstallationSettings, choices: Choices, file: Path) -> InstallationSettings:
    """The settings of a run that loads `file`: the way that is asked for, else to where the settings' own way leads."""
    way = way_of(choices.get("way") or way_of_bundle(settings.images))
    if way.source != "bundle":
        raise UsageError(
            f"--way {way} does not begin with a bundle.",
            observed=f"It takes images from a {_SOURCE[way.source]}." if way.source else "It moves no images.",
            next=f"Take {Way.BUNDLE_TO_NODES} or {Way.BUNDLE_TO_REGISTRY}.",
        )
    return with_images(settings, Choices(**{**choices.chosen, "way": way, "bundle": str(file)}))
