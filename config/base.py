"""What the parts of the settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class SettingsSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CredentialSection(SettingsSection):
    """What is agreed with a provider or a carrier."""

    def as_strings(self) -> dict[str, str]:
        """All of it as texts, the secrets too: for the adapter alone."""
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in given.items()
        }
