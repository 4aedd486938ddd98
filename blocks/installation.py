"""Finds an installation's settings by a name that is no secret.

A flow's parameter carries the name alone.  It is the name of a Prefect block, or one that this process was
given settings under (the command line does so), which never leave the process.
"""

from pydantic import ValidationError

from blocks.settings import InstallationSettings
from blocks.strict import faults_in
from tasks.domain.errors import UsageError

_provided: dict[str, InstallationSettings] = {}


def provide(name: str, settings: InstallationSettings) -> None:
    """Make `settings` known in this process under `name`."""
    _provided[name] = settings


def installation(name: str) -> InstallationSettings:
    """The settings under `name`; raise `UsageError` where neither this process nor Prefect knows it."""
    if name in _provided:
        return _provided[name]
    from blocks.registered import ApinizerInstallation

    try:
        block = ApinizerInstallation.load(name, _sync=True)  # type: ignore[call-arg]  # added by a decorator
    except RuntimeError as error:  # Prefect's word for a stored block that is not as its class has it now
        raise _unusable(name, error.__cause__) from None
    except ValueError:
        raise UsageError(
            f"There is no block 'apinizer-installation/{name}'.",
            observed="The Prefect server that this run belongs to does not know it.",
            next="Create it under Blocks in the Prefect UI, or with: apinizer-upgrade deploy --installation NAME --config FILE.",
        ) from None
    if not isinstance(block, ApinizerInstallation):
        raise TypeError(f"block {name} is a {type(block).__name__}")
    try:
        return block.settings()
    except ValidationError as error:
        raise _unusable(name, error) from None


def _unusable(name: str, error: BaseException | None) -> UsageError:
    return UsageError(
        f"The block 'apinizer-installation/{name}' cannot be used.",
        observed=faults_in(error)
        if isinstance(error, ValidationError)
        else "What is stored does not fit this release.",
        next="Mend it under Blocks in the Prefect UI, or save it again with: apinizer-upgrade deploy --installation NAME --config FILE.",
    )
