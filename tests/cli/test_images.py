"""The commands on images: their help and bad input, and what they show of a sandbox."""

import os
from pathlib import Path

import pytest

from deployments.cli.main import app, exit_code_of
from tests.cli.conftest import Cli, Ran, four_parts, run_command
from tests.flows.world import NEW, OLD, World

OLDER = "2024.01.6"


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
        pytest.param(f"stage --to {NEW} --way docker-to-registry", "prefix", id="a way to a registry without one"),
        pytest.param(f"stage --to {NEW} --way proxy", "prefix", id="a proxy without a name"),
        pytest.param(f"stage --to {NEW} --way bundle-to-nodes", "bundle", id="a bundle without a file"),
        pytest.param(f"stage --to {NEW} --node node-a", "--node node-a", id="a node without a host"),
        pytest.param(f"stage --to {NEW} --node node-a=", "--node node-a=", id="a node with an empty host"),
        pytest.param(f"stage --to {NEW} --node a=b:99999", "--node a=b:99999", id="a port that is none"),
        pytest.param(f"stage --to {NEW} --node a=-oProxyCommand=x", "-oProxyCommand", id="a host that is an option"),
        pytest.param(f"stage --to {NEW} --ssh-user -oProxyCommand=x", "user", id="a user that is an option"),
        pytest.param(f"stage --to {NEW} --ssh-port x", "--ssh-port", id="a port that is no number"),
        pytest.param(f"stage --to {NEW} --platform amd64", "platform", id="half a platform"),
        pytest.param(f"stage --to {NEW} --source-prefix https://hub/x", "prefix", id="a prefix with a scheme"),
        pytest.param("status --held held.json", "way to nodes", id="layers that no kubelet tells"),
        pytest.param("load nowhere.tar --way docker-to-nodes", "does not begin with a bundle", id="no way of a bundle"),
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
