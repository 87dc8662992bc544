"""HTTP client of the replay: requests of customers, repeated until their answers are final."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import UUID

import aiohttp

from commerce.kernel.errors import NotReady
from gateway.auth import sign_token
from loadtest.retail_dataset import Basket
from ops.services import CliServices

_TOKEN_TTL_S = 3_600
_MAX_ATTEMPTS = 50
_TIMEOUT_S = 30.0
_RETRY_INTERVAL_S = 0.5
COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Brazil": "BR", "Canada": "CA",
    "Channel Islands": "JE", "Cyprus": "CY", "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE", "Finland": "FI",
    "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK", "Iceland": "IS", "Israel": "IL",
    "Italy": "IT", "Japan": "JP", "Lebanon": "LB", "Lithuania": "LT", "Malta": "MT", "Netherlands": "NL",
    "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Saudi Arabia": "SA", "Singapore": "SG",
    "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "USA": "US", "United Arab Emirates": "AE",
    "United Kingdom": "GB",
}  # fmt: skip
"""ISO 3166 codes of the country names in the data set"""


class PlacedBasket(NamedTuple):
    """The order of a basket. `total` is the one that its customer was shown, in pennies.

    `is_new` is False if an earlier run has placed the order.
    """

    order_id: UUID
    total: int
    is_new: bool


class BasketRefused(Exception):
    """The shop has not taken a basket as it should. The message says why."""


class Reply(NamedTuple):
    """A final answer of the shop."""

    status: int
    body: dict[str, Any]

    @property
    def problem(self) -> str:
        return f"{self.status} {self.body.get('code')}: {self.body.get('detail')}"


class ReplayClient:
    """Sends requests to the gateway at `base`, over at most so many connections."""

    def __init__(self, shop: CliServices, base: str, connections: int) -> None:
        self._shop = shop
        self._base = base
        connector, timeout = aiohttp.TCPConnector(limit=connections), aiohttp.ClientTimeout(total=_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    def create_headers(self, user_id: str) -> dict[str, str]:
        """Return the headers of a customer's requests."""
        return create_headers(self._shop, user_id)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: object = None) -> Reply:
        """Send a request, again while it is deferred or unanswered. Raises `BasketRefused` if that never ends."""
        problem = ""
        for _ in range(_MAX_ATTEMPTS):
            try:
                async with self._session.request(method, self._base + path, json=body, headers=headers) as response:
                    reply = Reply(response.status, await response.json(content_type=None))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: a proxy's own page
                problem = f"no answer: {error}"
                await asyncio.sleep(_RETRY_INTERVAL_S)
                continue
            if not _is_deferred(reply):
                return reply
            problem = reply.problem
            await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
        raise BasketRefused(problem)


def _is_deferred(reply: Reply) -> bool:
    is_checkout_open = reply.body.get("state") == "placing" or reply.body.get("code") == "checkout_in_progress"
    return reply.status in (429, 503) or is_checkout_open


def create_headers(shop: CliServices, user_id: str) -> dict[str, str]:
    """Return the headers of a customer's requests, with a token that the shop's settings sign."""
    token = sign_token(shop.settings.auth, shop.clock, user_id, "floodgate", (), _TOKEN_TTL_S)
    return {"Authorization": f"Bearer {token}"}


async def fetch(url: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return status and text. Raises `NotReady` if no gateway answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
            session.get(url, headers=headers) as response,
        ):
            if "X-Request-Id" not in response.headers:
                raise NotReady(f"what answers {url} is no gateway; give another --base")
            return response.status, await response.text()
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise NotReady(
            f"no answer from {url}: {error or 'timeout'}; start the gateway, or give another --base"
        ) from None


def create_address(basket: Basket) -> dict[str, str]:
    """Return the address of a basket: its customer's name and country are all that the data set has."""
    return {
        "name": basket.user_id,
        "phone": "+44 20 0000 0000",
        "country": COUNTRIES.get(basket.country, "GB"),
        "city": basket.country,
        "line": f"Invoice {basket.invoice}",
    }
