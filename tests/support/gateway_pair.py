"""Two gateways over the same databases: one has the fast path, the other uses aiohttp alone.

Each has its own sales and users. Their names have equal lengths, so that a request for one gateway becomes the same
request, of the same length, for the other. Both must send equal replies.
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
"""The last request of a connection. A reply shows that all requests before it ended where they should."""


@dataclass(frozen=True)
class RequestCase:
    """Scripts to run one after the other, in the names of the fast path's side.

    `requests` is the number of requests that are compared."""

    name: str
    scripts: tuple[RequestScript, ...]
    requests: int = 1


@dataclass
class GatewayPair:
    """Both gateways, and builders of requests for them."""

    prefix: str
    fast_path: TestGateway
    slow_path: TestGateway
    slow_tokens: dict[bytes, bytes] = field(default_factory=dict)
    accept_locks: tuple[asyncio.Lock, asyncio.Lock] = field(default_factory=lambda: (asyncio.Lock(), asyncio.Lock()))
    _users: int = 0

    @property
    def sale(self) -> str:
        return f"{self.prefix}-fast"

    def user(self, *, ttl_s: int = 3_600, roles: Sequence[str] = ()) -> bytes:
        """Return the token of a new user of the fast path. The other gateway has a user of its own."""
        self._users += 1
        settings = self.fast_path.settings
        fast, slow = (
            token(settings, f"{side}-{self._users:06}", ttl_s=ttl_s, roles=roles).encode() for side in ("fast", "slow")
        )
        assert len(fast) == len(slow)
        self.slow_tokens[fast] = slow
        return fast

    def translate(self, data: bytes) -> bytes:
        """Return the same bytes with the tokens and sales of the slow path."""
        data = _TOKEN.sub(lambda match: self.slow_tokens.get(match[0], match[0]), data)
        return data.replace(f"{self.prefix}-fast".encode(), f"{self.prefix}-slow".encode())

    async def send_to_both(self, script: RequestScript) -> tuple[RawReplies, RawReplies]:
        """Run a script at both gateways. Returns the replies of the fast path and of the slow path."""
        parts = tuple(self.translate(part) for part in script.parts)
        assert list(map(len, parts)) == list(map(len, script.parts))
        fast = run_script(self.fast_path.port, script, self.accept_locks[0])
        slow = run_script(self.slow_path.port, replace(script, parts=parts), self.accept_locks[1])
        return await asyncio.gather(fast, slow)

    def body(self, *lines: tuple[str, int], **more: object) -> bytes:
        """Build the body of a valid order, by default of one unit."""
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
        """Build the bytes of an order.

        `headers` replace single headers (None removes one). `more` is appended to the head as it is."""
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
    """Make a case of one connection that sends these bytes and the sentinel."""
    return RequestCase(name, (RequestScript((data + SENTINEL,), ((*cuts, len(data)),)),), requests)


@asynccontextmanager
async def open_gateway_pair(settings: Settings, shop: CliServices, prefix: str) -> AsyncIterator[GatewayPair]:
    """Open both gateways, and for each a sale in every state."""
    for side in ("fast", "slow"):
        name = f"{prefix}-{side}"
        await make_sale(shop, name, ITEMS)
        await make_sale(shop, f"{name}-draft", ITEMS, opened=False)
        for state in ("paused", "closed"):
            await make_sale(shop, f"{name}-{state}", ITEMS)
        await shop.sales.pause(f"{name}-paused", "test")
        await shop.sales.close(f"{name}-closed", "test")
        later = from_ms(shop.clock.now_ms() // 1000 * 1000) + timedelta(days=1)
        await make_sale(shop, f"{name}-later", ITEMS, opens_at=later)
    async with open_gateway(settings) as fast, open_gateway(settings, fast_path=False) as slow:
        # What the fast path expects to be refused it refuses before it looks for mistakes: test_expected_refusals.
        fast.services.expected_refusals.learn = lambda sale_id, result: None  # type: ignore[method-assign]
        yield GatewayPair(prefix, fast, slow)


def sale_keys(gateways: GatewayPair) -> tuple[SaleKeys, SaleKeys]:
    """Return the keys of the open sale of the fast path and of that of the slow path."""
    return SaleKeys(f"{gateways.prefix}-fast"), SaleKeys(f"{gateways.prefix}-slow")
