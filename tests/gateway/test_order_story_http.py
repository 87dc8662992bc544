"""An order tells its story over HTTP: its states beside the status, what came back, and all events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from commerce.kernel.clock import from_ms
from commerce.kernel.money import Money
from commerce.orders import store as orders
from commerce.orders.model import OrderStatus
from commerce.orders.store import StoryEvent
from commerce.payments.captures import record_findings
from commerce.payments.model import TenderInput
from commerce.payments.provider_port import ProviderPayment, ProviderRefund
from commerce.refunds.model import GrantLine
from commerce.reservations import store as reservations
from config.settings import Settings
from ops.services import CliServices
from tests.gateway.test_orders_http import OrderEventStream
from tests.support.gateway import TestGateway, bearer
from tests.support.refund_orders import LineOfOrder, RefundOrders
from tests.support.sales import ADDRESS
from tests.support.shipping_gateway import ShippingGateway, open_shipping_gateway
from tests.support.shipping_shop import tracking_event


@pytest.fixture
async def shipping_gateway(shop: CliServices, make_settings: Callable[..., Settings]) -> AsyncIterator[ShippingGateway]:
    async with open_shipping_gateway(shop, make_settings) as gateway:
        yield gateway


@pytest.fixture
def refunds(shop: CliServices) -> RefundOrders:
    return RefundOrders(shop)


async def read_order(gateway: TestGateway, order_id: UUID) -> dict[str, Any]:
    """Read an order as its customer; the list and staff must see the same states."""
    order: dict[str, Any] = (await gateway.call("GET", f"/v1/orders/{order_id}")).body
    names = ("payment_state", "delivery_state", "return_state")
    listed = {item["order_id"]: item for item in (await gateway.call("GET", "/v1/orders")).body["items"]}
    staff = await gateway.call("GET", f"/v1/admin/orders/{order_id}", user="sam", roles=["support"])
    for other in (listed[str(order_id)], staff.body["order"]):
        assert [other[name] for name in names] == [order[name] for name in names]
    return order


async def read_states(gateway: TestGateway, order_id: UUID) -> tuple[str, str, str, str]:
    order = await read_order(gateway, order_id)
    return order["status"], order["payment_state"], order["delivery_state"], order["return_state"]


async def read_to_end(stream: OrderEventStream) -> list[dict[str, Any]]:
    events = []
    try:
        while True:
            events.append((await stream.event())[1])
    except EOFError:
        return events


async def complete_refunds(shop: CliServices, order_id: UUID) -> None:
    """Complete the pending refunds of an order, as its providers report them."""
    async with shop.db.transaction() as connection:
        rows = await connection.fetch(
            "SELECT payment_id, refund_id FROM refunds WHERE order_id = $1 AND status = 'pending'", order_id
        )
        done = [ProviderRefund(row["payment_id"], row["refund_id"], "done") for row in rows]
        assert await record_findings(connection, shop.ids, done, datetime.now(UTC)) == ["refunded"] * len(rows)


async def test_each_shipment_changes_the_order_that_is_read(shipping_gateway: ShippingGateway) -> None:
    """The row of the order stays the same, and still no answer is old."""
    gateway, ship = shipping_gateway.gateway, shipping_gateway.ship
    order_id = await ship.add_order(("a", 2, 0), ("c", 1, 1), ship_to=(ADDRESS, ADDRESS))
    assert await read_states(gateway, order_id) == ("paid", "paid", "unshipped", "none")
    await ship.work_until_idle()
    first, second = await ship.list_shipments(order_id)
    for number, (shipment, code, states) in enumerate(
        [
            (first, "picked_up", ("fulfilling", "paid", "partly_shipped", "none")),
            (first, "delivered", ("fulfilling", "paid", "partly_delivered", "none")),
            (second, "picked_up", ("shipped", "paid", "partly_delivered", "none")),
            (second, "delivered", ("delivered", "paid", "delivered", "none")),
        ]
    ):
        await ship.apply_events(shipment.shipment_id, tracking_event(code, number + 1))
        assert await read_states(gateway, order_id) == states
    lines = (await read_order(gateway, order_id))["lines"]
    assert [(line["shipped"], line["delivered"], line["cancelled"]) for line in lines] == [(2, 2, 0), (1, 1, 0)]


async def test_refund_shows_as_requested_and_then_as_done(gateway: TestGateway, refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(4, 100)], [("alipay", 300), ("balance", 100)])
    order = await read_order(gateway, order_id)
    assert (order["payment_state"], order["refunds"]) == ("paid", None)
    await refunds.grant(order_id, lines=[GrantLine(0, 0, 2)])
    order = await read_order(gateway, order_id)
    assert order["payment_state"] == "partly_refunded", "store credit is refunded at once"
    assert order["refunds"] == {
        "requested": 200,
        "done": 50,
        "parts": [
            {"method": "alipay", "way": "provider", "requested": 150, "done": 0},
            {"method": "balance", "way": "store_credit", "requested": 50, "done": 50},
        ],
    }
    await complete_refunds(refunds.shop, order_id)
    assert (await read_order(gateway, order_id))["refunds"]["done"] == 200
    await refunds.grant(order_id, lines="rest")
    await complete_refunds(refunds.shop, order_id)
    order = await read_order(gateway, order_id)
    assert (order["payment_state"], order["refunds"]["done"]) == ("refunded", 400)


async def test_first_of_two_payments_is_in_the_story(gateway: TestGateway, refunds: RefundOrders) -> None:
    """The order still awaits payment, and shows that a part is paid."""
    order_id, shop = await refunds.add([LineOfOrder(1, 100)], []), refunds.shop
    started = await shop.payments.start(order_id, "user", [TenderInput("balance", 60), TenderInput("balance", 40)])
    assert (await read_order(gateway, order_id))["payment_state"] == "unpaid"
    async with shop.db.transaction() as connection:
        paid = ProviderPayment(started.payments[0].payment_id, "captured", Money(60, "CNY"), None, datetime.now(UTC))
        await record_findings(connection, shop.ids, [paid], datetime.now(UTC))
    assert await read_states(gateway, order_id) == ("awaiting_payment", "partly_paid", "unshipped", "none")
    staff = await gateway.call("GET", f"/v1/admin/orders/{order_id}", user="sam", roles=["support"])
    event = staff.body["events"][-1]
    assert (event["kind"], event["status"], event["details"]["amount"]) == ("payment", "awaiting_payment", 60)
    assert event["reason"] == "0.60 CNY was paid by balance"


async def test_cash_collected_by_hand_is_paid_at_once(gateway: TestGateway, refunds: RefundOrders) -> None:
    order_id = await refunds.add([LineOfOrder(2, 100)], [("alipay", 150), ("cod", 50)])
    assert (await read_order(gateway, order_id))["payment_state"] == "partly_paid"
    await refunds.collect_cash(order_id)
    assert (await read_order(gateway, order_id))["payment_state"] == "paid"


async def test_stream_of_cancelled_order_ends_with_its_money(gateway: TestGateway, refunds: RefundOrders) -> None:
    """The final status is not the end while a refund is on its way; afterwards nothing is left to send."""
    order_id, shop = await refunds.add([LineOfOrder(1, 100)], [("alipay", 100)]), refunds.shop
    await refunds.grant(order_id, lines=[GrantLine(0, 0, 1)], kind="cancellation", reason="it was lost")
    await cancel(shop, order_id)
    assert await read_states(gateway, order_id) == ("cancelled", "paid", "none", "none")
    url = f"{gateway.base}/v1/orders/{order_id}/events"
    async with AsyncExitStack() as stack:
        response = await stack.enter_async_context(gateway.client.get(url, headers=bearer(gateway.settings)))
        stream = OrderEventStream(response)
        events = [(await stream.event())[1] for _ in range(5)]
        assert [(event["status"], event.get("kind", "status")) for event in events] == [
            ("accepted", "status"),
            ("awaiting_payment", "status"),
            ("paid", "status"),
            ("paid", "refund"),
            ("cancelled", "status"),
        ]
        assert "it was lost" in events[3]["reason"]
        assert events[3]["details"]["amount"] == 100
        await complete_refunds(shop, order_id)
        assert {event["kind"] for event in await read_to_end(stream)} <= {"refund"}
    over = await gateway.call("GET", f"/v1/orders/{order_id}/events", headers={"Last-Event-ID": "30000"})
    assert over.status == 204
    assert await read_states(gateway, order_id) == ("cancelled", "refunded", "none", "none")


async def test_stream_of_order_delivered_and_cancelled_in_parts_ends(shipping_gateway: ShippingGateway) -> None:
    """One shipment is delivered, the other stopped and refunded."""
    gateway, ship = shipping_gateway.gateway, shipping_gateway.ship
    order_id, [first, _] = await ship.add_booked_order(("a", 1, 0), ("c", 2, 1), ship_to=(ADDRESS, ADDRESS))
    await ship.apply_events(first.shipment_id, tracking_event("delivered", -9))
    answer = await gateway.call("POST", f"/v1/orders/{order_id}/cancel")
    assert answer.status == 202, answer.text
    await ship.work_until_idle()
    assert await read_states(gateway, order_id) == ("delivered", "partly_refunded", "delivered", "none")
    order = await read_order(gateway, order_id)
    assert [(line["delivered"], line["cancelled"]) for line in order["lines"]] == [(1, 0), (0, 2)]
    assert order["refunds"]["done"] == 200
    await ship.make_all_due()
    await ship.work_until_idle()
    url = f"{gateway.base}/v1/orders/{order_id}/events"
    async with gateway.client.get(url, headers=bearer(gateway.settings)) as response:
        events = await read_to_end(OrderEventStream(response))
    assert {event.get("kind", "status") for event in events} >= {"status", "cancellation", "refund"}
    assert events[-1]["status"] == "completed"
    over = await gateway.call("GET", f"/v1/orders/{order_id}/events", headers={"Last-Event-ID": "30000"})
    assert over.status == 204


async def test_open_case_and_returned_units_are_states_of_the_order(
    gateway: TestGateway, refunds: RefundOrders, shipping_gateway: ShippingGateway
) -> None:
    ship = shipping_gateway.ship
    order_id = await ship.add_order(("a", 2, 0))
    await ship.work_until_idle()
    [shipment] = await ship.list_shipments(order_id)
    await ship.apply_events(shipment.shipment_id, tracking_event("delivered", 1))
    case_id = uuid4()
    await refunds.fetch(
        "INSERT INTO cases (case_id, order_id, user_id, kind, items_back, items_state, is_opened, reason_code, "
        "customer_text, policy, freight_payer, currency, waits_for, due_at, idempotency_key, body_digest, created_by, "
        "created_at) VALUES ($1, $2, 'user', 'return', true, 'expected', false, 'other', '', '{}', 'shop', 'CNY', "
        "'staff', now() + interval '1 day', 'k', decode(repeat('00', 32), 'hex'), 'customer user', now())",
        *(case_id, order_id),
    )
    await insert_case_event(refunds.shop, order_id)
    assert (await read_order(gateway, order_id))["return_state"] == "requested"
    await refunds.fetch(
        "WITH event AS (INSERT INTO case_events (case_id, version, at, from_status, to_status, actor, reason) "
        "VALUES ($1, 2, now(), 'requested', 'approved', 'staff sam', 'fine')) "
        "UPDATE cases SET status = 'approved', amount_minor = 100, freight_minor = 0, fee_minor = 0, "
        "money_state = 'fixed', version = 2 WHERE case_id = $1",
        case_id,
    )
    await insert_case_event(refunds.shop, order_id)
    assert (await read_order(gateway, order_id))["return_state"] == "in_progress"
    for returned, state in ((1, "partly_returned"), (2, "returned")):
        await refunds.fetch("UPDATE fulfilment_lines SET returned = $2 WHERE order_id = $1", order_id, returned)
        await refunds.fetch("DELETE FROM case_events")
        await refunds.fetch("DELETE FROM cases")
        await insert_case_event(refunds.shop, order_id)
        order = await read_order(gateway, order_id)
        assert (order["return_state"], order["lines"][0]["returned"]) == (state, returned)


async def insert_case_event(shop: CliServices, order_id: UUID) -> None:
    """Insert an event of a case, as every change of one does."""
    async with shop.db.transaction() as connection:
        await orders.lock_order(connection, order_id)
        await orders.insert_story_events(
            connection, [StoryEvent(order_id, "case", "a step")], from_ms(shop.clock.now_ms()), "test"
        )


async def cancel(shop: CliServices, order_id: UUID) -> None:
    """Cancel a paid order in the database, as the last step of a cancellation."""
    async with shop.db.transaction() as connection:
        order = await orders.lock_order(connection, order_id)
        assert order is not None
        assert order.status is OrderStatus.PAID
        now = from_ms(shop.clock.now_ms())
        await reservations.cancel_sold(connection, order, now, "lost", "test", "it was lost")
