"""Screening for gateways and staff: sightings in, suspects out, reports, clearings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database
from commerce.screening import store
from commerce.screening.errors import NotCleared, NotScreened
from commerce.screening.model import (
    MAX_SCORE,
    Cursor,
    ScreenedSale,
    ScreenedUser,
    ScreenedUserDetails,
    Sighting,
    Signal,
    Suspect,
)
from commerce.screening.screener import MAX_SALES, SHOWN_AFTER_END

MAX_DECISIONS = 1_000
_START = f"{MAX_SCORE + 1}:"


class Screening:
    """Scores and clearings of customers, per sale."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_sales(self) -> list[ScreenedSale]:
        """List the running sales whose customers are screened."""
        async with self._db.connection() as connection:
            return await store.list_sales(connection, self._now() - SHOWN_AFTER_END, MAX_SALES)

    async def record(self, sightings: Sequence[Sighting], max_waiting: int) -> bool:
        """Store sightings for the worker. Returns False, and stores none, if `max_waiting` rows wait for it."""
        async with self._db.transaction() as connection:
            if await store.count_sightings(connection) >= max_waiting:
                return False
            await store.insert_sightings(connection, sightings)
        return True

    async def list_suspects(
        self, sale_id: str, after: tuple[int, str], min_score: int, is_first: bool, count: int
    ) -> list[Suspect]:
        """List customers whose score or clearing has changed after a version and user, in this order.

        With `is_first` those below `min_score` are left out: the caller has none of them.
        """
        async with self._db.connection() as connection:
            return await store.list_suspects(connection, sale_id, after, min_score, is_first, count)

    async def list_users(
        self,
        sale_id: str,
        cursor: Cursor | None,
        size: int,
        *,
        min_score: int = 1,
        signal: Signal | None = None,
        is_cleared: bool | None = None,
    ) -> Page[ScreenedUser]:
        """List the scored customers of a sale, highest score first."""
        score, _, user_id = _START.partition(":") if cursor is None else cursor.partition(":")
        after = int(score), user_id
        async with self._db.connection() as connection:
            users = await store.list_users(
                connection, sale_id, min_score, after, signal, is_cleared, self._now(), size + 1
            )
        return to_page(users, size, lambda user: f"{user.score}:{user.user_id}")

    async def get(self, sale_id: str, user_id: str) -> ScreenedUserDetails:
        """Read a customer of a sale with the decisions on him. Raises `NotScreened`."""
        async with self._db.connection() as connection:
            user = await store.get_user(connection, sale_id, user_id)
            if user is None:
                raise NotScreened(f"{user_id} was not seen in {sale_id}, or it is not screened")
            return ScreenedUserDetails(user, await store.list_decisions(connection, sale_id, user_id, MAX_DECISIONS))

    async def clear(self, sale_id: str, user_id: str, reason: str, until: datetime, actor: str) -> ScreenedUserDetails:
        """Clear a customer: until a moment his score leads to nothing. He need not have been seen yet.

        Gateways follow within two seconds. Raises `NotScreened` if the sale is not screened, `Invalid` if `until` is
        over.
        """
        now = self._now()
        if until <= now:
            raise Invalid(
                "cannot clear until a moment that is over; name a later one",
                errors=[{"pointer": "/until", "detail": "is over"}],
            )
        async with self._db.transaction() as connection:
            if not await store.clear(connection, sale_id, user_id, now, actor, reason, until):
                raise NotScreened(f"the sale {sale_id} is not screened: there is nothing to clear")
        return await self.get(sale_id, user_id)

    async def revoke(self, sale_id: str, user_id: str, reason: str, actor: str) -> ScreenedUserDetails:
        """Revoke a clearing: the score counts again. Raises `NotCleared` if there is none that lasts."""
        async with self._db.transaction() as connection:
            if not await store.revoke(connection, sale_id, user_id, self._now(), actor, reason):
                raise NotCleared(f"{user_id} is not cleared in {sale_id}, or no longer")
        return await self.get(sale_id, user_id)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
