"""Container registries as the OCI distribution specification has them: asked, read from, and pushed to."""

from tasks.images.registry.presence import holds

__all__ = ["holds"]
