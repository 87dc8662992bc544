"""Settings of tokens: the keys that verify them, and the one that signs tickets of waiting rooms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from config.base import Positive, SettingsSection


class AuthKey(SettingsSection):
    """A key that verifies tokens. `secret` is the shared secret or the PEM public key.

    `sign_with` is the PEM private key, only for commands that create tokens; HS256 signs with its secret."""

    kid: str = Field(min_length=1, max_length=64)
    algorithm: Literal["HS256", "EdDSA", "ES256", "RS256"] = "HS256"
    secret: SecretStr
    sign_with: SecretStr | None = None


def _check_keys(keys: tuple[AuthKey, ...]) -> tuple[AuthKey, ...]:
    for key in keys:
        if key.algorithm == "HS256" and len(key.secret.get_secret_value()) < 32:
            raise ValueError(f"the secret of key {key.kid!r} is shorter than 32 characters")
    if len({key.kid for key in keys}) != len(keys):
        raise ValueError("two keys have the same kid")
    return keys


class AuthSettings(SettingsSection):
    """Verification of tokens, which are JWTs.

    Several keys may be valid, so that one can be replaced while running."""

    keys: Annotated[tuple[AuthKey, ...], AfterValidator(_check_keys)] = ()
    issuer: str = "floodgate"
    room_ticket_key: SecretStr | None = Field(default=None, min_length=32)
    coupon_key: SecretStr | None = Field(default=None, min_length=32)
    token_cache: Positive = 50_000
    clock_leeway_s: int = Field(default=5, ge=0)
