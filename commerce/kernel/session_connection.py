"""The connection class of pools: no statement before and after its use that can be saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import asyncpg

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection  # generic only to the type checker
_FIRST_VARIABLE_OID = 10_000
"""types with a lower one are the same at every server (Postgres, `access/transam.h`)"""


class _NoStatement(NamedTuple):
    """Stands for the statement that did not have to run."""

    name: str = "none"


_known_types: dict[frozenset[int], Any] = {}
"""answers of servers about builtin types, arrays above all"""


class SessionConnection(_Connection):
    """A connection that needs no reset between two uses, and asks once per process what an array holds.

    A reset would be half of the statements of a short use. Settings and locks are those of a transaction, except in
    `postgres.session_lock`. asyncpg asks at each new connection about each array type in turn, a recursive query that
    takes Postgres longer than most statements of this project.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commit_notes: set[str | UUID] = set()

    def get_reset_query(self) -> str:
        return ""

    async def _introspect_types(self, typeoids: set[int], timeout: float) -> tuple[Any, Any]:
        key = frozenset(typeoids)
        if key in _known_types:
            return _known_types[key], _NoStatement()
        types, statement = await super()._introspect_types(typeoids, timeout)  # type: ignore[misc]  # no stub
        if max(key) < _FIRST_VARIABLE_OID:
            _known_types[key] = types
        return types, statement
