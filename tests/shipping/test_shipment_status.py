"""What carriers tell: twice, shuffled, late, contradictory, in unknown words. Goods are counted all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from asyncpg import Record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commerce.shipping import shipment_status
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
    st.sampled_from(ENDS),
    st.lists(st.sampled_from(range(len(JOURNEY) + 1)), min_size=1, max_size=12).flatmap(
        lambda first: st.permutations([*range(len(JOURNEY) + 1), *first])
    ),
    st.lists(st.integers(1, 5), max_size=6),
)


def calls(order: list[TrackingEvent], sizes: Iterable[int]) -> list[list[TrackingEvent]]:
    """The same news in calls of several sizes."""
    parts, at = [], 0
    for size in [*sizes, len(order)]:
        parts.append(order[at : at + size])
        at += size
    return [part for part in parts if part]


class RolledBack(Exception):
    """What was tried is undone, so that the same parcel may go another way."""


async def test_in_any_order_and_any_number_of_times(ship: ShippingShop) -> None:
    order_id, [parcel] = await ship.add_booked_order(("a", 3, 0), cod=300)
    expected: dict[str, Record] = {}

    async def ends(end: TrackingEvent, order: list[int], sizes: list[int]) -> Record:
        every = [*JOURNEY, end]
        row: list[Record] = []
        try:
            async with ship.shop.db.transaction() as connection:
                for part in calls([every[number] for number in order], sizes):
                    await ship.shipping.apply_tracking_events(
                        connection, parcel.shipment_id, part, "webhook", "test", datetime.now(UTC)
                    )
                row = await connection.fetch(_END, parcel.shipment_id)
                raise RolledBack
        except RolledBack:
            return row[0]

    loop = asyncio.get_running_loop()

    @given(tracking_event_inputs)
    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    def tried(case: tuple[TrackingEvent, list[int], list[int]]) -> None:
        end, order, sizes = case
        found = asyncio.run_coroutine_threadsafe(ends(end, order, sizes), loop).result(20)
        assert found == expected.setdefault(end.code, found)

    await asyncio.to_thread(tried)
    assert {end: (row["status"], row["order_status"], row["odd"]) for end, row in expected.items()} == {
        "delivered": ("delivered", "delivered", 1),
        "returned_to_sender": ("returned_to_sender", "shipped", 1),
        "lost": ("lost", "shipped", 1),
    }
    assert (await ship.get_shipment(parcel.shipment_id)).status == "booked"
    assert await ship.order_status(order_id) == "fulfilling"


_END = """
SELECT shipments.status, orders.status AS order_status, planned, shipped, delivered, last_event_at,
       cod_collected_at IS NOT NULL AS collected, payments.status AS payment,
       (SELECT count(*) FROM shipment_events AS event WHERE event.shipment_id = $1 AND (is_unknown_code OR contradicts_history)) AS odd,
       (SELECT count(*) FROM shipment_events AS event WHERE event.shipment_id = $1 AND code IS NOT NULL) AS told
FROM shipments JOIN orders USING (order_id) JOIN fulfilment_lines USING (order_id) JOIN payments USING (order_id)
WHERE shipment_id = $1
"""


def test_news_takes_allowed_steps_only() -> None:
    for at in ShipmentStatus:
        for to in ShipmentStatus:
            way = [at, *shipment_status._steps_between(at, to)]
            assert set(pairwise(way)) <= TRANSITIONS, (at, to)


async def over(ship: ShippingShop, order_id: UUID) -> tuple[bool, bool]:
    """Whether it has left whole, and arrived whole."""
    query = "SELECT handed_over_at IS NOT NULL, delivered_at IS NOT NULL FROM fulfilments WHERE order_id = $1"
    [row] = await ship.fetch_rows(query, order_id)
    return tuple(row)  # type: ignore[return-value]


async def test_to_the_door(ship: ShippingShop) -> None:
    """Each step once; what is skipped is made up for, and says so; what comes late is kept and moves nothing."""
    order_id, [parcel] = await ship.add_booked_order(("a", 3, 0))
    id_, there = parcel.shipment_id, tracking_event("in_transit", -30)
    assert (await ship.apply_events(id_, there)).result == "status_changed"
    assert await over(ship, order_id) == (True, False)
    assert await ship.order_status(order_id) == "shipped"
    assert (await ship.apply_events(id_, there, there)).result == "unchanged"
    assert (await ship.apply_events(id_, tracking_event("picked_up", -60))).result == "recorded"
    assert (await ship.apply_events(id_, tracking_event("delivered", -1))).result == "status_changed"
    assert await over(ship, order_id) == (True, True)
    assert await ship.order_status(order_id) == "delivered"
    assert (await ship.list_event_texts(id_))[1:] == [
        "picked up, implied by the event after it",
        "it is in_transit",
        "it is picked_up",
        "out for delivery, implied by the event after it",
        "it is delivered",
    ]
    parcel = await ship.get_shipment(id_)
    assert (parcel.handed_over_at, parcel.task) == (there.at, None)
    file = await ship.fulfilment.get(id_)
    assert [event.status for event in file.events if event.text == "it is picked_up"] == [None]
    assert await ship.work_until_idle() == []
    await ship.make_all_due()
    assert await ship.work_until_idle() == ["completed"]
    assert await ship.order_status(order_id) == "completed"


async def test_an_order_goes_on_once_all_of_it_does(ship: ShippingShop) -> None:
    order_id, parcels = await ship.add_booked_order(("a", 1, 0), ("c", 2, 0))
    first, second = (one.shipment_id for one in parcels)
    await ship.apply_events(first, tracking_event("delivered", -9))
    assert await over(ship, order_id) == (False, False)
    assert await ship.order_status(order_id) == "fulfilling"
    await ship.apply_events(second, tracking_event("picked_up", -5))
    assert await over(ship, order_id) == (True, False)
    assert await ship.order_status(order_id) == "shipped"
    await ship.apply_events(second, tracking_event("lost", -4))
    assert await ship.list_worklist("undelivered") == {second}
    again = await ship.fulfilment.repacking.reship(second, "lost", "dan")
    assert await ship.list_worklist("undelivered") == set()
    await ship.work_until_idle()
    await ship.apply_events(again, tracking_event("delivered", -1))
    assert await ship.order_status(order_id) == "delivered"


async def test_news_that_cannot_be(ship: ShippingShop) -> None:
    """Two ends, and going on after the end: the first end stands, and the desk sees the rest."""
    _, [parcel] = await ship.add_booked_order()
    id_ = parcel.shipment_id
    await ship.apply_events(id_, tracking_event("delivered", -60))
    assert await ship.list_worklist("anomalies") == set()
    assert (
        await ship.apply_events(id_, tracking_event("in_transit", -90), tracking_event("delivered", -50))
    ).result == "recorded"
    assert await ship.list_worklist("anomalies") == set(), "late, and the same end once more"
    await ship.apply_events(id_, tracking_event("in_transit", -30))
    assert await ship.list_worklist("anomalies") == {id_}, "it moved after it had arrived, though both are over by now"
    await ship.fulfilment.resolve(id_, "the carrier mixed up two parcels", "dan")
    assert await ship.list_worklist("anomalies") == set()
    await ship.apply_events(id_, tracking_event("lost", -20))
    assert await ship.list_worklist("anomalies") == {id_}, "it is odd anew"
    assert (await ship.get_shipment(id_)).status == "delivered"
    # A state that only we may give changes nothing either.
    _, [other] = await ship.add_booked_order()
    for state in ("cancelled", "planned", "booked"):
        assert (await ship.apply_events(other.shipment_id, tracking_event(state))).result == "recorded"
    assert (await ship.get_shipment(other.shipment_id)).status == "booked"


async def test_settled_before_it_went_wrong(ship: ShippingShop) -> None:
    _, [parcel] = await ship.add_booked_order()
    id_ = parcel.shipment_id
    assert (await ship.apply_events(id_, tracking_event(None, -50, code="Z1", is_unknown_code=True))).unknown_codes == 1
    await ship.fulfilment.resolve(id_, "it means nothing", "dan")
    assert await ship.list_worklist("anomalies") == set()
    await ship.apply_events(id_, tracking_event("lost", -1))
    assert await ship.list_worklist("undelivered") == {id_}
    await ship.fulfilment.resolve(id_, "paid for", "dan")
    assert await ship.list_worklist("undelivered") == set()


async def test_a_clock_that_is_wrong(ship: ShippingShop) -> None:
    """News from the future is believed, but does not make a parcel look alive for longer."""
    _, [parcel] = await ship.add_booked_order()
    await ship.apply_events(
        parcel.shipment_id, tracking_event("in_transit", 60 * 24 * 365), tracking_event(None, 1, text="x" * 2_000)
    )
    parcel = await ship.get_shipment(parcel.shipment_id)
    assert parcel.status == "in_transit"
    assert parcel.last_event_at is not None
    assert parcel.last_event_at <= datetime.now(UTC)


async def test_asked_for_news(ship: ShippingShop) -> None:
    """What a query says counts like a push, once; and it is asked more and more seldom."""
    cheap = ship.carriers["cheap"]
    _, [parcel] = await ship.add_booked_order()
    assert parcel.tracking_no is not None
    cheap.tracking[parcel.tracking_no] = [tracking_event("picked_up", -60), tracking_event("in_transit", -30)]
    await ship.apply_events(parcel.shipment_id, cheap.tracking[parcel.tracking_no][0])
    waits = []
    for _ in range(2):
        await ship.make_all_due()
        waits.append(
            (await ship.work_until_idle(), (await ship.get_shipment(parcel.shipment_id)).due_at - datetime.now(UTC))
        )
        await ship.fetch_rows("UPDATE shipments SET booked_at = booked_at - interval '1 day' RETURNING 1")
    assert [words for words, _ in waits] == [["status_changed"], ["unchanged"]]
    assert 1_700 < waits[0][1].total_seconds() <= 1_800
    assert 21_500 < waits[1][1].total_seconds() <= 21_600
    query = "SELECT source, actor FROM shipment_events WHERE to_status = 'in_transit'"
    assert [tuple(row) for row in await ship.fetch_rows(query)] == [("query", "cheap")]


async def test_its_news_while_it_is_cancelled(ship: ShippingShop) -> None:
    """The carrier says that it will not come, and has come: where a parcel is counts for more."""
    cheap = ship.carriers["cheap"]
    _, [parcel] = await ship.add_booked_order()
    id_ = parcel.shipment_id
    cheap.gate = asyncio.Event()
    await ship.fulfilment.cancel(id_, "not wanted", "dan")
    cancelling = asyncio.create_task(ship.work_on(await ship.claim_one()))

    async def asked() -> bool:
        return bool(cheap.cancelled_bookings)

    await eventually(asked)
    assert (await ship.apply_events(id_, tracking_event("picked_up", -1))).result == "status_changed"
    cheap.gate.set()
    assert await cancelling == "too_late"
    cheap.cancelled_bookings.clear()
    parcel = await ship.get_shipment(id_)
    assert (parcel.status, parcel.task, parcel.after_cancel) == ("picked_up", "track", None)
    # Arrived in the meantime, there is nothing more to do.
    _, [other] = await ship.add_booked_order()
    cheap.gate = asyncio.Event()
    await ship.fulfilment.cancel(other.shipment_id, "not wanted", "dan")
    cancelling = asyncio.create_task(ship.work_on(await ship.claim_one()))
    await eventually(asked)
    await ship.apply_events(other.shipment_id, tracking_event("delivered", -1))
    cheap.gate.set()
    assert await cancelling == "unchanged"
    cheap.cancelled_bookings.clear()
