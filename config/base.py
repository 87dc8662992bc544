"""Base classes and types of the settings."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

Port = Annotated[int, Field(ge=0, le=65_535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


def _check_time_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError(f"{name!r} is no time zone: set one like Asia/Shanghai")
    return name


TimeZoneName = Annotated[str, AfterValidator(_check_time_zone)]


def make_absolute(path: Path) -> Path:
    """Return a path that does not depend on the working directory, without `~`.

    Raises `ValueError` if it names the home of an unknown user or cannot be written into files and URLs.
    """
    if any(letter < " " or "\ud800" <= letter <= "\udfff" for letter in str(path)):
        raise ValueError(f"the path {str(path)!r} has a control character or is not UTF-8; choose another")
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"cannot use the path {path}: {error}") from None


AbsolutePath = Annotated[Path, AfterValidator(make_absolute)]

PRIVATE_NETWORKS: tuple[IPv4Network | IPv6Network, ...] = (
    *map(IPv4Network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")),
    *map(IPv6Network, ("::1/128", "fc00::/7")),
)
"""Loopback and private networks. No client on the internet has such an address."""


class SettingsSection(BaseModel):
    """A section of the settings. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class CredentialSection(SettingsSection):
    """An account at a provider or a carrier."""

    def as_strings(self) -> dict[str, str]:
        """Return all fields as strings, secrets in clear text: for the adapter only."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
        }
