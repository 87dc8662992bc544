"""Replay of a retail data set: each invoice as an order, compared with the stored orders.

A second run sends the same orders under the same idempotency keys, so it creates none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg

from commerce.catalog.model import ProductInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict, Invalid, NotReady
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import ItemInput, SaleInput
from gateway.auth import sign_token
from loadtest.retail_dataset import CURRENCY, Basket, RetailDataset, read_dataset
from ops.services import CliServices

_PAY_WITHIN_S = 31_536_000
_TOKEN_TTL_S = 3_600
_MAX_ATTEMPTS = 50
_TIMEOUT_S = 30.0
_OFFERED_TIMEOUT_S = 15.0
_RETRY_INTERVAL_S = 0.5
_POLL_INTERVAL_S = 0.1
_STORED_TIMEOUT_S = 120.0
_PRODUCTS_PER_CALL = 500
_ACTOR = "replay"
_COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Brazil": "BR", "Canada": "CA",
    "Channel Islands": "JE", "Cyprus": "CY", "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE", "Finland": "FI",
    "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK", "Iceland": "IS", "Israel": "IL",
    "Italy": "IT", "Japan": "JP", "Lebanon": "LB", "Lithuania": "LT", "Malta": "MT", "Netherlands": "NL",
    "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Saudi Arabia": "SA", "Singapore": "SG",
    "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "USA": "US", "United Arab Emirates": "AE",
    "United Kingdom": "GB",
}  # fmt: skip
"""ISO 3166 codes of the country names in the data set"""


@dataclass
class Replay:
    """Result of a replay. `differences` has a text per basket that is not stored as it was sent."""

    sale_id: str
    source: RetailDataset
    is_repeat: bool = False
    created: int = 0
    repeated: int = 0
    differences: list[str] = field(default_factory=list)
    stored_total: int = 0
    stored_orders: int = 0

    @property
    def sent_total(self) -> int:
        return sum(basket.total for basket in self.source.baskets)

    @property
    def is_complete(self) -> bool:
        return not self.differences and self.stored_total == self.sent_total


async def replay(
    shop: CliServices,
    base: str,
    file: Path,
    clients: int,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replay:
    """Replay a file against the gateway at `base` over `clients` connections.

    `report_progress` gets the number of baskets that are done, and of all. Raises `Invalid` if the file is of another
    format or has no order, `Conflict` if its sale was closed, `NotReady` if the gateway does not answer, refuses our
    token or does not know the sale: no basket would say anything about the shop.
    """
    dataset = read_dataset(file)
    if not dataset.baskets:
        raise Invalid(f"cannot replay {file}: none of its {len(dataset.skipped)} invoices is an order")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    result = Replay(f"replay-{digest}", dataset)
    await _check_token(shop, base)
    await _open_sale(shop, result)
    await _wait_until_offered(base, result.sale_id)
    orders = await _send_baskets(shop, base, result, digest, clients, report_progress)
    await _compare_stored(shop, result, orders)
    return result


async def _check_token(shop: CliServices, base: str) -> None:
    status, text = await _fetch(f"{base}/v1/orders?limit=1", _create_headers(shop, _ACTOR))
    if status in (401, 403):
        raise NotReady(
            f"{base} refuses our token: {text}; it is signed by these settings: set FLOODGATE_DATA_DIR or "
            "FLOODGATE_AUTH__KEYS as for the gateway"
        )


async def _wait_until_offered(base: str, sale_id: str) -> None:
    """Wait until the gateway has noticed the sale. Raises `NotReady` if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _OFFERED_TIMEOUT_S
    while (await _fetch(f"{base}/v1/sales/{sale_id}", {}))[0] != 200:
        if loop.time() > deadline:
            raise NotReady(f"{base} does not offer the sale {sale_id}: give --base of a gateway of these settings")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _fetch(url: str, headers: dict[str, str]) -> tuple[int, str]:
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


def _create_headers(shop: CliServices, user_id: str) -> dict[str, str]:
    token = sign_token(shop.settings.auth, shop.clock, user_id, "floodgate", (), _TOKEN_TTL_S)
    return {"Authorization": f"Bearer {token}"}


async def _open_sale(shop: CliServices, result: Replay) -> None:
    """Create the products and a sale with enough stock, and open it.

    Idempotent; sets `is_repeat` if the sale exists.
    """
    source = result.source
    products = [(sku, ProductInput(name, price, CURRENCY)) for sku, (name, price) in sorted(source.products.items())]
    for first in range(0, len(products), _PRODUCTS_PER_CALL):
        await shop.catalog.put_many(products[first : first + _PRODUCTS_PER_CALL])
    try:
        sale = await shop.sales.get(result.sale_id)
        result.is_repeat = True
    except NoSuchSale:
        items = [(sku, ItemInput(units=units)) for sku, units in sorted(source.units.items())]
        opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
        sale_input = SaleInput(result.sale_id, "Real baskets", CURRENCY, opens_at, pay_within_s=_PAY_WITHIN_S)
        sale = await shop.sales.create(sale_input, items, _ACTOR)
    if sale.state == "closed":
        raise Conflict(f"cannot replay into {result.sale_id}: the sale was closed; use an empty database")
    await shop.sales.open(result.sale_id, _ACTOR)


async def _send_baskets(
    shop: CliServices,
    base: str,
    result: Replay,
    digest: str,
    clients: int,
    report_progress: Callable[[int, int], None],
) -> dict[UUID, Basket]:
    """Send every basket as its customer, and return the baskets by order id."""
    orders: dict[UUID, Basket] = {}
    waiting = list(reversed(result.source.baskets))
    total, done = len(waiting), 0

    async def send_waiting(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while waiting:
            basket = waiting.pop()
            order_id, problem = await _place_order(shop, session, base, result, basket, f"{digest}-{basket.invoice}")
            if order_id is None:
                result.differences.append(f"{basket.invoice}: {problem}")
            else:
                orders[order_id] = basket
            done += 1
            report_progress(done, total)

    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=clients)) as session:
        await asyncio.gather(*(send_waiting(session) for _ in range(clients)))
    return orders


async def _place_order(
    shop: CliServices, session: aiohttp.ClientSession, base: str, result: Replay, basket: Basket, key: str
) -> tuple[UUID | None, str]:
    """Send an order until its outcome is clear. Returns its id, or None and the problem."""
    headers = {**_create_headers(shop, basket.user_id), "Idempotency-Key": key}
    problem = ""
    for _ in range(_MAX_ATTEMPTS):
        try:
            if result.is_repeat and (existing_id := await _find_order(session, base, headers)):
                result.repeated += 1
                return existing_id, ""
            async with session.post(f"{base}/v1/orders", json=_order_body(result, basket), headers=headers) as response:
                reply: dict[str, Any] = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # ValueError: a proxy's own page
            problem = f"no answer: {error}"
            await asyncio.sleep(_RETRY_INTERVAL_S)
            continue
        if response.status in (200, 202):
            result.created += response.status == 202
            result.repeated += response.status == 200
            if reply["total"] != {"amount": basket.total, "currency": CURRENCY}:
                return None, f"the order's total is {reply['total']}, the basket's is {basket.total}"
            return UUID(reply["order_id"]), ""
        problem = f"{response.status} {reply.get('code')}: {reply.get('detail')}"
        if response.status not in (429, 503):
            break
        await asyncio.sleep(float(response.headers.get("Retry-After", 1)))
    return None, problem


async def _find_order(session: aiohttp.ClientSession, base: str, headers: dict[str, str]) -> UUID | None:
    """Return the order of an idempotency key. Redis forgets keys after a day or two, Postgres does not."""
    params = {"idempotency_key": headers["Idempotency-Key"]}
    async with session.get(f"{base}/v1/orders", params=params, headers=headers) as response:
        if response.status != 200:
            return None
        items = (await response.json())["items"]
    return UUID(items[0]["order_id"]) if items else None


def _order_body(result: Replay, basket: Basket) -> dict[str, Any]:
    country = _COUNTRIES.get(basket.country, "GB")
    address = {
        "name": basket.user_id,
        "phone": "+44 20 0000 0000",
        "country": country,
        "city": basket.country,
        "line": f"Invoice {basket.invoice}",
    }
    return {
        "sale_id": result.sale_id,
        "lines": [{"sku": line.sku, "quantity": line.quantity} for line in basket.lines],
        "ship_to": [address],
        "payments": [{"method": "balance", "amount": basket.total}],
    }


async def _compare_stored(shop: CliServices, result: Replay, orders: dict[UUID, Basket]) -> None:
    """Wait until the writer has stored the orders, and compare each with its basket, line by line."""
    rows = await _wait_until_stored(shop, result.sale_id, len(orders))
    lines = await _read_lines(shop, result.sale_id)
    result.stored_orders = len(rows)
    result.stored_total = sum(row["total_minor"] for row in rows)
    rows_by_id = {row["order_id"]: row for row in rows}
    for order_id, basket in orders.items():
        row = rows_by_id.get(order_id)
        expected_lines = [(line.sku, line.quantity, line.price) for line in basket.lines]
        if row is None:
            result.differences.append(f"{basket.invoice}: order {order_id} is not in Postgres")
        elif (row["user_id"], row["total_minor"]) != (basket.user_id, basket.total):
            result.differences.append(
                f"{basket.invoice}: {row['user_id']} owes {row['total_minor']}, not {basket.total}"
            )
        elif lines.get(order_id) != expected_lines:
            result.differences.append(f"{basket.invoice}: the stored lines are not those that were sent")
    if extra := rows_by_id.keys() - orders.keys():
        result.differences.append(f"{len(extra)} orders in the sale have no basket in the file")


async def _wait_until_stored(shop: CliServices, sale_id: str, count: int) -> list[asyncpg.Record]:
    """Return the stored orders of a sale once there are `count`, or those there are after the timeout."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STORED_TIMEOUT_S
    while True:
        async with shop.db.connection() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(
                "SELECT order_id, user_id, total_minor FROM orders WHERE sale_id = $1", sale_id
            )
        if len(rows) >= count or loop.time() > deadline:
            return rows
        await asyncio.sleep(_POLL_INTERVAL_S)


async def _read_lines(shop: CliServices, sale_id: str) -> dict[UUID, list[tuple[str, int, int]]]:
    """Return SKU, quantity and price of a sale's order lines, by order id."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT order_id, sku, quantity, unit_price_minor FROM order_lines JOIN orders USING (order_id) "
            "WHERE sale_id = $1 ORDER BY order_id, line_no",
            sale_id,
        )
    lines: dict[UUID, list[tuple[str, int, int]]] = {}
    for row in rows:
        lines.setdefault(row["order_id"], []).append((row["sku"], row["quantity"], row["unit_price_minor"]))
    return lines


def count_skip_reasons(dataset: RetailDataset) -> list[tuple[str, int]]:
    """Return the reasons why invoices were skipped with their counts, the most common first."""
    return Counter(skipped.reason for skipped in dataset.skipped).most_common()
