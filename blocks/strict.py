"""What all settings have in common."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Settings are whole and spelt right, or refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def faults_in(error: ValidationError) -> str:
    """A line for each fault: the field and what is wrong with it, never the value."""
    return "\n".join(
        f"{'.'.join(str(p) for p in e['loc']) or 'as a whole'}: {e['msg']}" for e in error.errors(include_input=False)
    )
