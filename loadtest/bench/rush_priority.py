"""Requests that come before new orders: repeats of known keys, payments that begin, cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import asyncpg
import jwt

from loadtest.bench.crowd import list_addresses, open_crowd
from loadtest.bench.crowd_process import CrowdSample
from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.rush_figures import FULL, PriorityFigures
from loadtest.bench.shop_environment import BenchedShop
from loadtest.bench.wrk import LoadFailed

_KINDS = {"known_key": (20, 100.0), "payment": (10, 250.0), "cancellation": (20, 100.0)}
"""customers of each kind and their pauses in milliseconds; a worker could not begin more payments"""
_RAMP_S = 2.0


@dataclass(frozen=True, slots=True)
class _StoredOrder:
    """An order of an earlier crowd that is not paid."""

    order_id: str
    key: str
    token: str


async def measure_priority(shop: BenchedShop, seconds: float) -> dict[str, PriorityFigures]:
    """Ask about stored orders in a quiet hour, then while an impatient crowd is served."""
    environment = shop.environment
    await wait_until_drained(environment)
    count = sum(_count_orders(kind, seconds) for kind in _KINDS)
    orders = await _select_orders(environment, 2 * count)
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


async def _select_orders(environment: BenchEnvironment, count: int) -> list[_StoredOrder]:
    """Return stored orders that nobody has paid. Raises `LoadFailed` if there are too few."""
    async with environment.shop.db.connection() as connection:
        rows: list[asyncpg.Record] = await connection.fetch(
            "SELECT order_id, user_id, idempotency_key FROM orders WHERE status = 'awaiting_payment' LIMIT $1", count
        )
    if len(rows) < count:
        raise LoadFailed(f"{count} stored orders are needed, and there are {len(rows)}")
    headers = environment.tokens.read_text().splitlines()  # the tokens with which they were placed
    tokens = {jwt.decode(token, options={"verify_signature": False})["sub"]: token for token in map(_token_of, headers)}
    return [_StoredOrder(str(row["order_id"]), row["idempotency_key"], tokens[row["user_id"]]) for row in rows]


def _token_of(header: str) -> str:
    return header.removeprefix("Authorization: Bearer ")


async def _send_all(shop: BenchedShop, orders: Sequence[_StoredOrder], seconds: float) -> dict[str, CrowdSample]:
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


def _format(kind: str, stored: _StoredOrder, order: str) -> str:
    """Return a request about a stored order."""
    path, body, headers = {
        "known_key": ("/v1/orders", order, f"Idempotency-Key: {stored.key}\r\n"),
        "payment": (f"/v1/orders/{stored.order_id}/payments", "{}", ""),
        "cancellation": (f"/v1/orders/{stored.order_id}/cancel", "", ""),
    }[kind]
    content_type = "Content-Type: application/json\r\n" if body else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {stored.token}\r\n"
        f"{content_type}{headers}Content-Length: {len(body)}\r\n\r\n{body}"
    )
