"""Scores of the customers of running sales, computed in small steps by one worker or several.

A step is one transaction under one lock: what it takes from the sightings and what it makes of them is committed
together, so a worker that is killed has done a step or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import first_id
from commerce.kernel.postgres import Connection, Database
from commerce.screening import store
from commerce.screening.marks import list_marks, make_mark, normalise_phone
from commerce.screening.model import Mark, Score, Sighting, SignalLimits, score_customer
from commerce.screening.store import GroupKey, UserKey
from lua import SaleKeys

SHOWN_AFTER_END = timedelta(hours=1)
MAX_SALES = 1_000
_MAX_GROUPS_PER_STEP = 200
_SALT_BYTES = 32
_ORDER_MARGIN_MS = 10_000
"""above the time from an order's id to its entry in the stream, and the difference of clocks"""
_MAX_BEHIND_MS = 86_400_000
"""orders that are older are not read when screening is enabled again"""


class Screener:
    """Folds sightings and orders into marks and scores; deletes what is old."""

    def __init__(
        self,
        db: Database,
        redis: Redis,
        clock: Clock,
        limits: SignalLimits,
        rows_per_step: int,
        retention: timedelta,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._db = db
        self._redis = redis
        self._clock = clock
        self._limits = limits
        self._rows_per_step = rows_per_step
        self._retention = retention
        self._random = random

    async def add_sales(self) -> int:
        """Screen the sales that run from now on. Returns the number of new ones."""
        now = self._now()
        async with self._db.transaction() as connection:
            sale_ids = await store.list_unscreened(connection, now - SHOWN_AFTER_END, MAX_SALES)
            for sale_id in sale_ids:
                await store.insert_sale(connection, sale_id, self._random(_SALT_BYTES), now)
        return len(sale_ids)

    async def fold_sightings(self) -> int:
        """Fold the oldest sightings into marks and score their customers. Returns the number of sightings."""
        async with self._db.transaction() as connection:
            if not await store.try_lock(connection):
                return 0
            sightings, count = await store.take_sightings(connection, self._rows_per_step)
            if sightings:
                marks = [mark for sighting in sightings for mark in list_marks(sighting)]
                await self._fold(connection, sightings, marks)
            failpoint("screening.folded")
        return count

    async def fold_orders(self, sale_ids: Sequence[str]) -> int:
        """Fold the phone numbers of stored orders into marks. Returns the number of orders.

        `sale_ids` are all sales whose orders may wait in Redis. Orders are read up to the oldest of those, because ids
        are not stored in their order.
        """
        now_ms = self._clock.now_ms()
        horizon_ms = min(now_ms, await self._find_oldest_waiting_ms(sale_ids, now_ms)) - _ORDER_MARGIN_MS
        async with self._db.transaction() as connection:
            if not await store.try_lock(connection):
                return 0
            after = await store.get_progress(connection, first_id(now_ms - _MAX_BEHIND_MS))
            orders = await store.list_order_phones(connection, after, first_id(horizon_ms), self._rows_per_step)
            if not orders:
                return 0
            sightings, marks = [], []
            for order in orders:
                if order.salt is None:
                    continue
                at = order.accepted_at
                sightings.append(Sighting(order.sale_id, order.user_id, None, None, None, 0, 0, 0, None, at, at))
                for phone in {normalise_phone(phone) for phone in order.phones if phone} - {""}:
                    mark = make_mark(order.salt, "phone", phone)
                    marks.append(Mark(order.sale_id, "phone", mark, order.user_id))
            if sightings:
                await self._fold(connection, sightings, marks)
            await store.set_progress(connection, orders[-1].order_id)
        return len(orders)

    async def rescore(self) -> int:
        """Score members of groups that have become crowded, or are no more. Returns their number, at least 1.

        Returns 0 if there is no such group.
        """
        done = 0
        async with self._db.transaction() as connection:
            if not await store.try_lock(connection):
                return 0
            for _ in range(_MAX_GROUPS_PER_STEP):
                group = await store.next_to_rescore(connection)
                if group is None or done >= self._rows_per_step:
                    break
                key, after = group
                members = await store.list_members(connection, key, after, self._rows_per_step)
                await self._score(connection, [(key[0], member) for member in members])
                is_last = len(members) < self._rows_per_step
                await store.set_rescored(connection, key, None if is_last else members[-1])
                done += max(1, len(members))
            failpoint("screening.rescored")
        return done

    async def delete_old(self) -> int:
        """Delete some customers without requests for the retention, then sales without any.

        Returns the number of customers, and of sightings that were never folded.
        """
        before = self._now() - self._retention
        async with self._db.transaction() as connection:
            if not await store.try_lock(connection):
                return 0
            count, smaller = await store.delete_old_users(connection, before, self._rows_per_step)
            await self._update_crowds(connection, smaller)
            count += await store.delete_old_sightings(connection, before, self._rows_per_step)
            if not count:
                await store.delete_old_sales(connection, before)
        return count

    async def _fold(self, connection: Connection, sightings: Sequence[Sighting], marks: Sequence[Mark]) -> None:
        await store.lock_sales(connection, (sighting.sale_id for sighting in sightings))
        users = await store.upsert_users(connection, sightings)
        await store.add_marks(connection, marks)
        await store.add_form_addresses(connection, sightings)
        # All groups, not only those that have grown: the limits may be others than those of the last time.
        await self._update_crowds(connection, [(mark.sale_id, mark.kind, mark.mark) for mark in marks])
        await self._score(connection, users)

    async def _update_crowds(self, connection: Connection, changed: Sequence[GroupKey]) -> None:
        """Find out which groups have become crowded, and which no longer are."""
        keys: set[GroupKey] = {
            (sale_id, "form" if kind == "form_address" else kind, mark) for sale_id, kind, mark in changed
        }
        changes = []
        for group in await store.list_groups(connection, sorted(keys)):
            is_crowded = self._limits.is_crowded(group.key[1], group.members, group.addresses, group.is_crowded)
            if is_crowded != group.is_crowded:
                changes.append((group.key, is_crowded))
        if changes:
            await store.set_crowded(connection, changes)

    async def _score(self, connection: Connection, users: Iterable[UserKey]) -> None:
        by_sale: dict[str, list[str]] = {}
        for sale_id, user_id in users:
            by_sale.setdefault(sale_id, []).append(user_id)
        for sale_id, user_ids in sorted(by_sale.items()):
            crowds = await store.list_crowds(connection, sale_id, user_ids)
            changed: dict[str, Score] = {}
            for user_id, measured in (await store.list_measured(connection, sale_id, user_ids)).items():
                peak_per_s, fastest_ms, stored = measured
                score = score_customer(crowds.get(user_id, {}), peak_per_s, fastest_ms, self._limits)
                # Not when only a number has grown: a crowd's members would be written again with each new one.
                if [reason.signal for reason in score.reasons] != [reason.signal for reason in stored.reasons]:
                    changed[user_id] = score
            if changed:
                await store.set_scores(connection, sale_id, changed, self._now())

    async def _find_oldest_waiting_ms(self, sale_ids: Sequence[str], now_ms: int) -> int:
        """Return the time of the oldest order that waits for the writer, now if none does."""
        sales = [SaleKeys(sale_id) for sale_id in sale_ids]
        counts = await lua.read_accepted_counts(self._redis, sales) if sales else []
        oldest_ms = now_ms
        for sale, count in zip(sales, counts, strict=True):
            if count and (entry := await lua.read_oldest_entry(self._redis, sale)) is not None:
                oldest_ms = min(oldest_ms, entry.ms)
        return oldest_ms

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
