"""Customers who order over HTTP, repeat requests without an outcome, and record the replies."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import aiohttp

from config.settings import Settings
from tests.support.gateway import bearer
from tests.support.sales import order_body

_MAX_ATTEMPTS = 200


@dataclass
class CustomerCrowd:
    """Concurrent customers of one sale.

    `promised` holds every order whose 202 or 200 a client has read: id → (user, key, units)."""

    settings: Settings
    base: str
    sale_id: str
    promised: dict[UUID, tuple[str, str, dict[str, int]]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    max_attempts: int = _MAX_ATTEMPTS

    async def order(self, client: aiohttp.ClientSession, user: str, key: str, units: Mapping[str, int]) -> str:
        """Send an order until its outcome is known. Returns the status of a success, or the problem code."""
        body = order_body(self.sale_id, *units.items())
        headers = bearer(self.settings, user) | {"Idempotency-Key": key}
        for _ in range(self.max_attempts):
            try:
                async with client.post(f"{self.base}/v1/orders", json=body, headers=headers) as answer:
                    reply: dict[str, Any] = await answer.json(content_type=None)
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.05)  # no reply: the order may have been accepted
                continue
            if status in (200, 202):
                self.promised[UUID(reply["order_id"])] = (user, key, dict(units))
                self.answers[str(status)] += 1
                return str(status)
            if status < 500 and status != 429:
                self.answers[reply["code"]] += 1
                return str(reply["code"])
            await asyncio.sleep(0.02)
        self.answers["gave up"] += 1
        return "gave up"

    async def run(
        self, clients: int, next_order: Callable[[], tuple[str, str, Mapping[str, int]] | None], repeat_share: float = 0
    ) -> None:
        """Order over so many connections until `next_order` returns None.

        A share of the orders is sent again at once."""
        timeout = aiohttp.ClientTimeout(total=10)

        async def run_client() -> None:
            connector = aiohttp.TCPConnector(limit=1)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
                while (order := next_order()) is not None:
                    await self.order(client, *order)
                    if random.random() < repeat_share:
                        self.repeats += 1
                        await self.order(client, *order)

        await asyncio.gather(*(run_client() for _ in range(clients)))
