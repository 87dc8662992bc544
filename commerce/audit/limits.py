"""Check of P4: what users bought, against the limits and against the counts of Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from redis.asyncio import Redis

import lua
from commerce.audit.model import Finding, make_finding
from commerce.audit.redis_state import RedisState
from commerce.audit.store import AuditedItem, AuditSnapshot, StockMovement
from commerce.kernel.stream_payload import AcceptedOrder
from lua import SaleKeys

Bought = Counter[tuple[str, str]]
"""units by (user, SKU)"""


class LimitCheck:
    """Compares purchases with the highest limit ever in force, and with the counts of Redis.

    The counts of Redis are compared only if no order was accepted since the cut.
    """

    def __init__(
        self,
        redis: Redis,
        keys: SaleKeys,
        redis_state: RedisState,
        items: Mapping[str, AuditedItem],
        streamed: Iterable[AcceptedOrder | None],
        unmarked_releases: Sequence[StockMovement],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._cut = redis_state.cut
        self._bounds = {sku: item.limit_bound for sku, item in items.items() if item.limit_bound is not None}
        self._moving: Bought = Counter()
        """units that Postgres does not have yet"""
        for order in streamed:
            for sku, units in order.units().items() if order else ():
                self._moving[order.user_id, sku] += units  # type: ignore[union-attr]
        for change in unmarked_releases:
            for sku, units in change.units.items():
                self._moving[change.user_id, sku] -= units

    async def check_all(self, snapshot: AuditSnapshot) -> list[Finding]:
        """Check all users of the sale."""
        bought = self._add_moving(await snapshot.sum_bought())
        counted = await lua.read_units_taken(self._redis, self._keys)
        findings = self._find_excess(bought)
        if not await self._is_calm():
            return findings  # new orders have changed the counts since the cut
        counted = {field: units for field, units in counted.items() if field.split(b"\0")[1].decode() in self._bounds}
        return findings + _compare(bought, counted)

    async def check_changed(self, snapshot: AuditSnapshot, ids: Iterable[UUID]) -> tuple[list[Finding], bool]:
        """Check the users of orders by their ids, and those whose units Postgres does not have yet.

        Also returns whether they were compared with the counts of Redis, together with those of whom this was left
        undone before.
        """
        if not self._bounds:
            return [], True
        is_calm = await self._is_calm()
        ids = {*ids, *(await snapshot.list_marked(counted=True) if is_calm else ())}
        users = await snapshot.list_users(ids) | {user for user, _ in self._moving}
        bought = self._add_moving(await snapshot.sum_bought_by(users))
        findings = self._find_excess(bought)
        if not is_calm:
            return findings, False
        fields = [lua.buyer_field(user, sku) for user, sku in bought]
        counted = dict(zip(fields, await lua.read_units_taken_by(self._redis, self._keys, fields), strict=True))
        if not await self._is_calm():
            return findings, False
        return findings + _compare(bought, {field: units for field, units in counted.items() if units}), True

    async def _is_calm(self) -> bool:
        return await lua.cut(self._redis, self._keys) == self._cut

    def _add_moving(self, stored: Mapping[tuple[str, str], int]) -> Bought:
        bought: Bought = Counter()
        for movements in (stored, self._moving):
            bought.update({(user, sku): units for (user, sku), units in movements.items() if sku in self._bounds})
        return bought

    def _find_excess(self, bought: Bought) -> list[Finding]:
        over = [f"{user} {sku}: {units}" for (user, sku), units in bought.items() if units > self._bounds[sku]]
        return make_finding("P4", "users bought more than their limit", over)


def _compare(bought: Bought, counted: Mapping[bytes, int]) -> list[Finding]:
    expected = {lua.buyer_field(user, sku): units for (user, sku), units in bought.items() if units}
    mismatched = [
        field.decode().replace("\0", " ")
        for field in sorted(expected.keys() | counted.keys())
        if expected.get(field) != counted.get(field)
    ]
    return make_finding("P4", "Redis counts other units per user than were ordered", mismatched)
