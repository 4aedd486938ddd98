"""The places that could not be asked, as one error.  Pure."""

from collections.abc import Mapping

from tasks.domain.errors import UpgradeError, joined


def refusal(failed: Mapping[str, UpgradeError]) -> UpgradeError | None:
    """The error of all `failed` places (by key), their own where they have one; None where each could be asked."""
    if not failed:
        return None
    return joined(tuple(failed.values()), f"{len(failed)} nodes could not be asked: {', '.join(failed)}.")
