"""containerd, asked and fed through `ctr`, here or over SSH: where images come from, and where they go."""

from tasks.images.containerd.source import ContainerdSource
from tasks.images.containerd.target import ContainerdTarget

__all__ = ["ContainerdSource", "ContainerdTarget"]
