"""Answers staff requests once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import KeyReused
from commerce.kernel.postgres import Connection, Database
from commerce.staff_requests import store
from commerce.staff_requests.model import StaffAnswer

Handler = Callable[[], Awaitable[StaffAnswer]]


class StaffRequests:
    """Stores answers by actor and key. A refusal is not stored: the key may be used again."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def answer_once(self, actor: str, key: str, digest: bytes, handler: Handler) -> StaffAnswer:
        """Run a handler that changes only Postgres, or return the stored answer of its first run.

        The changes and the answer are committed in one transaction, so a repeat finds both or neither. Raises
        `KeyReused` if the key belongs to a request with another digest."""
        async with self._db.joined_transaction() as connection:
            await store.lock_key(connection, actor, key)
            stored = await self._find(connection, actor, key, digest)
            if stored is not None:
                return stored
            answer = await handler()
            await self._store(connection, actor, key, digest, answer)
        return answer

    async def answer_same(self, actor: str, key: str, digest: bytes, handler: Handler) -> StaffAnswer:
        """Run a handler whose repeat changes nothing more, or return the stored answer of an earlier run.

        For handlers that also change Redis, which takes no part in a transaction. Raises as `answer_once`."""
        async with self._db.connection() as connection:
            stored = await self._find(connection, actor, key, digest)
        if stored is not None:
            return stored
        answer = await handler()
        async with self._db.transaction() as connection:
            await self._store(connection, actor, key, digest, answer)
        return answer

    async def _find(self, connection: Connection, actor: str, key: str, digest: bytes) -> StaffAnswer | None:
        stored = await store.find_answer(connection, actor, key)
        if stored is None:
            return None
        stored_digest, answer = stored
        if stored_digest != digest:
            raise KeyReused("this Idempotency-Key belongs to another request of yours: use a new key")
        return answer

    async def _store(self, connection: Connection, actor: str, key: str, digest: bytes, answer: StaffAnswer) -> None:
        await store.insert_answer(connection, actor, key, digest, answer, from_ms(self._clock.now_ms()))
