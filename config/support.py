"""Settings of the rights of support staff."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from config.base import SettingsSection

_Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
_Code = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class SupportSettings(SettingsSection):
    """Up to which amounts the role `support` decides, and the certificates that rights need.

    `decide_up_to` is in minor units by currency; a currency that is left out has no bound."""

    decide_up_to: dict[_Currency, Annotated[int, Field(ge=0, le=10**15)]] = Field(default_factory=dict)
    certificates: dict[Literal["support", "support_lead", "claims"], _Code] = Field(default_factory=dict)
