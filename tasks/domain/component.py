"""The five components and the image repositories that each version keeps them in.

Source: the vendor's release notes.  The portal's repository is `portal` up to 2025.04.x and `apiportal`
later; the manager's is `manager` up to 2025.11.0 and `apimanager` later.  For 2025.04.5 the sources
disagree about the portal, so both are candidates and the world is asked which one holds the tag.
"""

from enum import StrEnum

from tasks.domain.version import Version

PORTAL_RENAMED_AFTER = Version("2025.04.9999")
PORTAL_DISPUTED = Version("2025.04.5")
MANAGER_RENAMED_AFTER = Version("2025.11.0")


class Component(StrEnum):
    """What a container of the installation is.  The manager comes first; the others follow it."""

    MANAGER = "manager"
    WORKER = "worker"
    CACHE = "cache"
    PORTAL = "portal"
    INTEGRATION = "integration"


_BY_REPOSITORY = {
    "manager": Component.MANAGER,
    "apimanager": Component.MANAGER,
    "worker": Component.WORKER,
    "cache": Component.CACHE,
    "portal": Component.PORTAL,
    "apiportal": Component.PORTAL,
    "integration": Component.INTEGRATION,
}

# The port of each component's management endpoints where a pod declares none (published installation manifests).
DEFAULT_PORT = {
    Component.MANAGER: 8080,
    Component.WORKER: 8091,
    Component.CACHE: 8090,
    Component.PORTAL: 8080,
    Component.INTEGRATION: 8092,
}

# A component that serves an environment: its namespace is that environment.
OF_ENVIRONMENT = frozenset({Component.WORKER, Component.CACHE})


def component_of(repository: str) -> Component | None:
    """The component that a repository's last path part names (`apiportal`), or None."""
    return _BY_REPOSITORY.get(repository)


def repositories(component: Component, version: Version) -> tuple[str, ...]:
    """The repositories that may hold `component` at `version`: one, or two where the sources disagree."""
    match component:
        case Component.PORTAL if version == PORTAL_DISPUTED:
            return ("portal", "apiportal")
        case Component.PORTAL:
            return ("apiportal",) if version > PORTAL_RENAMED_AFTER else ("portal",)
        case Component.MANAGER:
            return ("apimanager",) if version > MANAGER_RENAMED_AFTER else ("manager",)
        case _:
            return (component.value,)
