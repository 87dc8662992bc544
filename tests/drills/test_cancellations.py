"""P5 at full load: orders are cancelled while others hunt for the same units; who gives these back is killed."""

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
"""At every tenth batch the release driver is killed where it hurts: the units are back, and the row does not say so."""


@pytest.mark.parametrize("stack", [_SETTINGS], indirect=True, ids=["a driver that dies"])
async def test_a_third_is_cancelled_while_orders_flow(stack: LocalStack, rng: Random) -> None:
    """Units that come back are sold again: more are promised in all than there ever were."""
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "second-thoughts", {sku: (n, 990, _LIMITS.get(sku)) for sku, n in _INITIAL.items()})
    settings = stack.settings()
    record = ClientRecord("second-thoughts", lambda user: token(settings, user), returns=True)

    def errands() -> Iterator[RetriedRequest]:
        for number in range(_REQUESTS):
            yield record.order(record.wish(f"u{rng.randrange(_USERS)}", f"key-{number}", rng.choice(_BASKETS)))

    def second_thoughts(errand: RetriedRequest) -> RetriedRequest | None:
        if isinstance(errand, OrderRequest) and errand.wish.order_id is not None and rng.random() < 1 / 3:
            return record.cancellation(errand.wish)
        return None

    loop = asyncio.get_running_loop()
    started = loop.time()
    await run_requests(stack.port, rng, CONNECTIONS, errands(), second_thoughts)
    seconds = loop.time() - started
    kills = stack.times_said("maintenance ended with status -9")
    assert kills >= 3
    found = await check_final_state(stack, record, _INITIAL, _LIMITS)
    cancelled = sum(wish.cancelled for wish in record.wishes.values())
    promised = sum(wish.units.get("phone", 0) for wish in record.promised().values())
    assert cancelled > record.accepted // 4
    assert promised > _INITIAL["phone"]
    async with open_cli_services(stack.settings()) as shop, shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM releases WHERE status = 'applied'") == cancelled
        assert await connection.fetchval("SELECT count(*) FROM releases") == cancelled
    print(
        f"\nCancellations: {_REQUESTS} orders wished in {seconds:.1f} s, {record.accepted} accepted, {cancelled} "
        f"cancelled, {promised} times one of {_INITIAL['phone']} phones sold, release driver killed {kills} times: "
        f"{record.figures()}, difference {found.differences}"
    )
