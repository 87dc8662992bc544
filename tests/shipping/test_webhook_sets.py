"""Webhooks and polls that arrive together share a transaction, with the effects that they have alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID

import pytest
from asyncpg import RaiseError

from commerce.audit import store as audit
from commerce.kernel.address import Address
from commerce.kernel.clock import from_ms
from commerce.shipping import shipment_status
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from commerce.shipping.model import Shipment
from commerce.shipping.service import Shipping
from commerce.shipping.tracking import TrackingReport, by_key
from config.settings import Settings
from tests.support.refusing_rows import refuse_updates
from tests.support.sales import ADDRESS, eventually
from tests.support.shipping_shop import ShippingShop, tracking_event

_TRANSACTIONS = "SELECT count(DISTINCT xmin::text) FROM {table}"
_WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
_STATE = """
SELECT orders.status AS order_status, shipments.status, parcel_no, last_event_at, shipments.handed_over_at, ended_at,
       cod_collected_at, after_cancel, anomaly_at IS NOT NULL AS has_anomaly, event_seq,
       fulfilments.handed_over_at IS NOT NULL AS is_handed_over, fulfilments.delivered_at IS NOT NULL AS is_delivered,
       ARRAY(SELECT (seq, at, source, actor, from_status, to_status, code, is_unknown_code, contradicts_history, place,
                     text, event_key)::text
             FROM shipment_events AS event WHERE event.shipment_id = shipments.shipment_id AND source = 'webhook'
             ORDER BY seq) AS events,
       ARRAY(SELECT (seq, from_status, to_status, actor, reason)::text FROM order_events AS event
             WHERE event.order_id = orders.order_id ORDER BY seq) AS order_events,
       ARRAY(SELECT (line_no, planned, shipped, delivered)::text FROM fulfilment_lines AS line
             WHERE line.order_id = orders.order_id ORDER BY line_no) AS units,
       ARRAY(SELECT (method, status)::text FROM payments AS payment WHERE payment.order_id = orders.order_id
             ORDER BY tender_no) AS payments,
       ARRAY(SELECT (queue, kind)::text FROM jobs WHERE subject IN (orders.order_id, shipments.shipment_id)
             ORDER BY queue) AS tasks
FROM orders JOIN shipments USING (order_id) JOIN fulfilments USING (order_id)
WHERE orders.order_id = $1 ORDER BY parcel_no
"""
PICKED_UP, IN_TRANSIT = tracking_event("picked_up", -90), tracking_event("in_transit", -60)
DELIVERED, RETURNED = tracking_event("delivered", -30), tracking_event("returned_to_sender", -20)
LOST, UNKNOWN = tracking_event("lost", -10), tracking_event(None, -50, code="X99", is_unknown_code=True)


def update(shipment: Shipment, *events: TrackingEvent) -> ShipmentUpdate:
    assert shipment.carrier is not None
    assert shipment.tracking_no is not None
    return ShipmentUpdate(shipment.carrier, shipment.tracking_no, list(events))


@dataclass
class Cases:
    """Webhooks in the sequence of their arrival, with their expected results and their orders."""

    name: str
    webhooks: list[CarrierWebhook] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    order_ids: list[UUID] = field(default_factory=list)

    def add(self, id_: str, result: str, *updates: ShipmentUpdate) -> None:
        self.webhooks.append(CarrierWebhook(f"{self.name}-{id_}", list(updates)))
        self.expected.append(result)

    async def add_order(self, ship: ShippingShop, *lines: tuple[str, int, int], cod: int = 0) -> list[Shipment]:
        order_id, shipments = await ship.add_booked_order(*lines, cod=cod)
        self.order_ids.append(order_id)
        return shipments

    async def read_state(self, ship: ShippingShop) -> list[dict[str, Any]]:
        """Read everything that the webhooks may have changed of the orders."""
        rows = [row for order_id in self.order_ids for row in await ship.fetch_rows(_STATE, order_id)]
        query = "SELECT webhook_id, result, cardinality(shipment_ids) AS shipments FROM carrier_webhooks "
        query += "WHERE starts_with(webhook_id, $1) ORDER BY webhook_id"
        webhooks = [
            {**row, "webhook_id": row["webhook_id"].removeprefix(self.name)}
            for row in await ship.fetch_rows(query, self.name)
        ]
        return [dict(row) for row in rows] + webhooks


async def handle(ship: Shipping | ShippingShop, webhook: CarrierWebhook) -> str:
    shipping = ship.shipping if isinstance(ship, ShippingShop) else ship
    return (await shipping.handle_webhook("cheap", webhook, b"{}")).result


async def count_transactions(ship: ShippingShop, table: str) -> int:
    """Count the transactions that wrote the rows of a table last."""
    return int(await ship.fetch_value(_TRANSACTIONS.format(table=table)))


async def test_fifty_webhooks_at_once_take_a_handful_of_transactions(ship: ShippingShop) -> None:
    shipments = [(await ship.add_booked_order(user=f"u{number}"))[1][0] for number in range(50)]
    webhooks = [
        CarrierWebhook(f"n-{number}", [update(shipment, PICKED_UP, IN_TRANSIT)])
        for number, shipment in enumerate(shipments)
    ]
    results = await asyncio.gather(*(handle(ship, webhook) for webhook in webhooks))
    assert Counter(results) == {"status_changed": 50}
    assert await count_transactions(ship, "carrier_webhooks") <= 3
    assert {row["status"] for row in await ship.fetch_rows("SELECT status FROM shipments")} == {"in_transit"}
    assert {row["status"] for row in await ship.fetch_rows("SELECT status FROM orders")} == {"shipped"}
    await ship.check_records()


async def add_cases(ship: ShippingShop, name: str) -> Cases:
    """Make webhooks of every kind."""
    cases = Cases(name)
    [plain] = await cases.add_order(ship)
    cases.add("valid", "status_changed", update(plain, PICKED_UP, UNKNOWN))
    [same] = await cases.add_order(ship)
    cases.add("same", "status_changed", update(same, IN_TRANSIT))
    cases.add("same", "duplicate", update(same, IN_TRANSIT))
    cases.add("equal", "unchanged", update(same, IN_TRANSIT))
    cases.add("late", "recorded", update(same, PICKED_UP))
    [own] = await cases.add_order(ship)
    foreign = ShipmentUpdate("cheap", "cheap-000000", [DELIVERED])
    cases.add("foreign", "unknown_tracking_no", update(own, PICKED_UP), foreign)
    cases.add("foreign", "unknown_tracking_no", update(own, PICKED_UP), foreign)
    first, second = await cases.add_order(ship, ("a", 1, 0), ("c", 1, 0))
    cases.add("both", "status_changed", update(first, PICKED_UP), update(second, PICKED_UP))
    first, second = await cases.add_order(ship, ("a", 1, 0), ("c", 1, 0), cod=200)
    cases.add("cash-1", "status_changed", update(first, DELIVERED))
    cases.add("cash-2", "status_changed", update(second, DELIVERED))
    [returned] = await cases.add_order(ship)
    cases.add("returned", "status_changed", update(returned, RETURNED))
    [shuffled] = await cases.add_order(ship, ("a", 3, 0))
    cases.add("shuffled-3", "status_changed", update(shuffled, DELIVERED))
    cases.add("shuffled-1", "recorded", update(shuffled, PICKED_UP))
    cases.add("shuffled-2", "recorded", update(shuffled, IN_TRANSIT, LOST))
    # All units are on their way for a moment, before one shipment is lost: the order was shipped.
    lost, kept = await cases.add_order(ship, ("a", 1, 0), ("c", 1, 0))
    cases.add("lost-1", "status_changed", update(lost, PICKED_UP))
    cases.add("lost-2", "status_changed", update(kept, PICKED_UP))
    cases.add("lost-3", "status_changed", update(lost, LOST))
    [moved] = await cases.add_order(ship)
    await ship.fulfilment.redirect(moved.shipment_id, Address(**{**ADDRESS, "line": "Elsewhere 1"}), "moved", "dan")
    await ship.work_until_idle()
    rebooked = await ship.get_shipment(moved.shipment_id)
    assert rebooked.tracking_no != moved.tracking_no
    cases.add("replaced", "recorded", update(moved, PICKED_UP))
    cases.add("current", "status_changed", update(rebooked, IN_TRANSIT))
    cases.add("empty", "unchanged")
    return cases


async def handle_all(ship: ShippingShop, cases: Cases, *, together: bool) -> list[str]:
    """Handle webhooks at once or one after the other, and return their results."""
    if together:
        return list(await asyncio.gather(*(handle(ship, webhook) for webhook in cases.webhooks)))
    return [await handle(ship, webhook) for webhook in cases.webhooks]


async def test_mixed_webhooks_together_have_the_effects_they_have_alone(ship: ShippingShop) -> None:
    states = []
    for name, together in (("alone", False), ("together", True)):
        cases = await add_cases(ship, name)
        assert await handle_all(ship, cases, together=together) == cases.expected
        states.append(await cases.read_state(ship))
        if together:
            query = "SELECT count(DISTINCT xmin::text) FROM carrier_webhooks WHERE starts_with(webhook_id, 'together')"
            assert await ship.fetch_value(query) == 1
    alone, together_state = states
    assert together_state == alone
    assert {row["order_status"] for row in alone if "order_status" in row} == {"shipped", "delivered"}
    assert [row["payments"] for row in alone if row.get("cod_collected_at")] == [["(cod,captured)"]] * 2
    await ship.check_records()


@pytest.mark.parametrize("sqlstate", ["P0001", "40P01"], ids=["defect", "deadlock"])
async def test_webhook_that_cannot_be_applied_costs_only_itself(ship: ShippingShop, sqlstate: str) -> None:
    """Other shipments of the webhook advance, and so do all other webhooks of the set."""
    orders = [await ship.add_booked_order(("a", 1, 0), ("c", 1, 0), user=f"u{number}") for number in range(6)]
    failing_id, [failing, _] = orders[2]
    webhooks = [
        CarrierWebhook(f"n-{number}", [update(shipment, PICKED_UP) for shipment in shipments])
        for number, (_, shipments) in enumerate(orders)
    ]
    async with ship.shop.db.connection() as connection:
        condition = f"OLD.shipment_id = '{failing.shipment_id}'"
        await refuse_updates(connection, "shipments", condition, sqlstate=sqlstate)
    results = await asyncio.gather(*(handle(ship, webhook) for webhook in webhooks))
    assert results == ["status_changed"] * 2 + ["not_stored"] + ["status_changed"] * 3
    assert [shipment.status for shipment in await ship.list_shipments(failing_id)] == ["booked", "picked_up"]
    async with ship.shop.db.connection() as connection:
        await connection.execute("DROP TRIGGER refuse_some ON shipments")
    assert await handle(ship, webhooks[2]) == "status_changed"
    assert {row["status"] for row in await ship.fetch_rows("SELECT status FROM orders")} == {"shipped"}
    await ship.check_records()


async def test_log_of_failed_webhook_quotes_no_row(ship: ShippingShop, caplog: pytest.LogCaptureFixture) -> None:
    """The row has the customer's address."""
    _, [shipment] = await ship.add_booked_order()
    async with ship.shop.db.connection() as connection:
        await connection.execute("ALTER TABLE shipments ADD CONSTRAINT never CHECK (status <> 'picked_up')")
    assert await handle(ship, CarrierWebhook("n-1", [update(shipment, PICKED_UP)])) == "not_stored"
    assert 'violates check constraint "never"' in caplog.text
    assert "Failing row" not in caplog.text


async def test_large_webhook_has_its_own_transaction(ship: ShippingShop) -> None:
    """A hundred of them would be one transaction of many seconds, and fail together."""
    shipments = [(await ship.add_booked_order(user=f"u{number}"))[1][0] for number in range(3)]
    notes = [tracking_event(None, -minutes) for minutes in range(200)]
    webhooks = [
        CarrierWebhook(f"n-{number}", [update(shipment, PICKED_UP, *notes[: len(notes) * (number == 1)])])
        for number, shipment in enumerate(shipments)
    ]
    results = await asyncio.gather(*(handle(ship, webhook) for webhook in webhooks))
    assert results == ["status_changed"] * 3
    rows = await ship.fetch_rows("SELECT xmin::text FROM carrier_webhooks ORDER BY webhook_id")
    small, large, other_small = [row["xmin"] for row in rows]
    assert small == other_small != large


async def test_webhook_with_failing_commit_raises_for_its_caller_only(ship: ShippingShop) -> None:
    shipments = [(await ship.add_booked_order())[1][0] for _ in range(3)]
    async with ship.shop.db.connection() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'this commit is refused'; END $$; "
            "CREATE CONSTRAINT TRIGGER refuse_commit AFTER UPDATE ON shipments DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW WHEN (OLD.shipment_id = '{shipments[1].shipment_id}') EXECUTE FUNCTION refuse_commit()"
        )
    webhooks = [CarrierWebhook(f"n-{at}", [update(each, PICKED_UP)]) for at, each in enumerate(shipments)]
    results = await asyncio.gather(*(handle(ship, webhook) for webhook in webhooks), return_exceptions=True)
    assert [results[0], type(results[1]), results[2]] == ["status_changed", RaiseError, "status_changed"]


async def test_two_gateways_apply_equal_webhooks_once_without_deadlock(ship: ShippingShop, settings: Settings) -> None:
    """Each gateway gets the webhooks of the same orders, some of them equal, in a sequence of its own."""
    shipments = [
        shipment
        for number in range(20)
        for shipment in (await ship.add_booked_order(("a", 1, 0), ("c", 1, 0), user=f"u{number}"))[1]
    ]
    gateways = [Shipping(ship.shop.db, ship.shop.clock, settings.shipping) for _ in range(2)]
    shuffle = random.Random(3).shuffle
    for number, event in enumerate((PICKED_UP, IN_TRANSIT, DELIVERED)):
        webhooks = [CarrierWebhook(f"n-{number}-{at}", [update(each, event)]) for at, each in enumerate(shipments)]
        calls: list[Awaitable[str]] = []
        for gateway in gateways:
            shuffle(webhooks)
            calls += [handle(gateway, webhook) for webhook in webhooks]
        results = Counter(await asyncio.gather(*calls))
        assert results["status_changed"] == len(shipments)
        assert results.keys() <= {"status_changed", "unchanged", "duplicate"}
    assert await ship.fetch_value("SELECT count(*) FROM shipment_events WHERE code IS NOT NULL") == 3 * len(shipments)
    assert {row["status"] for row in await ship.fetch_rows("SELECT status FROM orders")} == {"delivered"}
    await ship.check_records()


async def test_webhook_of_locked_order_keeps_no_other_waiting(ship: ShippingShop) -> None:
    shipments = [(await ship.add_booked_order(user=f"u{number}"))[1][0] for number in range(5)]
    webhooks = [CarrierWebhook(f"n-{at}", [update(each, PICKED_UP)]) for at, each in enumerate(shipments)]
    async with ship.shop.db.transaction() as connection:
        await connection.execute("SELECT FROM orders WHERE order_id = $1 FOR UPDATE", shipments[0].order_id)
        locked = asyncio.create_task(handle(ship, webhooks[0]))
        others = await asyncio.gather(*(handle(ship, webhook) for webhook in webhooks[1:]))
        assert (others, locked.done()) == (["status_changed"] * 4, False)
    assert await locked == "status_changed"


async def test_webhook_that_waited_is_not_dated_before_the_change_that_it_waited_for(
    ship: ShippingShop, settings: Settings
) -> None:
    """The clocks of two machines differ, too."""
    order_id, [shipment] = await ship.add_booked_order()
    async with ship.shop.db.transaction() as connection:
        locked = await shipment_status.lock_shipment(connection, shipment.shipment_id)
        waiting = asyncio.create_task(handle(ship, CarrierWebhook("n-1", [update(shipment, DELIVERED)])))
        await eventually(lambda: ship.fetch_value(_WAITING))
        report = TrackingReport(shipment.shipment_id, by_key([PICKED_UP]), "query", "cheap")
        later = from_ms(ship.shop.clock.now_ms()) + timedelta(seconds=5)
        orders = {shipment.shipment_id: locked}
        await shipment_status.apply_reports(connection, orders, [report], later, settings.shipping)
    assert await waiting == "status_changed"
    assert await ship.order_status(order_id) == "delivered"
    async with audit.open_order_snapshot(ship.shop.db) as connection:
        assert await audit.list_violations(connection, "broken_histories", [order_id]) == []


async def poll_all(ship: ShippingShop) -> list[str]:
    """Work on all polls at once. Returns their results, sorted by shipment."""
    await ship.make_all_due()
    return list(await asyncio.gather(*map(ship.work_on, sorted(await ship.claim()))))


async def set_events(ship: ShippingShop, shipments: Sequence[Shipment], *events: TrackingEvent) -> None:
    for shipment in shipments:
        assert shipment.tracking_no is not None
        ship.carriers["cheap"].tracking[shipment.tracking_no] = list(events)


async def test_polls_with_new_events_share_a_transaction(ship: ShippingShop) -> None:
    shipments = [(await ship.add_booked_order(user=f"u{number}"))[1][0] for number in range(20)]
    await set_events(ship, shipments, PICKED_UP)
    assert Counter(await poll_all(ship)) == {"status_changed": 20}
    query = "SELECT count(DISTINCT xmin::text) FROM shipment_events WHERE source = 'query'"
    assert await ship.fetch_value(query) <= 3
    assert Counter(await poll_all(ship)) == {"unchanged": 20}
    await ship.check_records()


async def test_poll_that_cannot_be_applied_costs_only_itself(ship: ShippingShop) -> None:
    shipments = sorted(
        [(await ship.add_booked_order(user=f"u{number}"))[1][0] for number in range(3)],
        key=attrgetter("shipment_id"),
    )
    await set_events(ship, shipments, PICKED_UP)
    async with ship.shop.db.connection() as connection:
        await refuse_updates(connection, "shipments", f"OLD.shipment_id = '{shipments[1].shipment_id}'")
    assert await poll_all(ship) == ["status_changed", "error", "status_changed"]
