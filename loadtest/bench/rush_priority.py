"""Requests that come before new orders: repeats of known keys, payments that begin, cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from loadtest.bench.crowd import list_addresses, open_crowd
from loadtest.bench.crowd_process import CrowdSample
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.rush_figures import FULL, PriorityFigures
from loadtest.bench.shop_environment import BenchedShop
from loadtest.bench.unpaid_orders import UnpaidOrder, select_unpaid_orders

_KINDS = {"known_key": (20, 100.0), "payment": (10, 250.0), "cancellation": (20, 100.0)}
"""customers of each kind and their pauses in milliseconds; a worker could not begin more payments"""
_RAMP_S = 2.0


async def measure_priority(shop: BenchedShop, seconds: float) -> dict[str, PriorityFigures]:
    """Ask about stored orders in a quiet hour, then while an impatient crowd is served."""
    environment = shop.environment
    await wait_until_drained(environment)
    count = sum(_count_orders(kind, seconds) for kind in _KINDS)
    orders = await select_unpaid_orders(environment, 2 * count)
    quiet = await _send_all(shop, orders[:count], seconds)
    async with open_crowd(environment, shop.url, FULL, sources=list_addresses(1, 10)) as crowd:
        await crowd.wait_until_connected()
        await asyncio.sleep(_RAMP_S)
        beside = await _send_all(shop, orders[count:], seconds)
    await wait_until_drained(environment)
    return {
        kind: PriorityFigures(
            quiet[kind].p50_ms,
            quiet[kind].all_attempts_p99_ms,
            sample.p50_ms,
            sample.all_attempts_p99_ms,
            sample.accepted + sample.refused,
            sample.refused,
            sample.counts,
        )
        for kind, sample in beside.items()
    }


def _count_orders(kind: str, seconds: float) -> int:
    """Return how many orders the customers of a kind may need."""
    customers, pause_ms = _KINDS[kind]
    return round(customers * 1e3 / pause_ms * (seconds + _RAMP_S))


async def _send_all(shop: BenchedShop, orders: Sequence[UnpaidOrder], seconds: float) -> dict[str, CrowdSample]:
    """Send requests of all kinds at once, each about another order, and return the answers by kind."""
    order, rest = shop.environment.order.read_text().replace("@", "0"), list(orders)
    async with AsyncExitStack() as stack:
        crowds = {}
        for kind, (customers, pause_ms) in _KINDS.items():
            count = _count_orders(kind, seconds)
            texts, rest = [_format(kind, stored, order) for stored in rest[:count]], rest[count:]
            opened = open_crowd(
                *(shop.environment, shop.url, customers),
                requests=texts,
                is_once=True,
                is_patient=True,
                pause_ms=pause_ms,
                sources=list_addresses(101, 20),
            )
            crowds[kind] = await stack.enter_async_context(opened)
        for crowd in crowds.values():
            await crowd.wait_until_connected()
        await asyncio.sleep(seconds)
        return {kind: await crowd.take_sample() for kind, crowd in crowds.items()}


def _format(kind: str, stored: UnpaidOrder, order: str) -> str:
    """Return a request about a stored order."""
    if kind == "known_key":
        return stored.format_request("/v1/orders", order, f"Idempotency-Key: {stored.key}\r\n")
    if kind == "payment":
        return stored.format_payment()
    return stored.format_request(f"/v1/orders/{stored.order_id}/cancel")
