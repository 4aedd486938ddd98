"""`undo`, `rollback --without` and the way back that a failed upgrade offers: one sandbox, tests that follow each other."""

from collections.abc import Iterator

import pytest

from deployments.sandbox.launch import Sandbox
from tests.cli.conftest import SPEED, four_parts
from tests.cli.database import Snapshot, snapshot
from tests.cli.test_backup import Person
from tests.flows.world import ALL, MANAGER, NEW, OLD, journals

BAD = "2025.08.0"
WORKER = "prod/worker-prod"


class Operator(Person):
    then: Snapshot


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory, prefect_env: dict[str, str]) -> Iterator[Operator]:
    with Sandbox(version=OLD, speed=SPEED) as sandbox:
        made = Operator(sandbox, tmp_path_factory.mktemp("operator"), prefect_env)
        made.then = snapshot(sandbox.mongo_uri)
        yield made


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        pytest.param((WORKER, "--to", NEW), 3, "has to be the first at 2025.07.0", id="beyond the manager"),
        pytest.param((WORKER, "--to", "2024.01.6"), 3, "reads a schema that is not its own", id="behind the manager"),
        pytest.param((MANAGER, "--to", "2024.01.6"), 3, "apinizer-upgrade rollback", id="the manager"),
        pytest.param(("prod/nothing", "--to", OLD), 2, "There is no Deployment prod/nothing", id="a name that is none"),
        pytest.param((WORKER, "--to", "new"), 2, "new", id="no version"),
        pytest.param((WORKER,), 2, "--to", id="no version said"),
    ],
)
def test_what_is_not_undone(operator: Operator, arguments: tuple[str, ...], code: int, told: str) -> None:
    before = operator.world.written()
    ran = operator.run("undo", *arguments, "--yes")
    assert ran.code == code, ran
    four_parts(ran.err)
    assert told in ran.err
    assert (operator.world.written(), journals(operator.world)) == (before, [])


def test_a_failed_upgrade_goes_back_when_a_person_agrees(operator: Operator) -> None:
    ran = operator.types(b"y\ny\n", "upgrade", "--to", BAD, "--on-failure", "rollback")
    assert ran.code == 1, ran
    four_parts(ran.err[ran.err.rindex("Error: ") :])
    assert "It was rolled back: every component is at 2025.04.3 and answers." in ran.err
    assert operator.world.at(OLD) == ALL
    assert snapshot(operator.sandbox.mongo_uri) == operator.then
    assert {j["kind"]: j["how"] for j in journals(operator.world)} == {"upgrade": "rolled back", "rollback": "complete"}


def test_one_component_is_put_back_to_what_its_database_accepts(operator: Operator) -> None:
    """After an upgrade somebody sets a worker's old image by hand."""
    ran = operator.run("upgrade", "--to", NEW, "--yes", "-o", "json")
    assert ran.code == 0, ran
    operator.world.set_image(WORKER, f"apinizercloud/worker:{OLD}")
    before = operator.world.written()
    shown = operator.run("undo", WORKER, "--to", NEW, "--dry-run")
    assert shown.code == 0, shown
    assert f"from apinizercloud/worker:{OLD} to apinizercloud/worker:{NEW}" in shown.out
    no = operator.types(b"n\n", "undo", WORKER, "--to", NEW)
    assert no.code == 1
    assert f"apinizer-upgrade undo {WORKER} --to {NEW}" in no.err
    assert operator.world.written() == before
    ran = operator.run("undo", WORKER, "--to", NEW, "--yes")
    assert ran.code == 0, ran
    assert f"{WORKER} is at {NEW}: its pods answer {NEW}." in ran.out
    assert operator.world.at(NEW) == ALL
    assert {k: v for k, v in operator.world.written().items() if k != WORKER} == {
        k: v for k, v in before.items() if k != WORKER
    }
    assert f"undo of {WORKER}" in operator.run("runs").out


def test_what_is_left_out_stays_as_it_is(operator: Operator) -> None:
    upgrade = next(j for j in journals(operator.world) if j["kind"] == "upgrade" and j["to"] == NEW)
    given = ("rollback", upgrade["id"], "--backup", upgrade["backup"]["sha256"][:8])
    before = operator.world.written()
    for name, part in (("prod/nothing", "prod/nothing"), (MANAGER, "manager")):
        ran = operator.run(*given, "--without", name)
        assert ran.code == 2, ran
        four_parts(ran.err)
        assert part in ran.err
    assert operator.world.written() == before
    ran = operator.run(*given, "--without", WORKER)
    assert ran.code == 0, ran
    assert operator.world.at(OLD) == ALL - {WORKER}
    assert operator.world.written()[WORKER] == before[WORKER]
    assert snapshot(operator.sandbox.mongo_uri) == operator.then
