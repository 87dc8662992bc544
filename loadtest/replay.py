"""Replay of a retail data set: each invoice as an order, compared with the stored orders.

A second run sends the same orders under the same idempotency keys, or repeats the same checkouts, so it creates none.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Conflict, Invalid, NotReady
from commerce.sales.errors import NoSuchSale
from commerce.sales.model import ItemInput, SaleInput
from loadtest.replay_carts import CartSender, find_in_carts, plan_carts
from loadtest.replay_cases import PlayedReturns, ReturnPlayer
from loadtest.replay_client import BasketRefused, PlacedBasket, ReplayClient, create_headers, fetch
from loadtest.replay_deliveries import SentOrder
from loadtest.replay_orders import OrderSender
from loadtest.replay_returns import ReturnPlan, match_returns
from loadtest.retail_dataset import CURRENCY, Basket, RetailDataset, read_dataset
from ops.services import CliServices

_PAY_WITHIN_S = 31_536_000
_OFFERED_TIMEOUT_S = 15.0
_POLL_INTERVAL_S = 0.1
_STORED_TIMEOUT_S = 120.0
_PRODUCTS_PER_CALL = 500
_ACTOR = "replay"


@dataclass
class Replay:
    """A replay and its result.

    Each of `baskets` becomes an order; through carts a basket of the file may be several. `expected_total` is what the
    customers were shown, in pennies: not the file's if the sale has promotions or freight. `differences` has a text per
    basket that is not stored as it was sent. `played` is the result of the returns.
    """

    sale_id: str
    source: RetailDataset
    key_prefix: str
    baskets: list[Basket]
    returns: ReturnPlan
    is_through_cart: bool = False
    is_repeat: bool = False
    created: int = 0
    repeated: int = 0
    differences: list[str] = field(default_factory=list)
    played: PlayedReturns | None = None
    expected_total: int = 0
    stored_total: int = 0
    stored_orders: int = 0

    @property
    def sent_total(self) -> int:
        return sum(basket.total for basket in self.source.baskets)

    @property
    def is_complete(self) -> bool:
        are_returns_played = self.played is None or not self.played.differences
        return not self.differences and are_returns_played and self.stored_total == self.expected_total


def plan_replay(file: Path, lines_per_cart: int | None = None) -> Replay:
    """Read a file, and plan to send its baskets as orders, or through carts of at most so many lines.

    Raises `Invalid` if the file is of another format or has no order.
    """
    dataset = read_dataset(file)
    if not dataset.baskets:
        invoices = {skipped.invoice for skipped in dataset.skipped} | {line.invoice for line in dataset.returns}
        raise Invalid(f"cannot replay {file}: none of its {len(invoices)} invoices is an order")
    digest, returns = hashlib.sha256(file.read_bytes()).hexdigest()[:12], match_returns(dataset)
    if lines_per_cart is None:
        return Replay(f"replay-{digest}", dataset, digest, dataset.baskets, returns)
    baskets = plan_carts(dataset.baskets, digest, lines_per_cart)
    return Replay(f"replay-carts-{digest}", dataset, digest, baskets, returns, is_through_cart=True)


async def replay(
    shop: CliServices,
    base: str,
    file: Path,
    clients: int,
    report_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    is_through_cart: bool = False,
) -> Replay:
    """Replay a file against the gateway at `base` over `clients` connections.

    Through carts each basket is put into the cart of a customer of its own, and checked out. `report_progress` gets the
    number of baskets that are done, and of all. Raises `Invalid` if the file is of another format or has no order,
    `Conflict` if its sale was closed, `NotReady` if the gateway does not answer, refuses our token or does not know the
    sale: no basket would say anything about the shop.
    """
    result = plan_replay(file, shop.settings.limits.lines_per_cart if is_through_cart else None)
    await _check_token(shop, base)
    await open_sale(shop, result)
    await _wait_until_offered(base, result.sale_id)
    orders = await _send_baskets(shop, base, result, clients, report_progress)
    await _compare_stored(shop, result, orders)
    sent = {basket.invoice: SentOrder(id_, basket, placed.total) for id_, (basket, placed) in orders.items()}
    matched = result.returns.matched
    if is_through_cart:
        lines = await _read_lines(shop, result.sale_id)
        skus = {invoice: [sku for sku, _, _ in lines.get(order.order_id, [])] for invoice, order in sent.items()}
        matched = find_in_carts(matched, result.source.baskets, skus)
    key_prefix = f"carts-{result.key_prefix}" if is_through_cart else result.key_prefix
    async with ReplayClient(shop, base, clients) as client:
        result.played = await ReturnPlayer(shop, client, key_prefix).play(matched, sent)
    return result


async def _check_token(shop: CliServices, base: str) -> None:
    status, text = await fetch(f"{base}/v1/orders?limit=1", create_headers(shop, _ACTOR))
    if status in (401, 403):
        raise NotReady(
            f"{base} refuses our token: {text}; it is signed by these settings: set FLOODGATE_DATA_DIR or "
            "FLOODGATE_AUTH__KEYS as for the gateway"
        )


async def _wait_until_offered(base: str, sale_id: str) -> None:
    """Wait until the gateway has noticed the sale. Raises `NotReady` if it does not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _OFFERED_TIMEOUT_S
    while (await fetch(f"{base}/v1/sales/{sale_id}", {}))[0] != 200:
        if loop.time() > deadline:
            raise NotReady(f"{base} does not offer the sale {sale_id}: give --base of a gateway of these settings")
        await asyncio.sleep(_POLL_INTERVAL_S)


async def open_sale(shop: CliServices, result: Replay) -> None:
    """Create the products and a sale with enough stock, and open it.

    Idempotent; sets `is_repeat` if the sale exists. Raises `Conflict` if it was closed.
    """
    source = result.source
    products = [(sku, VariantInput(name, price, CURRENCY)) for sku, (name, price) in sorted(source.products.items())]
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
    clients: int,
    report_progress: Callable[[int, int], None],
) -> dict[UUID, tuple[Basket, PlacedBasket]]:
    """Send every basket as its customer, and return the baskets with what became of them by order id."""
    orders: dict[UUID, tuple[Basket, PlacedBasket]] = {}
    waiting = list(reversed(result.baskets))
    total, done = len(waiting), 0

    async def send_waiting(sender: OrderSender | CartSender) -> None:
        nonlocal done
        while waiting:
            basket = waiting.pop()
            try:
                placed = await sender.send(basket)
            except BasketRefused as refusal:
                result.differences.append(f"{basket.invoice}: {refusal}")
            else:
                orders[placed.order_id] = basket, placed
                result.expected_total += placed.total
                result.created += placed.is_new
                result.repeated += not placed.is_new
            done += 1
            report_progress(done, total)

    async with ReplayClient(shop, base, clients) as client:
        sender: OrderSender | CartSender = OrderSender(client, result.sale_id, result.key_prefix, result.is_repeat)
        if result.is_through_cart:
            sender = CartSender(client, result.sale_id)
        await asyncio.gather(*(send_waiting(sender) for _ in range(clients)))
    return orders


async def _compare_stored(shop: CliServices, result: Replay, orders: dict[UUID, tuple[Basket, PlacedBasket]]) -> None:
    """Wait until the writer has stored the orders, and compare each with its basket, line by line."""
    rows = await _wait_until_stored(shop, result.sale_id, len(orders))
    lines = await _read_lines(shop, result.sale_id)
    result.stored_orders = len(rows)
    result.stored_total = sum(row["total_minor"] for row in rows)
    rows_by_id = {row["order_id"]: row for row in rows}
    for order_id, (basket, placed) in orders.items():
        row = rows_by_id.get(order_id)
        expected_lines = [(line.sku, line.quantity, line.price) for line in basket.lines]
        stored_lines = lines.get(order_id, [])
        if result.is_through_cart:  # lines that were put within a millisecond have the order of their SKUs
            expected_lines, stored_lines = sorted(expected_lines), sorted(stored_lines)
        if row is None:
            result.differences.append(f"{basket.invoice}: order {order_id} is not in Postgres")
        elif (row["user_id"], row["total_minor"]) != (basket.user_id, placed.total):
            result.differences.append(
                f"{basket.invoice}: {row['user_id']} owes {row['total_minor']}, not {placed.total}"
            )
        elif stored_lines != expected_lines:
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
