"""`images prune` on a sandbox and nodes that are dictionaries: what is shown, what is asked, what is removed."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployments.cli.main import app, exit_code_of
from deployments.sandbox.launch import Sandbox
from tasks.domain.errors import TemporaryError
from tests.cli.conftest import Ran, four_parts
from tests.flows.world import OLD, World, clean_environment
from tests.tasks.images.prune.shelves import Shelf, shelved, worker

OLDEST, OLDER, BEFORE = "2024.01.6", "2024.05.0", "2025.01.0"
HERE = {OLDEST, OLDER, BEFORE, OLD}
Prune = Callable[..., Ran]


@pytest.fixture
def shelves() -> Iterator[dict[str, Shelf]]:
    """Both nodes, each with four releases of the worker."""
    with shelved(("node-a", "node-b")) as found:
        for shelf in found.values():
            shelf.put(*map(worker, sorted(HERE)))
        yield found


@pytest.fixture
def prune(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Prune:  # fmt: skip
    """`prune("--dry-run")`; `answer` is what a person types at a terminal, None where there is none."""
    env = clean_environment() | sandbox.env()
    for name in ("APINIZER_UPGRADE_YES", "APINIZER_UPGRADE_BACKUP_DIR", "APINIZER_UPGRADE_KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path_factory.mktemp("prune"))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def run(*arguments: str, answer: str | None = None, command: str = "prune") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO() if answer is None else Terminal(f"{answer}\n"))
        code = exit_code_of(app, ["images", command, *arguments])
        return Ran(code, *capsys.readouterr())

    return run


def at_look(shelf: Shelf, number: int, happens: Callable[[], object]) -> None:
    """Let something happen when the node is asked for its images for the so-manieth time."""
    looks = iter(range(1, 100))
    shelf.meanwhile = lambda: happens() if next(looks) == number else None


def versions(shelves: dict[str, Shelf]) -> list[set[str]]:
    return [shelf.versions for shelf in shelves.values()]


def removed(ran: Ran) -> list[set[str]]:
    return [{name.rpartition(":")[2] for name in node["removed"]} for node in ran.document["nodes"]]


@pytest.mark.parametrize("output", ["text", "json"])
def test_without_a_terminal_it_wants_to_be_told(prune: Prune, shelves: dict[str, Shelf], output: str) -> None:
    ran = prune("-o", output)
    assert ran.code == 2
    four_parts(ran.err)
    assert "--yes" in ran.err
    assert versions(shelves) == [HERE, HERE]


def test_a_look_shows_what_would_go_and_why_and_removes_nothing(prune: Prune, shelves: dict[str, Shelf]) -> None:
    ran = prune("--dry-run")
    assert ran.code == 0, ran
    words = " ".join(ran.out.split())
    assert f"{worker(OLDEST)} 0.0 MB goes no pod, no template" in words
    assert f"{worker(OLD)} 0.0 MB stays the pod" in words
    ran = prune("--dry-run", "--keep", "1", "-o", "json")
    a, b = ({i["version"]: i["goes"] for i in node["images"]} for node in ran.document["nodes"])
    assert a == b == {OLDEST: True, OLDER: False, BEFORE: False, OLD: False}
    assert versions(shelves) == [HERE, HERE]


def test_a_look_says_what_not_complete_means(prune: Prune, shelves: dict[str, Shelf]) -> None:
    look = ("--way", "docker-to-nodes")
    assert "COMPLETE no" not in prune(*look, command="status").err
    shelves["node-b"].parted = frozenset({worker(OLD)})
    ran = prune(*look, command="status")
    assert ran.code == 0
    assert "COMPLETE no, on node-b: " in ran.err


@pytest.mark.parametrize("answer", ["n", ""])
def test_at_a_terminal_it_asks(prune: Prune, shelves: dict[str, Shelf], answer: str) -> None:
    ran = prune(answer=answer)
    assert ran.code == 1
    assert "Remove 4 images from 2 nodes?" in ran.err
    assert "No image was removed." in ran.err
    assert versions(shelves) == [HERE, HERE]


def test_what_was_shown_is_removed(prune: Prune, shelves: dict[str, Shelf]) -> None:
    ran = prune("-y", "-o", "json")
    assert ran.code == 0, ran
    assert removed(ran) == [{OLDEST, OLDER}] * 2
    assert [node["freed"] for node in ran.document["nodes"]] == [2000, 2000]
    assert versions(shelves) == [{BEFORE, OLD}] * 2
    again = prune()
    assert again.code == 2, "it does not depend on what there is to remove"
    assert "Nothing to remove." in prune(answer="").out


def test_what_came_into_use_while_the_question_stood_stays(prune: Prune, shelves: dict[str, Shelf]) -> None:
    node = shelves["node-a"]
    at_look(node, 2, lambda: node.containers.append(worker(OLDEST)))
    ran = prune("-o", "json", answer="y")
    assert ran.code == 0, ran
    assert removed(ran) == [{OLDER}] * 2
    assert versions(shelves) == [{OLDEST, BEFORE, OLD}] * 2


def test_what_a_pod_began_to_use_meanwhile_stays(prune: Prune, shelves: dict[str, Shelf], world: World) -> None:
    pods = "/api/v1/namespaces/default/pods"
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "somebody"},
        "spec": {"nodeName": "node-b", "containers": [{"name": "c", "image": worker(OLDER)}]},
    }
    at_look(shelves["node-a"], 2, lambda: world.ask("POST", pods, pod))
    try:
        ran = prune("-o", "json", answer="y")
    finally:
        status, _ = world.ask("DELETE", f"{pods}/somebody")
    assert (ran.code, status) == (0, 200)
    assert removed(ran) == [{OLDEST}] * 2


def test_what_was_not_shown_is_not_removed(prune: Prune, shelves: dict[str, Shelf]) -> None:
    """It came meanwhile: it might go, and nobody has seen it."""
    node = shelves["node-b"]
    at_look(node, 2, lambda: node.put(worker("2023.01.0")))
    ran = prune("-o", "json", answer="y")
    assert ran.code == 0, ran
    assert removed(ran) == [{OLDEST, OLDER}] * 2
    assert versions(shelves) == [{BEFORE, OLD}, {"2023.01.0", BEFORE, OLD}]


def test_a_node_that_cannot_be_asked_makes_it_fail_and_the_others_are_pruned(
    prune: Prune, shelves: dict[str, Shelf]
) -> None:
    shelves["node-a"].refuse = TemporaryError("node-a does not answer.", observed="Connection refused.")
    ran = prune("-y", "-o", "json")
    assert ran.code == 1
    four_parts(ran.err[ran.err.index("Error: ") :])
    assert "Not every node was pruned: node-a" in ran.err
    document = json.loads(ran.out)
    assert [node["error"] is None for node in document["nodes"]] == [False, True]
    assert versions(shelves) == [HERE, {BEFORE, OLD}]


def test_a_name_that_is_there_after_its_removal_makes_it_fail(prune: Prune, shelves: dict[str, Shelf]) -> None:
    shelves["node-a"].sticky = frozenset({worker(OLDEST)})
    ran = prune("-y")
    assert ran.code == 1
    assert f"node-a still tells images that were to be removed. {worker(OLDEST)}" in " ".join(ran.err.split())
    assert versions(shelves) == [{OLDEST, BEFORE, OLD}, {BEFORE, OLD}]
