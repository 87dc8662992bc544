"""Dead letters: kept, visible to their customers, and retried or discarded by staff."""

from __future__ import annotations

import msgspec
import pytest

import lua
from commerce.dead_letters.errors import DeadLetterResolved, NoSuchDeadLetter
from commerce.kernel.errors import Conflict
from commerce.kernel.stream_payload import decode_accepted, encode_accepted
from commerce.orders.model import OrderStatus
from commerce.orders.service import Orders
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import open_gateway, run_workers
from tests.support.sales import eventually, make_sale, reservation, reserve


@pytest.fixture
async def keys(shop: CliServices, sale_id: str) -> SaleKeys:
    return await make_sale(shop, sale_id, {"a": (50, 100, 5)})


async def place_bad_order(shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys) -> lua.Reservation:
    """Place an order with a currency that the database refuses, among good ones."""
    good = [reservation(shop.ids.new, sale_id, {"a": 1}, user=f"u{n}", limits={"a": 5}) for n in range(3)]
    order = reservation(shop.ids.new, sale_id, {"a": 2}, limits={"a": 5})
    accepted = msgspec.structs.replace(decode_accepted(order.payload), currency="yuan")
    bad = lua.Reservation(
        order.generation,
        order.user_id,
        order.idempotency_key,
        order.order_id,
        order.body_digest,
        order.total_minor,
        encode_accepted(accepted),
        order.units,
    )
    await reserve(shop.redis, keys, good[0], bad, good[1], good[2])
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == 3
    return bad


async def is_drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


async def test_dead_letter_cannot_be_paid(shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys) -> None:
    """A held order may still be stored, so it is `not_stored_yet`; a discarded one is cancelled."""
    bad = await place_bad_order(shop, settings, sale_id, keys)
    path = f"/v1/orders/{bad.order_id}/payments"
    async with open_gateway(settings) as gateway:
        held_answer = await gateway.call(
            "POST", path, user="user", json={"payments": [{"method": "cod", "amount": 200}]}
        )
        assert (held_answer.status, held_answer.code) == (409, "not_stored_yet")
        await shop.dead_letters.discard(bad.order_id, "test")
        discarded_answer = await gateway.call(
            "POST", path, user="user", json={"payments": [{"method": "cod", "amount": 200}]}
        )
        assert (discarded_answer.status, discarded_answer.code) == (409, "not_payable")


async def test_dead_letter_is_listed_and_customer_sees_order(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    bad = await place_bad_order(shop, settings, sale_id, keys)
    page = await shop.dead_letters.list_letters(None, 10)
    [letter] = page.items
    assert (letter.order_id, letter.user_id, letter.units, letter.status) == (bad.order_id, "user", {"a": 2}, "held")
    assert "orders_currency_check" in letter.error
    letter = await shop.dead_letters.get(bad.order_id)
    assert letter.order is not None
    assert letter.order["currency"] == "yuan"
    orders = Orders(shop.db, shop.redis, shop.clock)
    order = await orders.get(bad.order_id, "user", [sale_id])
    assert (order.status, order.sale_id) == (OrderStatus.ACCEPTED, sale_id)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert audit.total.held == 5


async def test_discard_releases_stock_once(shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys) -> None:
    bad = await place_bad_order(shop, settings, sale_id, keys)
    assert (await shop.dead_letters.discard(bad.order_id, "ann")).resolved_by == "ann"
    with pytest.raises(DeadLetterResolved):
        await shop.dead_letters.discard(bad.order_id, "ann")
    async with run_workers(settings, "release_worker"):
        await eventually(lambda: has_free_units(shop, keys, 47))
    assert b"user\0a" not in await lua.read_units_taken(shop.redis, keys)
    order = await Orders(shop.db, shop.redis, shop.clock).get(bad.order_id, "user", [sale_id])
    assert (order.status, order.cancel_reason) == (OrderStatus.CANCELLED, "refused")
    assert (await shop.audit.audit_sale(sale_id)).clean


async def has_free_units(shop: CliServices, keys: SaleKeys, units: int) -> bool:
    return (await lua.cut(shop.redis, keys)).stock == {"a": units}


async def test_retry_fails_until_cause_is_fixed(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    bad = await place_bad_order(shop, settings, sale_id, keys)
    with pytest.raises(Conflict, match="still cannot be stored"):
        await shop.dead_letters.retry(bad.order_id, "ann")
    assert (await shop.dead_letters.get(bad.order_id)).status == "held"
    async with shop.db.connection() as connection:
        await connection.execute("ALTER TABLE orders DROP CONSTRAINT orders_currency_check")
    assert (await shop.dead_letters.retry(bad.order_id, "ann")).status == "retried"
    order = await Orders(shop.db, shop.redis, shop.clock).get(bad.order_id, "user", [sale_id])
    assert order.status is OrderStatus.AWAITING_PAYMENT
    assert (await shop.audit.audit_sale(sale_id)).clean
    with pytest.raises(DeadLetterResolved):
        await shop.dead_letters.retry(bad.order_id, "ann")


async def test_unknown_dead_letter_is_refused(shop: CliServices, sale_id: str) -> None:
    for call in (shop.dead_letters.get(shop.ids.new()), shop.dead_letters.discard(shop.ids.new(), "ann")):
        with pytest.raises(NoSuchDeadLetter):
            await call
