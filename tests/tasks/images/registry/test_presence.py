"""Whether a registry holds a tag, and to whom the settings' password goes to find that out."""

import pytest
from pydantic import SecretStr

from blocks.image_settings import ImageSourceSettings
from tasks.domain.reference import ImageReference
from tasks.images.registry import holds
from tasks.images.registry.presence import access_for
from tests.tasks.images.registry.served import PASSWORD, USER, Faults, Ordered, Served, served

NEXUS = "nexus.local:5000"


def settings(prefix: str = "", kind: str = "registry") -> ImageSourceSettings:
    return ImageSourceSettings.model_validate(
        {"kind": kind, "prefix": prefix, "user": USER, "password": SecretStr(PASSWORD), "insecure": True}
    )


@pytest.mark.parametrize(
    ("kind", "prefix", "asked", "registries", "meant"),
    [
        ("registry", f"{NEXUS}/apinizercloud", NEXUS, (), True),
        ("registry", f"{NEXUS}/apinizercloud", "Nexus.local:5000", (), True),
        ("registry", f"{NEXUS}/apinizercloud", "nexus.local", (), False),
        ("registry", f"{NEXUS}/apinizercloud", "nexus.local:5001", (), False),
        ("proxy", f"{NEXUS}/apinizercloud", "docker.io", (), False),
        ("registry", "mirror", "docker.io", (), True),
        ("hub", "", "docker.io", (), True),
        ("hub", "", NEXUS, (), False),
        ("as-is", "", NEXUS, (), True),
        ("as-is", "", NEXUS, (NEXUS,), True),
        ("as-is", "", NEXUS, (NEXUS, "docker.io"), False),
        ("as-is", "", "docker.io", (NEXUS, "docker.io"), False),
    ],
)
def test_who_gets_the_login(kind: str, prefix: str, asked: str, registries: tuple[str, ...], *, meant: bool) -> None:
    access = access_for(asked, settings(prefix, kind), registries)
    assert (access.user, access.secret, access.insecure) == ((USER, PASSWORD, True) if meant else ("", "", False))


def asked(registry: Served, given: ImageSourceSettings) -> bool | None:
    return holds(ImageReference.parse(registry.name("apinizercloud/worker:1")), given)


def test_the_settings_own_registry_gets_the_password() -> None:
    with served(auth="basic") as registry:
        registry.put_image("apinizercloud/worker:1", [b"layer"])
        assert asked(registry, settings(f"{registry.host}/apinizercloud")) is True
        assert any(seen.authorization for seen in registry.requests())


@pytest.mark.parametrize("status", [200, 404])
def test_a_page_of_something_on_the_way_says_nothing(status: int) -> None:
    page = Ordered("HEAD", "/manifests/", status, headers={"Content-Type": "text/html; charset=utf-8"})
    with served(faults=Faults(answers=[page])) as registry:
        assert asked(registry, settings(f"{registry.host}/apinizercloud")) is None


def test_another_registry_sees_neither_password_nor_plain_http() -> None:
    with served(auth="basic") as other:
        other.put_image("apinizercloud/worker:1", [b"layer"])
        assert asked(other, settings(f"{NEXUS}/apinizercloud")) is None
        assert other.seen == []
