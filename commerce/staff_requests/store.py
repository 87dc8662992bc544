"""Rows of answers to staff requests."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

queries = load_queries(__package__)


class StaffAnswer(NamedTuple):
    """A favourable answer to a staff request, as it is sent."""

    status: int
    content_type: str
    location: str | None
    body: bytes


async def lock_key(connection: Connection, actor: str, key: str) -> None:
    """Wait for other requests with this key, and keep later ones waiting until the transaction ends."""
    await connection.execute(queries.lock_key, actor, key)


async def find_answer(connection: Connection, actor: str, key: str) -> tuple[bytes, StaffAnswer] | None:
    """Return the digest of the request that used the key, and its answer."""
    row = await connection.fetchrow(queries.find_answer, actor, key)
    if row is None:
        return None
    return row["digest"], StaffAnswer(row["status"], row["content_type"], row["location"], row["body"])


async def insert_answer(
    connection: Connection, actor: str, key: str, digest: bytes, answer: StaffAnswer, now: datetime
) -> None:
    """Store an answer; the first one of a key stays."""
    await connection.execute(queries.insert_answer, actor, key, digest, now, *answer)


async def delete_expired(connection: Connection, before: datetime, count: int) -> None:
    """Delete the oldest answers from before a moment, at most `count`."""
    await connection.execute(queries.delete_expired, before, count)
