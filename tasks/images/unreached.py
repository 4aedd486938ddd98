"""The places that could not be asked, as one error.  Pure."""

from collections.abc import Mapping

from tasks.domain.errors import UpgradeError


def refusal(failed: Mapping[str, UpgradeError]) -> UpgradeError | None:
    """The error of all `failed` places (by key), their own where they have one: the same class where all share it.

    None where each place could be asked.
    """
    errors = tuple(failed.values())
    if len(errors) < 2:
        return errors[0] if errors else None
    kinds = {type(error) for error in errors}
    return (kinds.pop() if len(kinds) == 1 else UpgradeError)(
        f"{len(errors)} nodes could not be asked: {', '.join(failed)}.",
        observed="\n".join(f"{key}: {error.happened} {error.observed}".strip() for key, error in failed.items()),
        safe=errors[0].safe,
        next="\n".join(dict.fromkeys(error.next for error in errors if error.next)),
    )
