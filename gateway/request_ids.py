"""Ids of requests that come without one."""

from __future__ import annotations

import secrets


class RequestIdGenerator:
    """Cheap ids for requests that come without one, unique over processes."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"{self._process}-{self._count:x}"
