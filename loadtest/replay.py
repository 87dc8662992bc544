"""Sends real baskets through the front door, one order an invoice, and compares what Postgres then holds with the
file, to the penny. A second run sends the same orders under the same keys, so it creates none."""

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

from commerce.catalog.model import ProductInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import ItemInput, SaleInput
from gateway.auth import sign_token
from loadtest.retail_dataset import CURRENCY, Basket, RetailDataset, read_baskets
from ops.services import CliServices

_PAY_WITHIN_S = 31_536_000
_TOKEN_S = 3_600
_TRIES = 50
_STORED_WITHIN_S = 120.0
_CHUNK = 500
# ISO 3166 of the names that the data set uses.
_COUNTRIES = {
    "Australia": "AU", "Austria": "AT", "Bahrain": "BH", "Belgium": "BE", "Brazil": "BR", "Canada": "CA",
    "Channel Islands": "JE", "Cyprus": "CY", "Czech Republic": "CZ", "Denmark": "DK", "EIRE": "IE", "Finland": "FI",
    "France": "FR", "Germany": "DE", "Greece": "GR", "Hong Kong": "HK", "Iceland": "IS", "Israel": "IL",
    "Italy": "IT", "Japan": "JP", "Lebanon": "LB", "Lithuania": "LT", "Malta": "MT", "Netherlands": "NL",
    "Norway": "NO", "Poland": "PL", "Portugal": "PT", "RSA": "ZA", "Saudi Arabia": "SA", "Singapore": "SG",
    "Spain": "ES", "Sweden": "SE", "Switzerland": "CH", "USA": "US", "United Arab Emirates": "AE",
    "United Kingdom": "GB",
}  # fmt: skip


@dataclass
class Replay:
    """What a replay did. `wrong` says of each basket that did not arrive as it was sent what is different."""

    sale_id: str
    source: RetailDataset
    again: bool = False
    created: int = 0
    repeated: int = 0
    wrong: list[str] = field(default_factory=list)
    stored_total: int = 0
    stored_orders: int = 0

    @property
    def sent_total(self) -> int:
        return sum(basket.total for basket in self.source.baskets)

    @property
    def good(self) -> bool:
        return not self.wrong and self.stored_total == self.sent_total


async def replay(
    shop: CliServices, base: str, file: Path, clients: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> Replay:
    """Replay a file against the front door at `base`, over that many connections. `progress` is told done and of."""
    baskets = read_baskets(file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    result = Replay(f"replay-{digest}", baskets)
    await _open_sale(shop, result)
    orders = await _send(shop, base, result, digest, clients, progress)
    await _compare(shop, result, orders)
    return result


async def _open_sale(shop: CliServices, result: Replay) -> None:
    """Make the products and a sale with enough of each; on a second run it is there."""
    source = result.source
    products = [(sku, ProductInput(name, price, CURRENCY)) for sku, (name, price) in sorted(source.products.items())]
    for first in range(0, len(products), _CHUNK):
        await shop.catalog.put_many(products[first : first + _CHUNK])
    try:
        sale = await shop.sales.get(result.sale_id)
        result.again = True
    except NoSuchSale:
        items = [(sku, ItemInput(units=units)) for sku, units in sorted(source.units.items())]
        opens_at = from_ms(shop.clock.now_ms()) - timedelta(seconds=1)
        made = SaleInput(result.sale_id, "Real baskets", CURRENCY, opens_at, pay_within_s=_PAY_WITHIN_S)
        sale = await shop.sales.create(made, items, "replay")
    if sale.state == "closed":
        raise Conflict(f"{result.sale_id} was closed: its orders cannot be sent again")
    await shop.sales.open(result.sale_id, "replay")


async def _send(
    shop: CliServices, base: str, result: Replay, digest: str, clients: int, progress: Callable[[int, int], None]
) -> dict[UUID, Basket]:
    """Send every basket as its customer; gives the orders that stand for them."""
    orders: dict[UUID, Basket] = {}
    waiting = list(reversed(result.source.baskets))
    of, done = len(waiting), 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while waiting:
            basket = waiting.pop()
            order_id, problem = await _order(shop, session, base, result, basket, f"{digest}-{basket.invoice}")
            if order_id is None:
                result.wrong.append(f"{basket.invoice}: {problem}")
            else:
                orders[order_id] = basket
            done += 1
            progress(done, of)

    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=clients)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return orders


async def _order(
    shop: CliServices, session: aiohttp.ClientSession, base: str, result: Replay, basket: Basket, key: str
) -> tuple[UUID | None, str]:
    """Order until the outcome is clear; gives the order's id, or what went wrong."""
    token = sign_token(shop.settings.auth, shop.clock, basket.user_id, "floodgate", (), _TOKEN_S)
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
    problem = ""
    for _ in range(_TRIES):
        try:
            if result.again and (known := await _known(session, base, headers)):
                result.repeated += 1
                return known, ""
            async with session.post(f"{base}/v1/orders", json=_body(result, basket), headers=headers) as answer:
                said: dict[str, Any] = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            problem = f"nobody answers: {error}"
            await asyncio.sleep(0.5)
            continue
        if answer.status in (200, 202):
            result.created += answer.status == 202
            result.repeated += answer.status == 200
            if said["total"] != {"amount": basket.total, "currency": CURRENCY}:
                return None, f"the answer says {said['total']}, the basket comes to {basket.total}"
            return UUID(said["order_id"]), ""
        problem = f"{answer.status} {said.get('code')}: {said.get('detail')}"
        if answer.status not in (429, 503):
            break
        await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
    return None, problem


async def _known(session: aiohttp.ClientSession, base: str, headers: dict[str, str]) -> UUID | None:
    """The order that stands under the key already. Redis forgets keys after a day or two, the reading side does not."""
    params = {"idempotency_key": headers["Idempotency-Key"]}
    async with session.get(f"{base}/v1/orders", params=params, headers=headers) as answer:
        if answer.status != 200:
            return None
        items = (await answer.json())["items"]
    return UUID(items[0]["order_id"]) if items else None


def _body(result: Replay, basket: Basket) -> dict[str, Any]:
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


async def _compare(shop: CliServices, result: Replay, orders: dict[UUID, Basket]) -> None:
    """Wait until the writer has stored them, then compare each with its basket, line by line."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _STORED_WITHIN_S
    while True:
        async with shop.db.connection() as connection:
            stored = await connection.fetch(
                "SELECT order_id, user_id, total_minor FROM orders WHERE sale_id = $1", result.sale_id
            )
        if len(stored) >= len(orders) or loop.time() > deadline:
            break
        await asyncio.sleep(0.1)
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT order_id, sku, quantity, unit_price_minor FROM order_lines JOIN orders USING (order_id) "
            "WHERE sale_id = $1 ORDER BY order_id, line_no",
            result.sale_id,
        )
    lines: dict[UUID, list[tuple[str, int, int]]] = {}
    for row in rows:
        lines.setdefault(row["order_id"], []).append((row["sku"], row["quantity"], row["unit_price_minor"]))
    result.stored_orders = len(stored)
    result.stored_total = sum(row["total_minor"] for row in stored)
    found = {row["order_id"]: row for row in stored}
    for order_id, basket in orders.items():
        at = found.get(order_id)
        expected = [(line.sku, line.quantity, line.price) for line in basket.lines]
        if at is None:
            result.wrong.append(f"{basket.invoice}: order {order_id} is not in Postgres")
        elif (at["user_id"], at["total_minor"]) != (basket.user_id, basket.total):
            result.wrong.append(f"{basket.invoice}: {at['user_id']} owes {at['total_minor']}, not {basket.total}")
        elif lines.get(order_id) != expected:
            result.wrong.append(f"{basket.invoice}: other lines are stored than were sent")
    if extra := found.keys() - orders.keys():
        result.wrong.append(f"{len(extra)} orders in the sale that no basket of the file stands for")


def reasons(source: RetailDataset) -> list[tuple[str, int]]:
    """Why invoices were left out, and how many for each reason."""
    return Counter(item.reason for item in source.left_out).most_common()
