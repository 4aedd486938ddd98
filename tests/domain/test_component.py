"""The repositories of every component by version: both renames, and the version that the sources disagree on."""

import pytest

from tasks.domain.component import DEFAULT_PORT, OF_ENVIRONMENT, Component, component_of, repositories
from tasks.domain.version import Version


@pytest.mark.parametrize(
    ("version", "manager", "portal"),
    [
        ("2024.01.6", ["manager"], ["portal"]),
        ("2025.04.3", ["manager"], ["portal"]),
        ("2025.04.4", ["manager"], ["portal"]),
        ("2025.04.5", ["manager"], ["portal", "apiportal"]),
        ("2025.04.05", ["manager"], ["portal", "apiportal"]),
        ("2025.04.6", ["manager"], ["portal"]),
        ("2025.04.10", ["manager"], ["portal"]),
        ("2025.05.0", ["manager"], ["apiportal"]),
        ("2025.07.0", ["manager"], ["apiportal"]),
        ("2025.11.0", ["manager"], ["apiportal"]),
        ("2025.11.1", ["apimanager"], ["apiportal"]),
        ("2026.04.01", ["apimanager"], ["apiportal"]),
        ("2026.04.10", ["apimanager"], ["apiportal"]),
    ],
)
def test_the_two_that_were_renamed(version: str, manager: list[str], portal: list[str]) -> None:
    assert list(repositories(Component.MANAGER, Version(version))) == manager
    assert list(repositories(Component.PORTAL, Version(version))) == portal


@pytest.mark.parametrize("component", [Component.WORKER, Component.CACHE, Component.INTEGRATION])
@pytest.mark.parametrize("version", ["2024.01.6", "2025.04.5", "2025.11.1", "2026.09.0"])
def test_the_three_that_never_were(component: Component, version: str) -> None:
    assert repositories(component, Version(version)) == (component.value,)


@pytest.mark.parametrize("version", ["2024.01.6", "2025.04.5", "2025.11.0", "2025.11.1", "2026.09.0"])
def test_every_name_leads_back_to_its_component(version: str) -> None:
    for component in Component:
        assert {component_of(name) for name in repositories(component, Version(version))} == {component}


@pytest.mark.parametrize("name", ["", "Worker", "worker2", "apinizercloud/worker", "redis", "apiworker"])
def test_other_names_are_nobodys(name: str) -> None:
    assert component_of(name) is None


def test_published_ports_and_what_belongs_to_an_environment() -> None:
    assert {c.value: p for c, p in DEFAULT_PORT.items()} == {
        "manager": 8080, "worker": 8091, "cache": 8090, "portal": 8080, "integration": 8092,
    }  # fmt: skip
    assert sorted(OF_ENVIRONMENT) == ["cache", "worker"]
