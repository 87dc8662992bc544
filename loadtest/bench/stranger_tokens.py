"""Tokens of users that no process has seen, signed many times faster than `sign_token` signs them."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from commerce.kernel.clock import Clock
from config.auth import AuthSettings
from gateway.auth import sign_token

_TTL_S = 86_400
_NUMBER = "@"
"""stands in nothing but the subject of the token that is the model of the others"""


def write_stranger_tokens(file: Path, settings: AuthSettings, clock: Clock, run: str, count: int) -> None:
    """Write a header line for each of `count` users `stranger-RUN-NUMBER`, from 0 on.

    Their tokens are those of `sign_token`. The first key of the settings must be for HS256.
    """
    with file.open("wb") as lines:
        lines.writelines(b"Authorization: Bearer %b\n" % token for token in _sign(settings, clock, run, count))


def _sign(settings: AuthSettings, clock: Clock, run: str, count: int) -> Iterator[bytes]:
    """Sign the claims of one token again and again, each time with another number in the subject."""
    secret = settings.keys[0].secret.get_secret_value().encode()
    model = sign_token(settings, clock, f"stranger-{run}-{_NUMBER}", "floodgate", (), _TTL_S).encode()
    header, claims, _ = model.split(b".")
    before, after = urlsafe_b64decode(claims + b"==").split(_NUMBER.encode())
    for number in range(count):
        signed = header + b"." + _encode(b"%b%d%b" % (before, number, after))
        yield signed + b"." + _encode(hmac.digest(secret, signed, "sha256"))


def _encode(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")
