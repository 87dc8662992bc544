"""P6: cash on delivery beside money paid in advance, where some shipments never arrive."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID

import pytest

from commerce.audit import store as audit_store
from commerce.cancellations.model import CancelRequest, UnitsToCancel
from commerce.kernel.clock import from_ms
from commerce.orders import store as orders
from commerce.payments.errors import RefundExceedsCaptured
from commerce.refunds import service
from commerce.refunds.model import Grant, GrantKind, GrantLine, GrantRequest
from commerce.shipping.model import Shipment
from tests.cancellations.test_cancellations import read_order, sum_refunds
from tests.support.shipping_shop import ADDRESS, ShippingShop, tracking_event

LINES = (("a", 2, 0), ("a", 2, 1), ("a", 2, 2))
SHIP_TO = (ADDRESS, ADDRESS, ADDRESS)


async def check_money(ship: ShippingShop, order_id: UUID, granted_minor: int) -> None:
    """The shop keeps the price of what was not granted: nobody pays more, and nobody less."""
    query = (
        "SELECT total_minor, (SELECT sum(amount_minor) FROM refund_grants WHERE order_id = $1)::bigint AS granted, "
        "(SELECT sum(payments.captured_minor) FROM payments WHERE order_id = $1)::bigint AS captured, "
        "(SELECT count(*) FROM payments WHERE order_id = $1 AND status IN ('pending', 'authorised')) AS open "
        "FROM orders WHERE order_id = $1"
    )
    [row] = await ship.fetch_rows(query, order_id)
    assert row["granted"] == granted_minor
    kept_minor = row["captured"] - await sum_refunds(ship, order_id)
    assert (kept_minor, row["open"]) == (row["total_minor"] - granted_minor, 0)
    async with audit_store.open_order_snapshot(ship.shop.db) as connection:
        for name in ("paid_without_money", "over_refunded", "cash_and_shipments", "uncaptured_cash"):
            assert await audit_store.list_violations(connection, name, [order_id]) == [], name


async def add_booked(ship: ShippingShop, cod: int) -> tuple[UUID, list[Shipment]]:
    """Three shipments of 200 each."""
    order_id, shipments = await ship.add_booked_order(*LINES, ship_to=SHIP_TO, cod=cod)
    assert [shipment.value_minor for shipment in shipments] == [200, 200, 200]
    return order_id, shipments


async def end(ship: ShippingShop, shipment: Shipment, status: str) -> None:
    await ship.apply_events(shipment.shipment_id, tracking_event(status, -9))


async def grant(ship: ShippingShop, order_id: UUID, kind: GrantKind, line_no: int) -> Grant:
    lines = [GrantLine(line_no, line_no, 2)]
    request = GrantRequest(kind, None, "broken", "test", lines=lines)
    async with ship.shop.db.transaction() as connection:
        order = await orders.lock_order(connection, order_id)
        assert order is not None
        return await service.grant(connection, ship.shop.ids, order, request, from_ms(ship.shop.clock.now_ms()))


@pytest.mark.parametrize("works_between", [True, False])
@pytest.mark.parametrize(("cod", "refused"), [(300, 1), (301, 1), (300, 2), (600, 1)])
async def test_refused_shipment_lowers_only_its_own_cash(
    ship: ShippingShop, cod: int, refused: int, works_between: bool
) -> None:
    """In every sequence of deliveries and refusals."""
    ends = ["returned_to_sender"] * refused + ["delivered"] * (3 - refused)
    for sequence in sorted(set(permutations(ends))):
        order_id, shipments = await add_booked(ship, cod)
        for shipment, status in zip(shipments, sequence, strict=True):
            await end(ship, shipment, status)
            if works_between:
                await ship.work_until_idle()
        await ship.work_until_idle()
        assert await read_order(ship, order_id) == ("delivered", None)
        await check_money(ship, order_id, 200 * refused)


@pytest.mark.parametrize("lost", [1, 2])
async def test_freight_of_lost_shipment_comes_back_once_the_cash_of_the_others_is_captured(
    ship: ShippingShop, lost: int
) -> None:
    """All is cash: the refund is more than the cash that is not collected, and nothing is captured yet."""
    for sequence in sorted(set(permutations(["lost"] * lost + ["delivered"] * (3 - lost)))):
        order_id = await ship.add_order(*LINES, ship_to=SHIP_TO, cod=600)
        await ship.fetch_rows("UPDATE orders SET total_minor = 660, freight_minor = 60 WHERE order_id = $1", order_id)
        await ship.fetch_rows("UPDATE payments SET amount_minor = 660 WHERE order_id = $1", order_id)
        await ship.work_until_idle()
        for shipment, status in zip(await ship.list_shipments(order_id), sequence, strict=True):
            await end(ship, shipment, status)
            await ship.work_until_idle()
        assert await read_order(ship, order_id) == ("delivered", None)
        for _ in range(2):
            await check_money(ship, order_id, 60 + 200 * lost)
            assert await sum_refunds(ship, order_id) == 60 - 20 * lost, "220 of each were not collected"
            await ship.make_all_due()
            await ship.work_until_idle()


@pytest.mark.parametrize("is_booked", [True, False])
async def test_customer_cancels_units_before_they_leave(ship: ShippingShop, is_booked: bool) -> None:
    for units in [((0, 2),), ((1, 1),), ((0, 1), (2, 2))]:
        order_id = await ship.add_order(*LINES, ship_to=SHIP_TO, cod=300)
        if is_booked:
            await ship.work_until_idle()
        wanted = [UnitsToCancel(line_no, count, line_no) for line_no, count in units]
        await ship.cancellations.cancel(CancelRequest(order_id, "customer user", "user", "not wanted", wanted), [], 0)
        await ship.work_until_idle()
        for shipment in await ship.list_shipments(order_id):
            if shipment.status != "cancelled":
                await end(ship, shipment, "delivered")
        await ship.work_until_idle()
        await check_money(ship, order_id, 100 * sum(count for _, count in units))


async def test_units_cancelled_while_others_are_delivered_or_under_way(ship: ShippingShop) -> None:
    order_id, [first, second, third] = await add_booked(ship, 300)
    await end(ship, first, "delivered")
    await end(ship, second, "picked_up")
    units = [UnitsToCancel(2, 2, 2)]
    await ship.cancellations.cancel(CancelRequest(order_id, "customer user", "user", "not wanted", units), [], 0)
    await ship.work_until_idle()
    assert (await ship.get_shipment(third.shipment_id)).status == "cancelled"
    assert await sum_refunds(ship, order_id) == 100, "the other 100 are not collected"
    await end(ship, second, "delivered")
    await check_money(ship, order_id, 200)


async def test_delivered_units_are_refunded_over_captured_payments_while_others_are_under_way(
    ship: ShippingShop,
) -> None:
    order_id, shipments = await add_booked(ship, 300)
    await end(ship, shipments[0], "delivered")
    granted = await grant(ship, order_id, "case", 0)
    assert [(part.method, part.amount, part.goes_to) for part in granted.allocations] == [
        ("balance", 200, "store_credit")
    ]
    with pytest.raises(RefundExceedsCaptured, match=r"100 minor units are captured .* 300 of cash"):
        await grant(ship, order_id, "case", 1)
    for shipment in shipments[1:]:
        await end(ship, shipment, "delivered")
    await check_money(ship, order_id, 200)
    await grant(ship, order_id, "case", 1)
    await check_money(ship, order_id, 400)


async def test_staff_refund_captured_money_while_cash_is_under_way(ship: ShippingShop) -> None:
    order_id, shipments = await add_booked(ship, 300)
    await end(ship, shipments[0], "delivered")
    await grant(ship, order_id, "staff", 0)
    with pytest.raises(RefundExceedsCaptured, match=r"100 minor units are captured .* to be paid on delivery"):
        await grant(ship, order_id, "staff", 1)
    await end(ship, shipments[1], "returned_to_sender")
    await ship.work_until_idle()
    await end(ship, shipments[2], "delivered")
    await ship.work_until_idle()
    await check_money(ship, order_id, 400)


async def test_case_that_takes_cash_of_a_lost_shipment_lets_its_replacement_end_the_payment(
    ship: ShippingShop,
) -> None:
    """Nothing is cancelled, and less is collected than the payment: the case has taken the rest off."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await end(ship, first, "delivered")
    await end(ship, second, "lost")
    async with ship.shop.db.transaction() as connection:
        order = await orders.lock_order(connection, order_id)
        assert order is not None
        request = GrantRequest("case", None, "broken", "test", lines=[GrantLine(0, 0, 1)])
        now = from_ms(ship.shop.clock.now_ms())
        granted = await service.grant(connection, ship.shop.ids, order, request, now)
    assert [(part.amount, part.goes_to) for part in granted.allocations] == [(100, "not_collected")]
    replacement = await ship.fulfilment.repacking.reship(second.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(replacement)).cod_minor == 100
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("delivered", None)
    await check_money(ship, order_id, 100)


async def test_money_of_a_replaced_payment_is_not_withheld_from_cancelled_units(ship: ShippingShop) -> None:
    """Two payments, of which the first came back. That refund was for no unit of the order."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 1, 0))
    await ship.fetch_rows(
        "WITH current AS (UPDATE payments SET plan_revision = 2 WHERE order_id = $1 RETURNING *), replaced AS ("
        "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, "
        "currency, status, created_at, expires_at, captured_at, refunded_minor) SELECT gen_random_uuid(), order_id, "
        "user_id, 1, 0, method, flow, amount_minor, currency, status, created_at, expires_at, captured_at, "
        "amount_minor FROM current RETURNING *) INSERT INTO refunds (refund_id, payment_id, order_id, refund_key, "
        "amount_minor, currency, reason, actor, created_at, status, ended_at, way) SELECT gen_random_uuid(), "
        "payment_id, order_id, 'whole', amount_minor, currency, 'replaced', 'payment_worker', created_at, "
        "'done', created_at, 'store_credit' FROM replaced",
        order_id,
    )
    await end(ship, first, "delivered")
    await end(ship, second, "lost")
    await ship.cancellations.refund_shipment(second.shipment_id, "lost", "staff dan")
    await ship.work_until_idle()
    assert await ship.fetch_value("SELECT amount_minor FROM refund_grants WHERE order_id = $1", order_id) == 100


async def test_customer_cancels_units_after_goodwill_of_their_price(ship: ShippingShop) -> None:
    """The order must be able to end: what its payments hold no more is withheld, and nothing refuses it."""
    order_id, shipments = await add_booked(ship, 300)
    await end(ship, shipments[0], "delivered")
    goodwill = GrantRequest("staff", None, "late", "test", amount_override=300)
    async with ship.shop.db.transaction() as connection:
        order = await orders.lock_order(connection, order_id)
        assert order is not None
        now = from_ms(ship.shop.clock.now_ms())
        await service.grant(connection, ship.shop.ids, order, goodwill, now)
    units = [UnitsToCancel(1, 2, 1), UnitsToCancel(2, 2, 2)]
    await ship.cancellations.cancel(CancelRequest(order_id, "customer user", "user", "not wanted", units), [], 0)
    await ship.work_until_idle()
    assert await read_order(ship, order_id) == ("delivered", None)
    await check_money(ship, order_id, 600)
