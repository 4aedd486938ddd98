"""One suite, two judges: ``--target sandbox`` (the default) or ``--target real`` (or ``CONTRACT_TARGET=real``)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .access import kubeconfig_from_environment, read_kubeconfig
from .api import Api, JsonObject, path
from .world import Namespace, container

SPEED = float(os.environ.get("CONTRACT_SPEED", "10"))


@dataclass(frozen=True)
class Release:
    """The release that the installation runs."""

    manager: str
    """The manager's image without its tag."""
    version: str
    credentials: JsonObject
    """``data`` of its secret ``mongo-db-credentials``."""

    def component(self, repository: str, **env: str) -> JsonObject:
        """A container of that component, shaped as the installation's own; ``env`` adds or overrides."""
        given = {"BOOT_SECONDS": "0", **env}
        secret = {
            "SPRING_DATA_MONGODB_URI": "dbUrl",
            "SPRING_DATA_MONGODB_DATABASE": "dbName",
        }
        variables: list[JsonObject] = [{"name": key, "value": value} for key, value in given.items()]
        variables += [
            {"name": key, "valueFrom": {"secretKeyRef": {"name": "mongo-db-credentials", "key": entry}}}
            for key, entry in secret.items()
            if key not in given
        ]
        probe = {"httpGet": {"path": "/apinizer/management/health", "port": 8080}, "periodSeconds": 1}
        return container(
            "main",
            f"apinizercloud/{repository}:{self.version}",
            ports=[{"containerPort": 8080}],
            env=variables,
            readinessProbe=probe,
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--target", choices=("sandbox", "real"), help="whose Kubernetes API to ask")


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config) -> str:
    return str(pytestconfig.getoption("--target", None) or os.environ.get("CONTRACT_TARGET") or "sandbox")


@pytest.fixture(scope="session")
def kubeconfig(target: str) -> Iterator[Path]:
    """The way in; starts the sandbox where that is the target, one for each process of the test run."""
    if target == "real":
        yield kubeconfig_from_environment()
        return
    from deployments.sandbox.launch import Sandbox

    with Sandbox(speed=SPEED) as sandbox:
        yield sandbox.kubeconfig


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Iterator[Api]:
    """The administrator's view of the target."""
    client = Api(read_kubeconfig(kubeconfig))
    yield client
    client.close()


@pytest.fixture(scope="session")
def release(api: Api) -> Release:
    (manager,) = api.items(path("deployments", "apinizer"))
    image = manager["spec"]["template"]["spec"]["containers"][0]["image"]
    credentials = api.get(path("secrets", "apinizer", "mongo-db-credentials"))["data"]
    repository, _, version = image.rpartition(":")
    return Release(repository, version, credentials)


@pytest.fixture
def space(api: Api) -> Iterator[Namespace]:
    """A namespace of the test's own, deleted without waiting."""
    made = api.create(
        path("namespaces"),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "contract-"}},
    )
    name = made["metadata"]["name"]
    yield Namespace(api, name)
    api.delete(path("namespaces", None, name))


@pytest.fixture
def installed(space: Namespace, release: Release) -> Namespace:
    """A namespace with the database's secret, as components need it."""
    secret: JsonObject = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mongo-db-credentials"}}
    space.create("secrets", {**secret, "data": release.credentials})
    return space
