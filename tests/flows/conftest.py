"""The flow runs in this process, against one Prefect server for all tests and a sandbox that is new to each of them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.embedded import EmbeddedServer, without_heartbeats
from deployments.sandbox.launch import Sandbox
from tests.flows.world import OLD, World

SPEED = 10.0


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[EmbeddedServer]:
    """A Prefect server; this process's Prefect is told of it, whether it is imported yet or not."""
    with EmbeddedServer() as server, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        for name, value in server.settings().items():
            patch.setenv(name, value)
        from prefect.settings import (
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            PREFECT_LOGGING_TO_API_ENABLED,
            temporary_settings,
        )

        given = server.settings()
        told = {
            PREFECT_API_URL: given["PREFECT_API_URL"],
            PREFECT_API_AUTH_STRING: given["PREFECT_API_AUTH_STRING"],
            PREFECT_LOGGING_TO_API_ENABLED: False,
        }
        server.wait()
        with temporary_settings(told), without_heartbeats():
            yield server


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(version=OLD, speed=SPEED) as running:
        yield running


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    return World(sandbox)


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    return tmp_path / "backups"


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(prefect_server: EmbeddedServer, world: World, backups: Path) -> Run:
    """Run the flow on the sandbox: `run("2025.07.0", ...)`; the report, or what it raised."""
    from blocks.installation import provide
    from blocks.settings import ClusterSettings, InstallationSettings
    from flows.upgrade import upgrade

    provide(
        "tested",
        InstallationSettings(
            clusters=(ClusterSettings(kubeconfig_path=str(world.sandbox.kubeconfig)),), backup_dir=str(backups)
        ),
    )

    def go(to: str, **parameters: Any) -> dict[str, Any]:
        report: dict[str, Any] = upgrade(to=to, installation="tested", **parameters)
        return report

    return go


@pytest.fixture
def resume(run: Run) -> Run:
    """Go on with the unfinished run: `resume()`, or `resume(run=ID, ...)`; the report, or what it raised."""
    from flows.resume import resume

    def go(**parameters: Any) -> dict[str, Any]:
        report: dict[str, Any] = resume(installation="tested", **parameters)
        return report

    return go
