"""Sends baskets of the replay as orders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from uuid import UUID

from loadtest.replay_client import BasketRefused, PlacedBasket, ReplayClient, create_address
from loadtest.retail_dataset import CURRENCY, Basket


class OrderSender:
    """Places an order per basket, under an idempotency key that each run derives alike."""

    def __init__(self, client: ReplayClient, sale_id: str, key_prefix: str, is_repeat: bool) -> None:
        """With `is_repeat` orders are looked up first."""
        self._client = client
        self._sale_id = sale_id
        self._key_prefix = key_prefix
        self._is_repeat = is_repeat

    async def send(self, basket: Basket) -> PlacedBasket:
        """Place the order of a basket, or find it. Raises `BasketRefused`."""
        key = f"{self._key_prefix}-{basket.invoice}"
        headers = {**self._client.create_headers(basket.user_id), "Idempotency-Key": key}
        if self._is_repeat and (existing_id := await self._find_order(headers, key)):
            return PlacedBasket(existing_id, basket.total, is_new=False)
        reply = await self._client.send("POST", "/v1/orders", headers, self._create_body(basket))
        if reply.status not in (200, 202):
            raise BasketRefused(reply.problem)
        if reply.body["total"] != {"amount": basket.total, "currency": CURRENCY}:
            raise BasketRefused(f"the order's total is {reply.body['total']}, the basket's is {basket.total}")
        return PlacedBasket(UUID(reply.body["order_id"]), basket.total, is_new=reply.status == 202)

    async def _find_order(self, headers: Mapping[str, str], key: str) -> UUID | None:
        """Find the order of an earlier run. Redis forgets its key after a day or two, Postgres does not."""
        reply = await self._client.send("GET", f"/v1/orders?idempotency_key={quote(key, safe='')}", headers)
        items = reply.body["items"] if reply.status == 200 else []
        return UUID(items[0]["order_id"]) if items else None

    def _create_body(self, basket: Basket) -> dict[str, Any]:
        return {
            "sale_id": self._sale_id,
            "lines": [{"sku": line.sku, "quantity": line.quantity} for line in basket.lines],
            "ship_to": [create_address(basket)],
            "payments": [{"method": "balance", "amount": basket.total}],
        }
