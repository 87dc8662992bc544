"""Cash on delivery: the payment is captured once the parts of all shipments are collected."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from commerce.cancellations.model import CancelRequest, UnitsToCancel
from commerce.orders import store as orders
from commerce.payments import locked_orders
from commerce.payments.errors import NotCollectable, RefundExceedsCaptured
from commerce.shipping.cash_waivers import CashWaivers
from commerce.shipping.model import Shipment
from tests.support.shipping_shop import SHANGHAI, ShippingShop, tracking_event
from tests.support.staff_refunds import refund_as_staff


async def list_payments(ship: ShippingShop, order_id: UUID) -> list[tuple[str, str, int]]:
    query = "SELECT method, status, amount_minor FROM payments WHERE order_id = $1 ORDER BY tender_no"
    return [tuple(row) for row in await ship.fetch_rows(query, order_id)]


async def test_cash_over_several_shipments_is_captured_once_complete(ship: ShippingShop) -> None:
    """501 of 700 are due on delivery, split by the values of the shipments to the last minor unit."""
    order_id, shipments = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), ("b", 4, 0), cod=501)
    assert [(shipment.value_minor, shipment.cod_minor) for shipment in shipments] == [
        (300, 214),
        (200, 143),
        (200, 144),
    ]
    amounts = [request.cod.amount for request in ship.carriers["cheap"].booking_requests if request.cod]
    assert sorted(amounts) == [143, 144, 214]
    for number, shipment in enumerate(shipments):
        before = await list_payments(ship, order_id)
        assert before == [("balance", "captured", 199), ("cod", "authorised", 501)], number
        end = tracking_event("delivered", number - 9)
        await ship.apply_events(shipment.shipment_id, end)
        await ship.apply_events(shipment.shipment_id, end)
    assert await list_payments(ship, order_id) == [("balance", "captured", 199), ("cod", "captured", 501)]
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash:carrier:cheap'") == 501
    order_shipments = await ship.shipping.get_order_shipments(order_id, "user")
    assert sum(view.cash_to_collect.amount for view in order_shipments.shipments if view.cash_to_collect) == 501


async def test_cash_of_lost_shipment_is_collected_with_its_replacement(ship: ShippingShop) -> None:
    """The part of a lost shipment is collected with its replacement."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await ship.apply_events(second.shipment_id, tracking_event("lost", -8))
    assert await list_payments(ship, order_id) == [("cod", "authorised", 300)]
    replacement = await ship.fulfilment.repacking.reship(second.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(replacement)).cod_minor == second.cod_minor == 200
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    assert await list_payments(ship, order_id) == [("cod", "captured", 300)]
    assert await ship.order_status(order_id) == "delivered"


async def test_cash_collected_by_staff_is_not_collected_on_delivery(ship: ShippingShop) -> None:
    """Staff record cash before planning, or once no shipment collects it any more: once, in any order."""
    early = await ship.add_order(cod=300)
    await collect(ship, early)
    assert await ship.work_until_idle() == ["planned", "booked"]
    order_id, [shipment] = await ship.add_booked_order(cod=300)
    assert [request.cod is not None for request in ship.carriers["cheap"].booking_requests] == [False, True]
    for end in ("picked_up", "lost"):
        with pytest.raises(NotCollectable, match="carriers collect the cash"):
            await collect(ship, order_id)
        await ship.apply_events(shipment.shipment_id, tracking_event(end, -5 if end == "picked_up" else -4))
    await collect(ship, order_id)
    assert await list_payments(ship, order_id) == [("cod", "captured", 300)]
    replacement = await ship.fulfilment.repacking.reship(shipment.shipment_id, "lost", "dan")
    assert (await ship.get_shipment(replacement)).cod_minor == 0
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    await collect(ship, order_id)
    assert await ship.order_status(order_id) == "delivered"
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash:shop'") == 600


async def test_staff_and_planning_at_once_collect_cash_once(ship: ShippingShop) -> None:
    """Each order's cash is collected by staff or by its shipment, never by both or neither."""
    order_ids = [await ship.add_order(cod=300) for _ in range(20)]

    async def collect_all() -> int:
        done = 0
        for order_id in order_ids:
            try:
                await collect(ship, order_id)
                done += 1
            except NotCollectable:
                pass
        return done

    done, _ = await asyncio.gather(collect_all(), ship.work_until_idle())
    for order_id in order_ids:
        [(_, status, amount)] = await list_payments(ship, order_id)
        [shipment] = await ship.list_shipments(order_id)
        assert (status, shipment.cod_minor) in (("captured", 0), ("authorised", amount))
    assert await ship.fetch_value("SELECT count(*) FROM payments WHERE status = 'captured'") == done


async def collect(ship: ShippingShop, order_id: UUID) -> None:
    """Record as staff that the cash of an order was collected."""
    payment_id = await ship.fetch_value(
        "SELECT payment_id FROM payments WHERE order_id = $1 AND method = 'cod'", order_id
    )
    await ship.shop.payments.record_cash_collected(payment_id)


async def test_cash_order_goes_to_carrier_that_collects_cash(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order(cod=100, ship_to=[SHANGHAI])
    assert shipment.carrier == "cheap"
    assert shipment.carrier_choice is not None
    reasons = {candidate["carrier"]: candidate["reason"] for candidate in shipment.carrier_choice["candidates"]}
    assert reasons["byhand"] == "no cash on delivery there"
    _, [paid] = await ship.add_booked_order(ship_to=[SHANGHAI])
    assert paid.carrier == "byhand"


# Cash that is collected in parts.


async def read_payment(ship: ShippingShop, order_id: UUID) -> tuple[str, int, int, int]:
    """Return status, collected and captured cash of an order's payment, and its net amount."""
    shown = await ship.shop.payments.get(order_id, "user")
    [payment] = [payment for payment in shown.payments if payment.method == "cod"]
    return payment.status, payment.collected, payment.captured, shown.net_captured


async def balances(ship: ShippingShop, order_id: UUID) -> dict[str, int]:
    rows = await ship.fetch_rows(
        "SELECT account, sum(amount_minor)::bigint AS amount FROM ledger WHERE order_id = $1 GROUP BY account", order_id
    )
    return {row["account"]: row["amount"] for row in rows if row["amount"]}


async def refuse(ship: ShippingShop, shipment: Shipment) -> None:
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", -5))
    await ship.apply_events(shipment.shipment_id, tracking_event("returned_to_sender", -4))


@pytest.mark.parametrize("refused_first", [False, True])
async def test_cash_of_one_shipment_is_captured_once_the_other_is_cancelled(
    ship: ShippingShop, refused_first: bool
) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    if refused_first:
        await refuse(ship, second)
        await ship.work_until_idle()
        assert await read_payment(ship, order_id) == ("authorised", 0, 0, 0)
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    if not refused_first:
        assert await read_payment(ship, order_id) == ("authorised", 100, 0, 0), "shown and posted at once"
        assert await balances(ship, order_id) == {"cash:carrier:cheap": 100, "collected": -100}
        await refuse(ship, second)
        assert await read_payment(ship, order_id) == ("authorised", 100, 0, 0), "it may be sent again"
        await ship.work_until_idle()
    assert await read_payment(ship, order_id) == ("captured", 100, 100, 100)
    assert await balances(ship, order_id) == {"cash:carrier:cheap": 100, "orders": -100}
    [(_, status, amount)] = await list_payments(ship, order_id)
    assert (status, amount) == ("captured", 300)
    story = await ship.fetch_value("SELECT reason FROM order_events WHERE order_id = $1 AND kind = 'payment'", order_id)
    assert story == "1.00 CNY was paid by cod; the other 2.00 CNY are no longer due"
    with pytest.raises(NotCollectable, match="only 100 of 300"):
        await collect(ship, order_id)
    with pytest.raises(RefundExceedsCaptured, match="100 minor units"):
        await refund_as_staff(ship.shop, order_id, amount=101)
    shown = await refund_as_staff(ship.shop, order_id)
    assert (shown.net_captured, shown.payments[0].refunded) == (0, 100)


async def test_payment_is_closed_if_no_cash_was_collected(ship: ShippingShop) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    for shipment in (first, second):
        await refuse(ship, shipment)
        await ship.work_until_idle()
    assert await read_payment(ship, order_id) == ("closed", 0, 0, 0)


async def test_cash_that_is_missing_after_delivery_stays_due(ship: ShippingShop) -> None:
    """Nothing was cancelled, so the customer owes the rest; a parked job names it, and staff record it."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.fetch_rows("UPDATE shipments SET cod_minor = 150 WHERE shipment_id = $1", second.shipment_id)
    for shipment in (first, second):
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -9))
    assert await read_payment(ship, order_id) == ("authorised", 250, 0, 0)
    await ship.work_until_idle()
    assert "0.50 CNY of cash are missing" in await read_parked(ship, order_id)
    await collect(ship, order_id)
    await collect(ship, order_id)
    await ship.work_until_idle()
    assert await read_parked(ship, order_id) == ""
    assert await read_payment(ship, order_id) == ("captured", 300, 300, 300)
    assert await balances(ship, order_id) == {"cash:carrier:cheap": 250, "cash:shop": 50, "orders": -300}


async def read_parked(ship: ShippingShop, order_id: UUID) -> str:
    """Return why the job of an order waits for staff, or nothing."""
    query = "SELECT last_error FROM jobs WHERE queue = 'cancellations' AND subject = $1 AND parked"
    return await ship.fetch_value(query, order_id) or ""


@pytest.mark.parametrize("collected", [250, 0])
async def test_missing_cash_is_waived_once_by_staff(ship: ShippingShop, collected: int) -> None:
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    waivers = CashWaivers(ship.shop.db, ship.shop.clock, ship.shop.ids)
    payment_id = await ship.fetch_value("SELECT payment_id FROM payments WHERE order_id = $1", order_id)
    with pytest.raises(NotCollectable, match="none is missing until all of the order is delivered"):
        await waivers.waive(payment_id, "the driver lost it", "staff sue")
    for shipment, cash in ((first, min(100, collected)), (second, max(0, collected - 100))):
        await ship.fetch_rows("UPDATE shipments SET cod_minor = $2 WHERE shipment_id = $1", shipment.shipment_id, cash)
        await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -9))
    await ship.work_until_idle()
    assert await read_parked(ship, order_id)
    for _ in range(2):
        await waivers.waive(payment_id, "the driver lost it", "staff sue")
        await ship.work_until_idle()
        status = "captured" if collected else "closed"
        assert await read_payment(ship, order_id) == (status, collected, collected, collected)
        assert await read_parked(ship, order_id) == ""
    [grant] = await ship.fetch_rows(
        "SELECT amount_minor, actor, reason FROM refund_grants WHERE order_id = $1", order_id
    )
    assert tuple(grant) == (300 - collected, "staff sue", "the driver lost it")
    await ship.check_records()


async def test_staff_record_the_cash_that_cancelled_units_leave_due(ship: ShippingShop) -> None:
    """Not the amount of the payment: nobody brought so much, and it would be refunded."""
    order_id = await ship.add_order(("a", 1, 0), ("c", 2, 0), cod=300)
    units = [UnitsToCancel(0, 1)]
    await ship.cancellations.cancel(CancelRequest(order_id, "customer user", "user", "not wanted", units), [], 0)
    for _ in range(2):
        await collect(ship, order_id)
        await ship.work_until_idle()
        assert await read_payment(ship, order_id) == ("captured", 200, 200, 200)
        assert await balances(ship, order_id) == {"cash:shop": 200, "orders": -200}
    [shipment] = await ship.list_shipments(order_id)
    assert shipment.cod_minor == 0


async def test_cash_of_two_payments_is_captured_in_sequence_of_tenders(ship: ShippingShop) -> None:
    """Of 100 + 200 to collect, 100 + 0 are: the second payment is closed."""
    order_id, [first, second] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0), cod=300)
    await ship.fetch_rows(
        "WITH smaller AS (UPDATE payments SET amount_minor = 100 WHERE order_id = $1 RETURNING *) "
        "INSERT INTO payments (payment_id, order_id, user_id, plan_revision, tender_no, method, flow, amount_minor, "
        "currency, status, created_at, expires_at) SELECT gen_random_uuid(), order_id, user_id, 1, 1, 'cod', 'none', "
        "200, 'CNY', status, created_at, expires_at FROM smaller",
        order_id,
    )
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    await refuse(ship, second)
    await ship.work_until_idle()
    assert await list_payments(ship, order_id) == [("cod", "captured", 100), ("cod", "closed", 200)]
    assert await balances(ship, order_id) == {"cash:carrier:cheap": 100, "orders": -100}


async def test_cash_collected_for_cancelled_order_goes_back(ship: ShippingShop) -> None:
    """The carrier delivers a shipment of a cancelled order: the customer gets store credit."""
    order_id, [shipment] = await ship.add_booked_order(cod=300)
    await ship.fetch_rows("UPDATE payments SET status = 'closed', ended_at = now() WHERE order_id = $1", order_id)
    await ship.fetch_rows(
        "WITH cancelled AS (UPDATE orders SET status = 'cancelled', cancel_reason = 'lost', cancelled_at = now() "
        "WHERE order_id = $1 RETURNING order_id, status_seq) "
        "INSERT INTO order_events (order_id, seq, at, from_status, to_status, actor, reason) "
        "SELECT order_id, status_seq, now(), 'fulfilling', 'cancelled', 'staff sam', 'lost' FROM cancelled",
        order_id,
    )
    ship.unchecked_orders.add(order_id)  # a cancelled order has no shipment that is delivered
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", -1))
    assert await list_payments(ship, order_id) == [("cod", "captured", 300)]
    async with ship.shop.db.transaction() as connection:
        header = await orders.lock_order(connection, order_id)
        assert header is not None
        await locked_orders.update_order(connection, ship.shop.ids, header, datetime.now(UTC))
    assert await ship.fetch_value("SELECT kind FROM jobs WHERE queue = 'payments'") == "payment.update_order"
    assert await balances(ship, order_id) == {"cash:carrier:cheap": 300, "credit:user": -300}
