"""Amounts as people read them."""


def megabytes(size: int) -> str:
    """`42.1 MB`, decimal as networks and registries count."""
    return f"{size / 1e6:.1f} MB"
