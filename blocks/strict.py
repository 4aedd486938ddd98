"""What all settings have in common."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings are whole and spelt right, or refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
