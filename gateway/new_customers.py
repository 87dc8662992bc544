"""Knows who has ordered before, for promotions that are for new customers only."""

from __future__ import annotations

from collections.abc import Sequence

from commerce.kernel.batches import Batcher
from commerce.kernel.connection_shares import use_share
from commerce.kernel.errors import NotReady
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE
from commerce.orders.service import Orders

_MAX_KNOWN = 200_000


class NewCustomers:
    """Asks Postgres, for many customers at once. Those who have ordered are remembered.

    An order of the last second may not be stored yet: of two first orders Redis decides, which counts them as it counts
    limits. One that was cancelled does not count. A customer whose only
    order was cancelled after it was seen here is new again when this process restarts.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._with_orders: set[str] = set()
        self._lookups: Batcher[str, bool] = Batcher(self._find_new)

    def add(self, user_id: str) -> None:
        """Remember a customer who has ordered."""
        self._with_orders.add(user_id)

    def has_ordered(self, user_id: str) -> bool:
        """Tell whether a customer is known to have ordered; False says nothing."""
        return user_id in self._with_orders

    async def is_new(self, user_id: str) -> bool:
        """Tell whether a customer has no order that is stored and not cancelled.

        Raises `NotReady` if Postgres does not answer.
        """
        if user_id in self._with_orders:
            return False
        try:
            return await self._lookups.add(user_id)
        except POSTGRES_UNAVAILABLE as error:
            raise NotReady("cannot read whether you have ordered before; repeat the request") from error

    async def _find_new(self, user_ids: Sequence[str]) -> list[bool]:
        with use_share("customers"):
            customers = await self._orders.find_customers(user_ids)
        if len(self._with_orders) > _MAX_KNOWN:
            self._with_orders.clear()
        self._with_orders |= customers
        return [user_id not in customers for user_id in user_ids]
