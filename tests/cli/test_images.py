"""The commands on images: their help and bad input, and what they show of a sandbox."""

import os
import tarfile
from pathlib import Path

import pytest

from blocks.image_settings import ImageSourceSettings
from blocks.settings import InstallationSettings
from deployments.cli import images_staging
from deployments.cli.main import app, exit_code_of
from tasks.domain.way import Way
from tests.cli.conftest import Cli, Ran, four_parts, run_command
from tests.flows.world import NEW, OLD, World
from tests.tasks.images.registry.served import served


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """Run the command where there is no cluster at all."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Ran:
        away = {"KUBECONFIG": str(tmp_path / "none"), "DOCKER_HOST": "unix:///nowhere.sock"}
        return run_command(*arguments, folder=tmp_path, env={**away, **(env or {})})

    return run


@pytest.mark.parametrize("command", ["", "status", "stage", "bundle", "load", "prune"])
def test_help_fits_a_terminal_and_needs_nothing(alone: Cli, command: str) -> None:
    ran = alone("images", *command.split(), "--help", env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert ran.code == 0, ran
    assert f"images {command}".strip() in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "…" not in ran.out, "an option's name or text was cut"
    assert not command or "APINIZER_UPGRADE_SSH_USER" in ran.out


@pytest.mark.parametrize("command", ["plan", "upgrade", "images stage", "images status"])
def test_every_command_that_moves_images_says_how_nodes_are_reached(alone: Cli, command: str) -> None:
    ran = alone(*command.split(), "--help", env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})
    for option in ("--way", "--bundle", "--signers", "--docker-host", "--ssh-user", "--ssh-port", "--ssh-key",
                   "--ssh-config", "--known-hosts", "--jump", "--sudo", "--node"):  # fmt: skip
        assert option in ran.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param("stage", "--to", id="no version"),
        pytest.param("stage --to newest", "newest", id="no such version"),
        pytest.param(f"stage --to {NEW} --way by-pigeon", "docker-to-nodes", id="unknown way lists the ways"),
        pytest.param(f"plan --to {NEW} --way by-pigeon", "by-pigeon", id="unknown way of a plan"),
        pytest.param(f"upgrade --to {NEW} --way by-pigeon", "by-pigeon", id="unknown way of an upgrade"),
        pytest.param(
            f"stage --to {NEW} --way docker-to-registry", "--image-prefix", id="a way to a registry without one"
        ),
        pytest.param(f"stage --to {NEW} --way proxy", "prefix", id="a proxy without a name"),
        pytest.param(f"stage --to {NEW} --way bundle-to-nodes", "bundle", id="a bundle without a file"),
        pytest.param(f"stage --to {NEW} --node node-a", "--node node-a", id="a node without a host"),
        pytest.param(f"stage --to {NEW} --node node-a=", "--node node-a=", id="a node with an empty host"),
        pytest.param(f"stage --to {NEW} --node a=b:99999", "--node a=b:99999", id="a port that is none"),
        pytest.param(f"stage --to {NEW} --node a=-oProxyCommand=x", "-oProxyCommand", id="a host that is an option"),
        pytest.param(f"stage --to {NEW} --ssh-user -oProxyCommand=x", "user", id="a user that is an option"),
        pytest.param(f"stage --to {NEW} --ssh-port x", "--ssh-port", id="a port that is no number"),
        pytest.param(f"stage --to {NEW} --ssh-port 0", "--ssh-port", id="a port that is none for all"),
        pytest.param(f"stage --to {NEW} --node a=b --node a=c", "--node a=b was given", id="a node said twice"),
        pytest.param(f"stage --to {NEW} --node a=h --node b=h", "a and b have one host", id="one host for two nodes"),
        pytest.param(f"stage --to {NEW} --platform amd64", "platform", id="half a platform"),
        pytest.param(f"stage --to {NEW} --source-prefix https://hub/x", "prefix", id="a prefix with a scheme"),
        pytest.param("status --held held.json", "way to nodes", id="layers that no kubelet tells"),
        pytest.param("load nowhere.tar --way docker-to-nodes", "does not begin with a bundle", id="no way of a bundle"),
        pytest.param("load x.tar --way bundle-to-registry", "--image-prefix", id="a bundle to a registry without one"),
        pytest.param("load", "FILE", id="no bundle"),
        pytest.param("prune --keep -1", "--keep", id="fewer than none"),
        pytest.param("bundle --to newest", "newest", id="a bundle of no version"),
        pytest.param(f"bundle --to {NEW} --from nowhere", "--from", id="a bundle from nowhere"),
        pytest.param(f"bundle --to {NEW} --compress xz", "--compress", id="a compression that is not known"),
        pytest.param("frobnicate", "frobnicate", id="no such command"),
    ],
)
def test_bad_input_is_told_before_anything_is_asked(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("APINIZER_UPGRADE", "KUBECONFIG", "DOCKER_HOST"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KUBECONFIG", "/nowhere/at-all")
    words = arguments.split()
    code = exit_code_of(app, [*([] if words[0] in ("plan", "upgrade") else ["images"]), *words])
    err = capsys.readouterr().err
    assert code == 2, err
    four_parts(err)
    assert told in err


def node_images(cli: Cli, *arguments: str) -> dict[str, list[str]]:
    nodes = cli("images", "status", "-o", "json", *arguments).document["nodes"]
    return {node["node"]: [release["version"] for release in node["releases"]] for node in nodes}


def test_status_shows_what_the_kubelets_report(cli: Cli, world: World) -> None:
    assert node_images(cli) == {"node-a": [OLD], "node-b": [OLD]}
    document = cli("images", "status", "-o", "json").document
    assert document["told_by"] == "kubelet"
    release = document["nodes"][0]["releases"][0]
    assert release["repositories"] == ["manager", "worker", "cache", "portal", "integration"]
    assert release["size"] > 0
    assert release["pinned"] is None, "a kubelet does not tell it"
    ran = cli("images", "status")
    assert ran.code == 0
    assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [["node-a", OLD], ["node-b", OLD]]
    assert "as the kubelets report" in ran.err


def test_status_shows_what_is_there_though_the_source_lacks_the_version(cli: Cli, world: World) -> None:
    with served() as registry:
        way = (
            "--to", NEW, "--way", "registry-to-registry", "--image-prefix", f"{registry.host}/apinizercloud",
            "--source-prefix", f"{registry.host}/upstream", "--source-plain-http", "--plain-http",
        )  # fmt: skip
        ran = cli("images", "status", *way)
        assert ran.code == 1, ran.err
        assert [line.split()[:2] for line in ran.out.splitlines()[1:]] == [["node-a", OLD], ["node-b", OLD]], ran
        four_parts(ran.err[ran.err.index("Error: ") :])
        assert "upstream" in ran.err
        ran = cli("images", "status", *way, "-o", "json")
        assert ran.code == 1
        assert [node["node"] for node in ran.document["nodes"]] == ["node-a", "node-b"]
        assert "upstream" in ran.document["error"]["happened"]
        assert ran.document["error"]["safe"] == "Nothing was changed."


def test_status_fails_where_a_node_cannot_be_asked_and_shows_the_rest(cli: Cli, world: World, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    nodes = ("--node", "node-a=127.0.0.1:1", "--node", "node-b=127.0.0.1:2", "--held", str(held))
    with served() as registry:
        for name in ("manager", "worker", "cache", "apiportal", "integration"):
            registry.put_image(f"upstream/{name}:{NEW}", [b"base" * 1000])
        source = ("--source-prefix", f"{registry.host}/upstream", "--source-plain-http")
        ran = cli("images", "status", "--to", NEW, "--way", "registry-to-nodes", *source, *nodes)
    assert ran.code == 1, ran
    first = [line.split()[0] for line in ran.out.splitlines() if line.startswith("node-")]
    assert first == ["node-a", "node-b"] * 2, "what each table says of them"
    four_parts(ran.err[ran.err.index("Error: ") :])
    assert "2 nodes could not be asked: node-a, node-b." in ran.err
    assert ran.err.count("Connection refused") == 2
    ran = cli("images", "status", "--way", "docker-to-nodes", *nodes, "-o", "json")
    assert ran.code == ran.document["exit_code"] == 1
    assert "2 nodes could not be asked" in ran.document["error"]["happened"]
    assert [node["error"]["observed"].count("refused") for node in ran.document["nodes"]] == [1, 1]
    assert not held.exists(), "it would be a list of nothing"


def chosen(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, command: str = f"stage --to {NEW}", **environment: str
) -> ImageSourceSettings:
    """The settings of images that the command would run with."""
    seen: list[InstallationSettings] = []
    monkeypatch.setattr(images_staging, command.split(maxsplit=1)[0], lambda settings, *_: seen.append(settings))
    for name, value in environment.items():
        monkeypatch.setenv(f"APINIZER_UPGRADE_{name}", value)
    assert exit_code_of(app, ["images", *command.split(), *arguments]) == 0
    return seen[0].images


def test_an_option_wins_over_its_variable_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "images: {way: containerd-to-nodes, source: {prefix: mirror.local/apinizercloud}, nodes: {user: file, port: 1, "
        "sudo: true, named: [{name: node-a, host: old, port: 5, runtime: docker}, {name: node-b, host: b}]}}"
    )
    images = chosen("-f", str(file), monkeypatch=monkeypatch)
    assert (images.way, images.nodes.user, images.nodes.port) == (Way.CONTAINERD_TO_NODES, "file", 1)
    images = chosen("-f", str(file), "--ssh-port", "3", monkeypatch=monkeypatch, SSH_USER="variable", SSH_PORT="2")
    assert (images.nodes.user, images.nodes.port) == ("variable", 3)
    options = ["--way", "docker-to-nodes", "--no-sudo", "--node", "node-a=me@10.0.0.5:2222", "--node", "c=[fe80::1]"]
    images = chosen("-f", str(file), *options, monkeypatch=monkeypatch, WAY="online")
    assert (images.way, images.nodes.sudo) == (Way.DOCKER_TO_NODES, False)
    assert images.source.prefix == "mirror.local/apinizercloud"
    assert [(n.name, n.user, n.host, n.port, n.runtime) for n in images.nodes.named] == [
        ("node-a", "me", "10.0.0.5", 2222, "docker"),
        ("node-b", "", "b", 0, ""),
        ("c", "", "fe80::1", 0, ""),
    ]
    assert [n.name for n in images.nodes.named if n.expected] == ["node-a", "c"]


TWO = """\
clusters: [{name: near, context: x}, {name: far, context: y}]
images: {nodes: {named: [{name: a, cluster: near, host: old}, {name: a, cluster: far, host: old}, {name: b, cluster: far, user: me}]}}
"""


def test_nodes_of_one_name_in_two_clusters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(TWO)
    options = ["--node", "far/a=10.0.0.5:2222", "--node", "b=10.0.0.6", "--node", "near/b=10.0.0.7"]
    images = chosen("-f", str(file), *options, monkeypatch=monkeypatch)
    assert [(n.cluster, n.name, n.host, n.port, n.user) for n in images.nodes.named] == [
        ("near", "a", "old", 0, ""),
        ("far", "a", "10.0.0.5", 2222, ""),
        ("far", "b", "10.0.0.6", 0, "me"),
        ("near", "b", "10.0.0.7", 0, ""),
    ]
    assert exit_code_of(app, ["images", "stage", "--to", NEW, "-f", str(file), "--node", "a=10.0.0.5"]) == 2
    err = capsys.readouterr().err
    four_parts(err)
    assert "near and far" in err
    assert "--node near/a=10.0.0.5" in err


def test_every_option_reaches_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    options = (
        "--image-prefix harbor.local/apinizer --registry-user r --registry-ca r.pem --plain-http --overwrite "
        "--way bundle-to-registry --bundle b.tar --signers s --platform linux/arm64 --docker-host tcp://d:1 "
        "--containerd-host root@c --source-prefix quay.local/x --source-user q --source-ca q.pem --source-plain-http "
        "--ssh-key k --ssh-config f --known-hosts h --jump j --sudo"
    )
    images = chosen(*options.split(), monkeypatch=monkeypatch, REGISTRY_PASSWORD="of-r", SOURCE_PASSWORD="of-q")
    secrets = (images.password, images.source.registry.password)
    assert [secret.get_secret_value() if secret else None for secret in secrets] == ["of-r", "of-q"]
    assert images.model_dump(exclude={"password": True, "source": {"registry": {"password"}}, "parallel": True}) == {
        "kind": "registry",
        "prefix": "harbor.local/apinizer",
        "user": "r",
        "ca_file": "r.pem",
        "insecure": True,
        "way": Way.BUNDLE_TO_REGISTRY,
        "overwrite": True,
        "source": {
            "prefix": "quay.local/x",
            "docker": "tcp://d:1",
            "pull": False,
            "containerd": {"ssh": "root@c", "port": 0, "sudo": False, "address": "", "namespace": "k8s.io"},
            "registry": {"user": "q", "ca_file": "q.pem", "insecure": True},
            "bundle": "b.tar",
            "allowed_signers": "s",
        },
        "nodes": {
            "user": "", "port": 0, "identity_file": "k", "config_file": "f", "known_hosts": "h", "jump": "j",
            "sudo": True, "runtime": "auto", "address": "", "namespace": "k8s.io", "named": (),
        },
        "staging": "",
        "platform": "linux/arm64",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("file", "options", "way"),
    [
        ("{}", "", Way.BUNDLE_TO_NODES),
        ("{}", "--image-prefix docker.io/apinizercloud", Way.BUNDLE_TO_NODES),
        ("images: {kind: registry, prefix: r.local/a, way: docker-to-nodes}", "", Way.BUNDLE_TO_NODES),
        ("images: {kind: registry, prefix: r.local/a, way: docker-to-registry}", "", Way.BUNDLE_TO_REGISTRY),
        ("images: {way: docker-to-nodes}", "--way bundle-to-registry --image-prefix r.local/a", Way.BUNDLE_TO_REGISTRY),
        (
            "images: {kind: registry, prefix: r.local/a, way: docker-to-registry}",
            "--way bundle-to-nodes",
            Way.BUNDLE_TO_NODES,
        ),
    ],
)
def test_a_bundle_is_pushed_only_where_a_way_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, options: str, way: Way
) -> None:
    """A prefix says what images are called: the nodes may get them by hand."""
    (tmp_path / "config.yaml").write_text(file)
    images = chosen(
        "-f", str(tmp_path / "config.yaml"), *options.split(), command="load x.tar", monkeypatch=monkeypatch
    )
    assert images.way is way


def test_a_proxy_is_the_prefix_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    images = chosen("--way", "proxy", "--image-prefix", "proxy.local/apinizercloud", monkeypatch=monkeypatch)
    assert (images.kind, images.prefix, images.way) == ("proxy", "proxy.local/apinizercloud", Way.PROXY)


def test_a_release_brought_from_one_registry_to_another(cli: Cli, prefect_env: dict[str, str], world: World) -> None:
    """The whole way on the command line: what is missing is shown, brought, proved, and then no more is missing."""
    before = world.written()
    with served() as registry:
        for name in ("manager", "worker", "cache", "apiportal", "integration"):
            registry.put_image(f"upstream/{name}:{NEW}", [b"base" * 1000, name.encode() * 1000])
        way = (
            "--to", NEW, "--way", "registry-to-registry", "--image-prefix", f"{registry.host}/apinizercloud",
            "--source-prefix", f"{registry.host}/upstream", "--source-plain-http", "--plain-http",
        )  # fmt: skip
        (place,) = cli("images", "status", "-o", "json", *way).document["to"]["places"]
        assert len(place["missing"]) == 5
        staged = cli("images", "stage", "-o", "json", *way, env=prefect_env)
        assert staged.code == 0, staged
        (brought,) = staged.document["places"]
        assert len(brought["brought"]) == len(brought["images"]) == 5
        assert registry.manifest(f"apinizercloud/worker:{NEW}")
        again = cli("images", "stage", *way, env=prefect_env)
        assert again.code == 0, again
        assert "nothing was missing" in again.out
        assert "Every place proved its images." in again.out
        (place,) = cli("images", "status", "-o", "json", *way).document["to"]["places"]
        assert (place["missing"], place["bytes"]) == ([], 0)
    assert world.written() == before


def without_record(bundle: Path, path: Path) -> Path:
    """The same images as another tool might have written them."""
    with tarfile.open(bundle) as own, tarfile.open(path, "w") as foreign:
        for member in own:
            if not member.name.startswith("apinizer-bundle"):
                foreign.addfile(member, own.extractfile(member))
    return path


def test_a_bundle_made_without_a_cluster_and_loaded(
    alone: Cli, cli: Cli, prefect_env: dict[str, str], tmp_path: Path
) -> None:
    with served() as registry:
        for name in ("manager", "worker", "cache", "apiportal", "integration"):
            registry.put_image(f"upstream/{name}:{NEW}", [b"base" * 1000, name.encode() * 1000])
        source = ("--source-prefix", f"{registry.host}/upstream", "--source-plain-http")
        order = ("images", "bundle", "--to", NEW, "--from", "registry", *source)
        nowhere = alone(*order, "--out", tmp_path / "disk" / "b.tar", env=prefect_env)
        assert (nowhere.code, (tmp_path / "disk").exists()) == (2, False), nowhere
        assert registry.seen == [], "before anything is asked"
        made = alone(*order, "-o", "json", env=prefect_env)
        assert made.code == 0, made
        file = Path(made.document["path"])
        assert file.parent == tmp_path.resolve()
        way = ("--way", "bundle-to-registry", "--image-prefix", f"{registry.host}/apinizercloud", "--plain-http")
        loaded = cli("images", "load", file, *way, env=prefect_env)
        assert loaded.code == 0, loaded
        assert registry.manifest(f"apinizercloud/apiportal:{NEW}")
        assert "Note: " not in loaded.out
        foreign = cli("images", "load", without_record(file, tmp_path / "foreign.tar"), *way, env=prefect_env)
        assert foreign.code == 0, foreign
        assert "Note: " in foreign.out, "what could not be proved of it"

        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        count = len(registry.requests("PUT", ""))
        damaged = cli("images", "load", file, *way, env=prefect_env)
        assert damaged.code == 1, damaged
        four_parts(damaged.err.partition("Error: ")[1] + damaged.err.partition("Error: ")[2])
        assert len(registry.requests("PUT", "")) == count, "nothing was imported"
    missing = cli("images", "load", tmp_path / "none.tar", env=prefect_env)
    assert missing.code == 1
    assert "There is no bundle" in missing.err
    folder = cli("images", "load", tmp_path, env=prefect_env)
    assert (folder.code, "Observed: It is a folder." in folder.err) == (1, True)
