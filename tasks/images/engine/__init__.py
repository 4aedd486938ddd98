"""Docker engines as sources and targets of images."""

from tasks.images.engine.source import DockerSource
from tasks.images.engine.target import DockerNodeTarget

__all__ = ["DockerNodeTarget", "DockerSource"]
