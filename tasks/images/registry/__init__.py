"""Container registries as the OCI distribution specification has them: asked, read from, and pushed to."""

from tasks.images.registry.presence import holds, registry_of

__all__ = ["holds", "registry_of"]
