"""Versions of Redis and Valkey, and which of them reads the files of which.

Valkey reads what Redis up to 7.2 writes. Since Redis 7.4 and Valkey 9 neither reads a snapshot of the other, and each
append-only file begins with one.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

REDIS, VALKEY = "Redis", "Valkey"
_VERSION = re.compile(r"^(Redis|Valkey) server v=(\d+)\.(\d+)", re.MULTILINE)
_MARK = re.compile(r"(?:(Valkey) )?(\d+)(?:\.(\d+))?\s*")
_TIMEOUT_S = 10


class RedisVersion(NamedTuple):
    """A version of Redis or of Valkey."""

    major: int
    minor: int
    product: str = REDIS

    def __str__(self) -> str:
        return f"{self.product} {self.major}.{self.minor}"

    def to_mark(self) -> str:
        """Return the text for the file that says who wrote the data, such as `7.0` or `Valkey 9.1`."""
        return f"{'' if self.product == REDIS else f'{self.product} '}{self.major}.{self.minor}"


MULTIPART: Final = RedisVersion(7, 0)
"""first version that keeps several append-only files and a manifest, which older ones ignore"""
_REDIS_APART, _VALKEY_APART = RedisVersion(7, 4), RedisVersion(9, 0, VALKEY)
"""first versions whose snapshots the other product refuses"""


def read_server_version(program: Path | str) -> RedisVersion | None:
    """Return the version of a server's program, None if it cannot be run or is none."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(output)
    return RedisVersion(int(match[2]), int(match[3]), match[1]) if match else None


def parse_mark(text: str) -> RedisVersion | None:
    """Return the version in a text of `to_mark`, None if it holds none."""
    match = _MARK.fullmatch(text)
    return RedisVersion(int(match[2]), int(match[3] or 0), match[1] or REDIS) if match else None


def parse_snapshot_version(header: bytes) -> RedisVersion | None:
    """Return the first version that writes a snapshot with this beginning, None if every version reads it."""
    match = re.match(rb"(REDIS|VALKEY)(\d+)", header[:9])
    if match is None:
        return None
    if match[1] == b"VALKEY":
        return _VALKEY_APART
    number = int(match[2])
    return _REDIS_APART if number >= 12 else RedisVersion(7, 2) if number == 11 else None


def explain_unreadable(server: RedisVersion, writer: RedisVersion) -> str | None:
    """Explain why a server cannot use the files that a version wrote; None if it can.

    A newer minor version of the same product is taken to be readable: the server itself refuses what it cannot read.
    """
    if server.product == writer.product:
        readable = server.major >= writer.major
    elif server.product == VALKEY:
        readable = writer < _REDIS_APART
    else:
        readable = writer < _VALKEY_APART and server >= (7, 2)
    if readable:
        return None
    return "would start empty" if server.product == REDIS and server < MULTIPART else "cannot read it"
