"""Two gateways over the same databases: one answers orders on the express lane, one by aiohttp alone.

Each has sales and users of its own that are named so that a request for one becomes the same request, with the same
length, for the other. What is said to both must be answered alike.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import orjson

from commerce.kernel.clock import from_ms
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.raw_http import RawReplies, RequestScript, run_script
from tests.support.sales import make_sale, order_body

MANY = 1_000_000
ITEMS = {"a": (MANY, 100, None), "b": (MANY, 255, None), "few": (MANY, 10, 3), "gone": (1, 50, None)}
_TOKEN = re.compile(rb"eyJ[\w-]+\.[\w-]+\.[\w-]+")
SENTINEL = b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-Request-Id: the-end\r\n\r\n"
"""Said last: whether it is answered tells whether the connection is open and both sides agree on where they are."""


@dataclass(frozen=True)
class RequestCase:
    """Conversations one after the other, as the lane's side holds them; `requests` counts what is compared."""

    name: str
    talks: tuple[RequestScript, ...]
    requests: int = 1


@dataclass
class GatewayPair:
    """Both gateways, and the words to talk to them."""

    prefix: str
    lane: TestGateway
    slow: TestGateway
    swaps: dict[bytes, bytes] = field(default_factory=dict)
    doors: tuple[asyncio.Lock, asyncio.Lock] = field(default_factory=lambda: (asyncio.Lock(), asyncio.Lock()))
    _users: int = 0

    @property
    def sale(self) -> str:
        return f"{self.prefix}-lane"

    def user(self, *, ttl_s: int = 3_600, roles: Sequence[str] = ()) -> bytes:
        """The token of a new user, who is another one at the other gateway."""
        self._users += 1
        settings = self.lane.settings
        ours, theirs = (
            token(settings, f"{side}-{self._users:06}", ttl_s=ttl_s, roles=roles).encode() for side in ("lane", "slow")
        )
        assert len(ours) == len(theirs)
        self.swaps[ours] = theirs
        return ours

    def swapped(self, data: bytes) -> bytes:
        """The same bytes for the ordinary gateway."""
        data = _TOKEN.sub(lambda found: self.swaps.get(found[0], found[0]), data)
        return data.replace(f"{self.prefix}-lane".encode(), f"{self.prefix}-slow".encode())

    async def talk(self, script: RequestScript) -> tuple[RawReplies, RawReplies]:
        """Say the same to both."""
        parts = tuple(self.swapped(part) for part in script.parts)
        assert list(map(len, parts)) == list(map(len, script.parts))
        lane = run_script(self.lane.port, script, self.doors[0])
        slow = run_script(self.slow.port, replace(script, parts=parts), self.doors[1])
        return await asyncio.gather(lane, slow)

    def body(self, *lines: tuple[str, int], **more: object) -> bytes:
        """A good order's body, by default of one unit."""
        return orjson.dumps(order_body(self.sale, *(lines or [("a", 1)]), **more))

    def order(
        self,
        *,
        body: bytes | None = None,
        key: bytes | None = b"k",
        bearer: bytes | None = b"",
        headers: Mapping[bytes, bytes | None] | None = None,
        more: bytes = b"",
        line: bytes = b"POST /v1/orders HTTP/1.1",
    ) -> bytes:
        """An order's bytes. `headers` change single ones (None takes one out); `more` is raw and ends the head."""
        data = self.body() if body is None else body
        named: dict[bytes, bytes | None] = {
            b"Host": b"shop.example",
            b"Authorization": None if bearer is None else b"Bearer " + (bearer or self.user()),
            b"Content-Type": b"application/json",
            b"Idempotency-Key": key,
            b"Content-Length": str(len(data)).encode(),
            **(headers or {}),
        }
        head = b"".join(name + b": " + value + b"\r\n" for name, value in named.items() if value is not None)
        return line + b"\r\n" + head + more + b"\r\n" + data


def single_connection_case(name: str, data: bytes, *, cuts: Sequence[int] = (), requests: int = 1) -> RequestCase:
    """One connection: these bytes, the sentinel, and the client's end of it."""
    return RequestCase(name, (RequestScript((data + SENTINEL,), ((*cuts, len(data)),)),), requests)


@asynccontextmanager
async def open_gateway_pair(settings: Settings, shop: CliServices, prefix: str) -> AsyncIterator[GatewayPair]:
    """Both gateways, and for each a sale in every state."""
    for side in ("lane", "slow"):
        name = f"{prefix}-{side}"
        await make_sale(shop, name, ITEMS)
        await make_sale(shop, f"{name}-draft", ITEMS, opened=False)
        for state in ("paused", "closed"):
            await make_sale(shop, f"{name}-{state}", ITEMS)
        await shop.sales.pause(f"{name}-paused", "test")
        await shop.sales.close(f"{name}-closed", "test")
        later = from_ms(shop.clock.now_ms() // 1000 * 1000) + timedelta(days=1)
        await make_sale(shop, f"{name}-later", ITEMS, opens_at=later)
    async with open_gateway(settings) as lane, open_gateway(settings, express=False) as slow:
        yield GatewayPair(prefix, lane, slow)


def sale_keys(gateways: GatewayPair) -> tuple[SaleKeys, SaleKeys]:
    """Of the sale at the lane, and of that at the ordinary gateway."""
    return SaleKeys(f"{gateways.prefix}-lane"), SaleKeys(f"{gateways.prefix}-slow")
