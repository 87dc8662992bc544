"""Tracking events that come twice, shuffled, late, contradictory or with unknown codes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from asyncpg import Record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commerce.shipping import tracking
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.model import TRANSITIONS, ShipmentStatus
from tests.support.sales import eventually
from tests.support.shipping_shop import ShippingShop, tracking_event

JOURNEY = [
    tracking_event("picked_up", -600),
    tracking_event(None, -590, code="weighed"),
    tracking_event("in_transit", -500, text="left Hangzhou"),
    tracking_event("in_transit", -400, text="came to Shanghai"),
    tracking_event(None, -300, code="X99", is_unknown_code=True),
    tracking_event("out_for_delivery", -200),
    tracking_event(None, -150, code="nobody_home"),
    tracking_event("out_for_delivery", -100, text="a second try"),
]
ENDS = [tracking_event("delivered", -10), tracking_event("returned_to_sender", -10), tracking_event("lost", -10)]
tracking_event_inputs = st.tuples(
    st.lists(st.sampled_from(range(len(JOURNEY) + 1)), min_size=1, max_size=12).flatmap(
        lambda first: st.permutations([*range(len(JOURNEY) + 1), *first])
    ),
    st.lists(st.integers(1, 5), max_size=6),
)


def split(events: list[TrackingEvent], sizes: Iterable[int]) -> list[list[TrackingEvent]]:
    """Split events into parts of these sizes, and the rest."""
    parts, at = [], 0
    for size in [*sizes, len(events)]:
        parts.append(events[at : at + size])
        at += size
    return [part for part in parts if part]


class RolledBack(Exception):
    """Undoes a case, so that the next one begins with the same shipment."""


async def test_events_in_any_order_and_number_end_in_same_state(ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 3, 0), cod=300)
    expected: dict[str, Record] = {}

    async def apply_case(end: TrackingEvent, order: list[int], sizes: list[int]) -> Record:
        events = [*JOURNEY, end]
        rows: list[Record] = []
        try:
            async with ship.shop.db.transaction() as connection:
                for part in split([events[number] for number in order], sizes):
                    await ship.shipping.apply_tracking_events(
                        connection, shipment.shipment_id, part, "webhook", "test", datetime.now(UTC)
                    )
                rows = await connection.fetch(_FINAL_STATE, shipment.shipment_id)
                raise RolledBack
        except RolledBack:
            return rows[0]

    loop = asyncio.get_running_loop()

    @given(tracking_event_inputs)
    @settings(max_examples=14, suppress_health_check=list(HealthCheck), deadline=None)
    def check_case(case: tuple[list[int], list[int]]) -> None:
        for end in ENDS:
            state = asyncio.run_coroutine_threadsafe(apply_case(end, *case), loop).result(20)
            assert state == expected.setdefault(end.code, state)

    await asyncio.to_thread(check_case)
    assert {end: (row["status"], row["order_status"], row["anomalies"]) for end, row in expected.items()} == {
        "delivered": ("delivered", "delivered", 1),
        "returned_to_sender": ("returned_to_sender", "shipped", 1),
        "lost": ("lost", "shipped", 1),
    }
    assert (await ship.get_shipment(shipment.shipment_id)).status == "booked"
    assert await ship.order_status(order_id) == "fulfilling"


_FINAL_STATE = """
SELECT shipments.status, orders.status AS order_status, planned, shipped, delivered, last_event_at,
       cod_collected_at IS NOT NULL AS collected, payments.status AS payment,
       (SELECT count(*) FROM shipment_events AS event
        WHERE event.shipment_id = $1 AND (is_unknown_code OR contradicts_history)) AS anomalies,
       (SELECT count(*) FROM shipment_events AS event
        WHERE event.shipment_id = $1 AND code IS NOT NULL) AS events
FROM shipments JOIN orders USING (order_id) JOIN fulfilment_lines USING (order_id) JOIN payments USING (order_id)
WHERE shipment_id = $1
"""


def test_events_take_allowed_steps_only() -> None:
    for status in ShipmentStatus:
        for to in ShipmentStatus:
            path = [status, *tracking.steps_between(status, to)]
            assert set(pairwise(path)) <= TRANSITIONS, (status, to)


async def has_times(ship: ShippingShop, order_id: UUID) -> tuple[bool, bool]:
    """Return whether the order has a time at which all was handed over, and at which all was delivered."""
    query = "SELECT handed_over_at IS NOT NULL, delivered_at IS NOT NULL FROM fulfilments WHERE order_id = $1"
    [row] = await ship.fetch_rows(query, order_id)
    return tuple(row)  # type: ignore[return-value]


async def test_events_until_delivery_are_applied_once(ship: ShippingShop) -> None:
    """Each step is taken once. A skipped step is inserted; a late event changes nothing."""
    order_id, [shipment] = await ship.add_booked_order(("a", 3, 0))
    id_, in_transit = shipment.shipment_id, tracking_event("in_transit", -30)
    assert (await ship.apply_events(id_, in_transit)).result == "status_changed"
    assert await has_times(ship, order_id) == (True, False)
    assert await ship.order_status(order_id) == "shipped"
    assert (await ship.apply_events(id_, in_transit, in_transit)).result == "unchanged"
    assert (await ship.apply_events(id_, tracking_event("picked_up", -60))).result == "recorded"
    assert (await ship.apply_events(id_, tracking_event("delivered", -1))).result == "status_changed"
    assert await has_times(ship, order_id) == (True, True)
    assert await ship.order_status(order_id) == "delivered"
    assert (await ship.list_event_texts(id_))[1:] == [
        "picked up, implied by the event after it",
        "it is in_transit",
        "it is picked_up",
        "out for delivery, implied by the event after it",
        "it is delivered",
    ]
    shipment = await ship.get_shipment(id_)
    assert (shipment.handed_over_at, await ship.find_task(id_)) == (in_transit.at, None)
    details = await ship.fulfilment.get(id_)
    assert [event.status for event in details.events if event.text == "it is picked_up"] == [None]
    assert await ship.work_until_idle() == []
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["completed"]
    assert await ship.order_status(order_id) == "completed"


async def test_order_advances_with_its_last_shipment(ship: ShippingShop) -> None:
    order_id, shipments = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    first, second = (shipment.shipment_id for shipment in shipments)
    await ship.apply_events(first, tracking_event("delivered", -9))
    assert await has_times(ship, order_id) == (False, False)
    assert await ship.order_status(order_id) == "fulfilling"
    await ship.apply_events(second, tracking_event("picked_up", -5))
    assert await has_times(ship, order_id) == (True, False)
    assert await ship.order_status(order_id) == "shipped"
    await ship.apply_events(second, tracking_event("lost", -4))
    assert await ship.list_worklist("undelivered") == {second}
    replacement = await ship.fulfilment.repacking.reship(second, "lost", "dan")
    assert await ship.list_worklist("undelivered") == set()
    await ship.work_until_idle()
    await ship.apply_events(replacement, tracking_event("delivered", -1))
    assert await ship.order_status(order_id) == "delivered"


async def test_contradictory_events_are_anomalies_and_change_nothing(ship: ShippingShop) -> None:
    """A second final status and transport after the first are anomalies; the first final status stays."""
    _, [shipment] = await ship.add_booked_order()
    id_ = shipment.shipment_id
    await ship.apply_events(id_, tracking_event("delivered", -60))
    assert await ship.list_worklist("anomalies") == set()
    assert (
        await ship.apply_events(id_, tracking_event("in_transit", -90), tracking_event("delivered", -50))
    ).result == "recorded"
    assert await ship.list_worklist("anomalies") == set(), "late events, and the same final status again"
    await ship.apply_events(id_, tracking_event("in_transit", -30))
    assert await ship.list_worklist("anomalies") == {id_}, "it moved after its delivery"
    await ship.fulfilment.resolve(id_, "the carrier mixed up two shipments", "dan")
    assert await ship.list_worklist("anomalies") == set()
    await ship.apply_events(id_, tracking_event("lost", -20))
    assert await ship.list_worklist("anomalies") == {id_}, "a new anomaly"
    assert (await ship.get_shipment(id_)).status == "delivered"
    # A status that only we may set changes nothing either.
    _, [other] = await ship.add_booked_order()
    for status in ("cancelled", "planned", "booked"):
        assert (await ship.apply_events(other.shipment_id, tracking_event(status))).result == "recorded"
    assert (await ship.get_shipment(other.shipment_id)).status == "booked"


async def test_resolution_before_loss_does_not_hide_loss(ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order()
    id_ = shipment.shipment_id
    assert (await ship.apply_events(id_, tracking_event(None, -50, code="Z1", is_unknown_code=True))).unknown_codes == 1
    await ship.fulfilment.resolve(id_, "it means nothing", "dan")
    assert await ship.list_worklist("anomalies") == set()
    await ship.apply_events(id_, tracking_event("lost", -1))
    assert await ship.list_worklist("undelivered") == {id_}
    await ship.fulfilment.resolve(id_, "paid for", "dan")
    assert await ship.list_worklist("undelivered") == set()


async def test_event_in_the_future_does_not_postpone_stalling(ship: ShippingShop) -> None:
    """An event in the future is applied, and `last_event_at` is at most the present."""
    _, [shipment] = await ship.add_booked_order()
    await ship.apply_events(
        shipment.shipment_id, tracking_event("in_transit", 60 * 24 * 365), tracking_event(None, 1, text="x" * 2_000)
    )
    shipment = await ship.get_shipment(shipment.shipment_id)
    assert shipment.status == "in_transit"
    assert shipment.last_event_at is not None
    assert shipment.last_event_at <= datetime.now(UTC)


async def test_poll_applies_events_and_interval_grows(ship: ShippingShop) -> None:
    """A polled event counts like one of a webhook, once. Polls become rarer with the shipment's age."""
    cheap = ship.carriers["cheap"]
    _, [shipment] = await ship.add_booked_order()
    assert shipment.tracking_no is not None
    cheap.tracking[shipment.tracking_no] = [tracking_event("picked_up", -60), tracking_event("in_transit", -30)]
    await ship.apply_events(shipment.shipment_id, cheap.tracking[shipment.tracking_no][0])
    polls = []
    for _ in range(2):
        await ship.make_all_due()
        polls.append(
            (await ship.work_until_idle(), (await ship.get_job(shipment.shipment_id)).due_at - datetime.now(UTC))
        )
        await ship.fetch_rows("UPDATE shipments SET booked_at = booked_at - interval '1 day' RETURNING 1")
    assert [results for results, _ in polls] == [["status_changed"], ["unchanged"]]
    assert 1_700 < polls[0][1].total_seconds() <= 1_800
    assert 21_500 < polls[1][1].total_seconds() <= 21_600
    query = "SELECT source, actor FROM shipment_events WHERE to_status = 'in_transit'"
    assert [tuple(row) for row in await ship.fetch_rows(query)] == [("query", "cheap")]


async def test_events_during_cancellation_win(ship: ShippingShop) -> None:
    """The carrier confirms a cancellation of a shipment that it has collected: the tracking event wins."""
    cheap = ship.carriers["cheap"]
    _, [shipment] = await ship.add_booked_order()
    id_ = shipment.shipment_id
    cheap.gate = asyncio.Event()
    await ship.fulfilment.cancel(id_, "not wanted", "dan")
    cancelling = asyncio.create_task(ship.work_on(await ship.claim_one()))

    async def is_cancelled() -> bool:
        return bool(cheap.cancelled_bookings)

    await eventually(is_cancelled)
    assert (await ship.apply_events(id_, tracking_event("picked_up", -1))).result == "status_changed"
    cheap.gate.set()
    assert await cancelling == "too_late"
    cheap.cancelled_bookings.clear()
    shipment = await ship.get_shipment(id_)
    assert (shipment.status, shipment.after_cancel) == ("picked_up", None)
    assert await ship.find_task(id_) == "shipment.track"
    # A shipment that was delivered meanwhile needs nothing more.
    _, [other] = await ship.add_booked_order()
    cheap.gate = asyncio.Event()
    await ship.fulfilment.cancel(other.shipment_id, "not wanted", "dan")
    cancelling = asyncio.create_task(ship.work_on(await ship.claim_one()))
    await eventually(is_cancelled)
    await ship.apply_events(other.shipment_id, tracking_event("delivered", -1))
    cheap.gate.set()
    assert await cancelling == "unchanged"
    cheap.cancelled_bookings.clear()
