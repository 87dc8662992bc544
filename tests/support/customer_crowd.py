"""A crowd of shoppers that order through HTTP, repeat what is unclear, and remember what they were told."""

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

_TRIES = 200


@dataclass
class CustomerCrowd:
    """`promised` has every order whose 202 or 200 a client has read: id → (user, key, units)."""

    settings: Settings
    base: str
    sale_id: str
    promised: dict[UUID, tuple[str, str, dict[str, int]]] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    repeats: int = 0

    async def order(self, client: aiohttp.ClientSession, user: str, key: str, units: Mapping[str, int]) -> str:
        """Order until the outcome is clear; gives its code."""
        body = order_body(self.sale_id, *units.items())
        headers = bearer(self.settings, user) | {"Idempotency-Key": key}
        for _ in range(_TRIES):
            try:
                async with client.post(f"{self.base}/v1/orders", json=body, headers=headers) as answer:
                    said: dict[str, Any] = await answer.json(content_type=None)
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.05)  # nobody is there; whether the order was taken is not known
                continue
            if status in (200, 202):
                self.promised[UUID(said["order_id"])] = (user, key, dict(units))
                self.answers[str(status)] += 1
                return str(status)
            if status < 500 and status != 429:
                self.answers[said["code"]] += 1
                return str(said["code"])
            await asyncio.sleep(0.02)
        self.answers["gave up"] += 1
        return "gave up"

    async def run(
        self, clients: int, next_order: Callable[[], tuple[str, str, Mapping[str, int]] | None], repeat_share: float = 0
    ) -> None:
        """Order over that many connections until `next_order` gives None; some orders are sent again at once."""
        timeout = aiohttp.ClientTimeout(total=10)

        async def shopper() -> None:
            connector = aiohttp.TCPConnector(limit=1)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
                while (wanted := next_order()) is not None:
                    await self.order(client, *wanted)
                    if random.random() < repeat_share:
                        self.repeats += 1
                        await self.order(client, *wanted)

        await asyncio.gather(*(shopper() for _ in range(clients)))
