"""The part `pricing`: processor time that promotions and freight add to an accepted order.

One gateway and one sale: promotions and freight are switched on and off between the turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import count, islice
from time import process_time
from typing import Any

import aiohttp
import msgspec

from commerce.kernel.ids import IdGenerator
from commerce.orders.model import OrderLineInput, PlaceOrder
from commerce.orders.pricing import OrderLimits, price_order
from commerce.promotions.model import ChangedPromotion
from commerce.sales.model import SaleSnapshot
from loadtest.bench.comparison import BenchedServer, measure
from loadtest.bench.environment import ADDRESS, SALE_ID, SKU_PREFIX, BenchEnvironment, open_environment
from loadtest.bench.peers import Peers
from loadtest.bench.pricing_figures import PricingFigures, PricingTimes
from loadtest.bench.pricing_terms import FREIGHT, SKUS, list_promotions
from loadtest.bench.wrk import LoadFailed

_TEMPLATE, _ACTOR = "bench", "bench"
_MIN_WARM_UP_S = 3.0
_QUOTED_TIMEOUT_S, _POLL_INTERVAL_S = 30.0, 0.1
_LIMITS = OrderLimits(lines=1_000, addresses=50, payments=8, coupons=8, quantity=100_000)
_PRICED_ORDERS, _MAX_QUANTITY = 2_000, 90
BODY: dict[str, Any] = {
    "sale_id": SALE_ID,
    "lines": [{"sku": f"{SKU_PREFIX}@", "quantity": 1}, {"sku": f"{SKU_PREFIX}0", "quantity": 2}],
    "ship_to": [ADDRESS],
}
"""an order of two lines, with @ for the number of the SKU; without payments, since its total differs"""
_UNITS_PER_ORDER = 3


async def measure_pricing(figures: PricingFigures, *, connections: int, seconds: float, repeats: int) -> None:
    """Measure orders without and with promotions in turn, and their pricing alone."""
    async with open_environment(skus=SKUS) as opened, AsyncExitStack() as stack:
        environment = replace(opened, units_per_order=_UNITS_PER_ORDER)
        environment.order.write_bytes(msgspec.json.encode(BODY))
        floodgate = await Peers(environment, stack).start_floodgate()
        plain = await _read_snapshot(environment)
        await create_terms(environment)
        await switch(environment, floodgate, is_on=True)
        figures.in_process = _price_in_process(plain, await _read_snapshot(environment), repeats)
        # As long as a turn at least: in it each user's token is checked for the first time.
        await measure(environment, floodgate, connections, max(seconds, _MIN_WARM_UP_S))
        turns = ((figures.plain, False), (figures.promotions, True))
        for number in range(repeats):
            for measurements, is_on in turns if number % 2 == 0 else reversed(turns):  # neither is always the first
                await switch(environment, floodgate, is_on=is_on)
                measurements.append(await measure(environment, floodgate, connections, seconds))
    figures.ratios = figures.compute_ratios()


async def create_terms(environment: BenchEnvironment) -> None:
    """Create the promotions, which are enabled then, and the freight template."""
    shop = environment.shop
    for promotion in list_promotions():
        await shop.promotions.create(SALE_ID, promotion, _ACTOR)
    await shop.sale_freight.put_templates({_TEMPLATE: FREIGHT}, _ACTOR)


async def switch(environment: BenchEnvironment, floodgate: BenchedServer, *, is_on: bool) -> None:
    """Enable or disable promotions and freight, and wait until the gateway prices so.

    Gateways read the promotions after the template, so one that has the last change has all of them. Raises
    `LoadFailed` if it does not.
    """
    shop = environment.shop
    for promotion in list_promotions():
        await shop.promotions.change(SALE_ID, promotion.promotion_id, ChangedPromotion(enabled=is_on), _ACTOR)
    await shop.sale_freight.assign(SALE_ID, _TEMPLATE if is_on else None, _ACTOR)
    with environment.tokens.open() as lines:
        name, _, value = lines.readline().strip().partition(": ")
    body = msgspec.json.encode(BODY).replace(b"@", b"1")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _QUOTED_TIMEOUT_S
    async with aiohttp.ClientSession(headers={name: value, "Content-Type": "application/json"}) as session:
        while True:
            async with session.post(f"{floodgate.url}/quote", data=body) as response:
                quote = await response.json(content_type=None)
            price = quote.get("price", {})
            if [price.get(part, 0) > 0 for part in ("discount", "freight")] == [is_on, is_on]:
                return
            if loop.time() > deadline:
                raise LoadFailed(f"the gateway does not price with promotions and freight {is_on=}: {quote}")
            await asyncio.sleep(_POLL_INTERVAL_S)


async def _read_snapshot(environment: BenchEnvironment) -> SaleSnapshot:
    sales = environment.shop.sales
    return await sales.read_snapshot(await sales.get(SALE_ID), None)


def _price_in_process(plain: SaleSnapshot, promotions: SaleSnapshot, repeats: int) -> list[PricingTimes]:
    """Price so many rounds of orders by each snapshot. The first round is not kept."""
    orders = create_orders()
    repeated = list(islice(orders, SKUS)) * (_PRICED_ORDERS // SKUS)
    rounds = [
        PricingTimes(
            plain=_measure_price_us(plain, repeated),
            hit=_measure_price_us(promotions, repeated),
            miss=_measure_price_us(promotions, list(islice(orders, _PRICED_ORDERS))),
        )
        for _ in range(repeats + 1)
    ]
    return rounds[1:]


def create_orders() -> Iterator[PlaceOrder]:
    """Create orders of two lines, no two of which are of the same units."""
    body = msgspec.convert(BODY, PlaceOrder)
    for number in count():
        first, quantities = number % SKUS, number // SKUS
        second = (first + 1 + quantities // _MAX_QUANTITY**2) % SKUS
        lines = [
            OrderLineInput(f"{SKU_PREFIX}{first}", quantities % _MAX_QUANTITY + 1),
            OrderLineInput(f"{SKU_PREFIX}{second}", quantities // _MAX_QUANTITY % _MAX_QUANTITY + 1),
        ]
        yield msgspec.structs.replace(body, lines=lines)


def _measure_price_us(snapshot: SaleSnapshot, orders: Sequence[PlaceOrder]) -> float:
    """Return the processor time of pricing an order, in microseconds."""
    order_id = IdGenerator().new()
    started = process_time()
    for order in orders:
        price_order(order, snapshot, _LIMITS, "user", "key", order_id)
    return (process_time() - started) / len(orders) * 1e6
