"""P5 at full load: customers cancel, others order the same units, the release worker is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest

from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, OrderRequest
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(240)]
CONNECTIONS = 64
_REQUESTS, _USERS = 20_000, 4_000
_INITIAL = {"phone": 1_500, "buds": 2_500, "tea": 1_000_000}
_LIMITS = {"phone": 1, "buds": 2}
_BASKETS = ({"phone": 1}, {"phone": 1, "tea": 2}, {"buds": 2}, {"buds": 1, "tea": 1}, {"tea": 3})
_SETTINGS = {
    **NO_LIMIT_PER_USER,
    "FLOODGATE_FAILPOINT": "release.after_redis:10",
    "FLOODGATE_JOBS__LEASE_S": "3",
}
"""Kills the release worker in every tenth batch, between the release in Redis and the commit."""


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["killed worker"])
async def test_release_worker_killed_among_cancellations_releases_stock_once(stack: LocalStack, rng: Random) -> None:
    """Cancel a third of the orders. Released units are sold again, so that more are sold than exist."""
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "cancellations", {sku: (n, 990, _LIMITS.get(sku)) for sku, n in _INITIAL.items()})
    settings = stack.settings()
    record = ClientRecord("cancellations", lambda user: token(settings, user), releases_stock=True)

    def generate_orders() -> Iterator[RetriedRequest]:
        for number in range(_REQUESTS):
            intended = record.add_intended(f"u{rng.randrange(_USERS)}", f"key-{number}", rng.choice(_BASKETS))
            yield record.make_order_request(intended)

    def cancel_some(request: RetriedRequest) -> RetriedRequest | None:
        if isinstance(request, OrderRequest) and request.intended.order_id is not None and rng.random() < 1 / 3:
            return record.make_cancel_request(request.intended)
        return None

    loop = asyncio.get_running_loop()
    started = loop.time()
    await run_requests(stack.port, rng, CONNECTIONS, generate_orders(), cancel_some)
    seconds = loop.time() - started
    kills = stack.count_in_output("maintenance ended with status -9")
    assert kills >= 3
    audit = await check_final_state(stack, record, _INITIAL, _LIMITS)
    cancelled = sum(intended.is_cancelled for intended in record.intended_orders.values())
    promised = sum(intended.units.get("phone", 0) for intended in record.promised_orders().values())
    assert cancelled > record.accepted // 4
    assert promised > _INITIAL["phone"]
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM releases WHERE status = 'applied'") == cancelled
        assert await connection.fetchval("SELECT count(*) FROM releases") == cancelled
    print(
        f"\nCancellations: {_REQUESTS} intended orders in {seconds:.1f} s, {record.accepted} accepted, {cancelled} "
        f"cancelled, {promised} sales of {_INITIAL['phone']} phones, release worker killed {kills} times: "
        f"{record.format_summary()}, difference {audit.differences}"
    )
