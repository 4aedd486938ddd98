"""A differential bundle at a place that does not hold what it leaves out."""

from collections.abc import Mapping

from tasks.domain.errors import NOTHING_CHANGED, BlockedError
from tasks.images.bundle.record import BaseRecord
from tasks.images.model import Need


class MissingBaseError(BlockedError):
    """Layers that a bundle leaves out are not held where it is to go; nothing was imported."""


def require_base(base: BaseRecord | None, left_out: frozenset[str], needs: Mapping[str, Need]) -> None:
    """Raise `MissingBaseError` where a target (by its name for people) needs layers (diffIDs) that were left out."""
    lacking = {where: need.layers & left_out for where, need in sorted(needs.items()) if need.layers & left_out}
    if lacking:
        raise missing_base(base, {where: len(layers) for where, layers in lacking.items()})


def missing_base(base: BaseRecord | None, lacking: Mapping[str, int]) -> MissingBaseError:
    """The error for targets and how many of the left out layers each lacks."""
    version = base.version if base else ""
    against = f"made for a site that holds {version}" if version else "made against a list of what the site holds"
    lines = [f"{where} lacks {count} of the layers that it leaves out." for where, count in lacking.items()]
    images = f" Its images: {', '.join(base.images)}." if base and base.images else ""
    return MissingBaseError(
        f"The bundle is {against}, and that is not so everywhere.",
        observed="\n".join(lines) + images,
        safe=NOTHING_CHANGED,
        next=(f"Load a bundle of {version} there first, or" if version else "Make")
        + (" make" if version else "")
        + " a complete bundle: `images bundle` without --since and --held.",
    )
