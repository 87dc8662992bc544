"""Rows of answers to staff requests."""

from __future__ import annotations

from datetime import datetime

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.staff_requests.model import StaffAnswer

queries = load_queries(__package__)


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
