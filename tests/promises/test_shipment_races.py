"""P7: more than a hundred pairs each of actions on a shipment at the same moment.

The first one decides. Afterwards no shipment is booked twice, unit counts match the shipments, and no job is left.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from random import choice, random, shuffle
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.jobs.model import Job
from commerce.kernel.address import Address
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, CancelOutcome, TrackingEvent
from commerce.shipping.errors import InvalidShipmentState
from config.settings import Settings
from ops.services import CliServices
from tests.support.fake_carrier import FakeCarrier
from tests.support.sales import ADDRESS, eventually, make_sale
from tests.support.shipping_shop import PRICE, SHANGHAI, ShippingShop, open_shipping_shop, tracking_event

pytestmark = pytest.mark.drill  # takes half a minute

PAIRS, AT_ONCE = 120, 40
_MOMENT_S = 0.06
_NEW = msgspec.convert({**ADDRESS, "line": "Wensan Road 90"}, Address)
_SHIPPING = ("P7", "P8")
_WAITING = """
SELECT count(*) FROM jobs WHERE queue IN ('shipments', 'fulfilments')
AND (kind NOT IN ('shipment.track', 'order.complete') OR parked)
"""


@dataclass
class FakeHesitatingCarrier(FakeCarrier):
    """Takes effect at a random time during the call."""

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        await pause_briefly()
        confirmation = await super().book(request)
        await pause_briefly()
        return confirmation

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        await pause_briefly()
        outcome = await super().cancel(booking_id, tracking_no)
        await pause_briefly()
        return outcome

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        await pause_briefly()
        return await super().fetch_tracking(tracking_no, phone)


async def pause_briefly() -> None:
    await asyncio.sleep(random() * _MOMENT_S / 3)


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    """Settings with enough connections for pairs to meet in the database, not before it."""
    return make_settings(limits={"database_connections": 12})


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings, max_attempts=1_000) as ship:
        for name, carrier in list(ship.carriers.items()):
            ship.carriers[name] = FakeHesitatingCarrier(
                name, carrier.accepts_bookings, carrier.is_external, carrier.needs_subscription
            )
        yield ship


async def plan_orders(ship: ShippingShop, *lines: tuple[str, int, int], **options: Any) -> list[Job]:
    """Add and plan `PAIRS` orders of one shipment each. Returns the claimed booking jobs."""
    await asyncio.gather(*(ship.add_order(*lines, user=f"u{number}", **options) for number in range(PAIRS)))
    assert Counter(await asyncio.gather(*map(ship.work_on, await ship.claim(PAIRS)))) == {"planned": PAIRS}
    return await ship.claim(PAIRS * 2)


async def race(groups: Sequence[Sequence[Coroutine[Any, Any, str]]]) -> Counter[str]:
    """Run the coroutines of each group at nearly the same time, many groups at once, in random order.

    Returns the number of each result."""

    async def run(coroutine: Coroutine[Any, Any, str]) -> str:
        await asyncio.sleep(random() * _MOMENT_S)
        return await coroutine

    results: Counter[str] = Counter()
    for first in range(0, len(groups), AT_ONCE):
        coroutines = [coroutine for group in groups[first : first + AT_ONCE] for coroutine in group]
        shuffle(coroutines)
        results.update(await asyncio.gather(*map(run, coroutines)))
    return results


async def try_action(action: Awaitable[Any]) -> str:
    """Await a staff action. Returns "done", or "refused" if the shipment's state does not allow it."""
    try:
        await action
    except InvalidShipmentState:
        return "refused"
    return "done"


async def finish_and_check(ship: ShippingShop, sale_id: str) -> Counter[str]:
    """Work on all jobs and check all records. Returns the number of shipments by status."""

    async def is_finished() -> bool:
        await asyncio.gather(*map(ship.work_on, await ship.claim(PAIRS)))
        return not await ship.fetch_value(_WAITING)

    await eventually(is_finished, timeout_s=30)
    await ship.check_records()
    await make_sale(ship.shop, sale_id, {"a": (1, PRICE, None)})
    await ship.fetch_rows("UPDATE orders SET sale_id = $1", sale_id)
    audit = await ship.shop.audit.audit_sale(sale_id)
    # These orders bypass Redis and their payments are inserted, so only the promises of shipping can hold.
    assert not [finding for finding in audit.findings if finding.promise in _SHIPPING]
    assert not await ship.fetch_value("SELECT sum(amount_minor) FROM ledger")
    return Counter({row["status"]: row["count"] for row in await ship.fetch_rows(
        "SELECT status, count(*) FROM shipments GROUP BY status"
    )})  # fmt: skip


def check_both_came_first(results: Counter[str], *words: str) -> None:
    assert min(results[word] for word in words) > 5, f"the same side always came first: {results}"


def current_requests(carrier: FakeCarrier) -> dict[UUID, BookingRequest]:
    """Return the latest request of each booking that is not cancelled."""
    current = carrier.current_bookings
    return {request.booking_id: request for request in carrier.booking_requests if request.booking_id in current}


async def test_cancel_and_booking_at_once_end_cancelled(ship: ShippingShop, sale_id: str) -> None:
    jobs = await plan_orders(ship)
    results = await race(
        [(ship.work_on(job), try_action(ship.fulfilment.cancel(job.subject, "not wanted", "dan"))) for job in jobs]
    )
    check_both_came_first(results, "booked", "unchanged")
    assert results["done"] == PAIRS
    assert await finish_and_check(ship, sale_id) == {"cancelled": PAIRS}
    assert not ship.carriers["cheap"].current_bookings


async def test_redirect_and_booking_at_once_book_new_address(ship: ShippingShop, sale_id: str) -> None:
    """The current booking has the new address."""
    jobs = await plan_orders(ship)
    results = await race(
        [(ship.work_on(job), try_action(ship.fulfilment.redirect(job.subject, _NEW, "moved", "dan"))) for job in jobs]
    )
    assert results == {"booked": PAIRS, "done": PAIRS}
    assert await finish_and_check(ship, sale_id) == {"booked": PAIRS}
    cheap = ship.carriers["cheap"]
    assert [request.recipient for request in current_requests(cheap).values()] == [_NEW] * PAIRS
    assert 5 < cheap.cancel_calls < PAIRS - 5, "the same side always came first"


async def test_refund_and_booking_at_once_end_cancelled(ship: ShippingShop, sale_id: str) -> None:
    """A refunded shipment is not requested, or its booking is cancelled, at the latest with the next poll."""
    jobs = await plan_orders(ship)
    # Read before: a refund that waits for a connection twice would come after all bookings.
    order_ids = {job.subject: (await ship.get_shipment(job.subject)).order_id for job in jobs}

    async def refund(job: Job) -> str:
        await ship.refund_all(order_ids[job.subject])
        return "done"

    results = await race([(ship.work_on(job), refund(job)) for job in jobs])
    check_both_came_first(results, "booked", "stopped")
    await ship.make_all_due()
    assert await finish_and_check(ship, sale_id) == {"cancelled": PAIRS}
    assert not ship.carriers["cheap"].current_bookings


async def test_workers_at_once_book_once(ship: ShippingShop, sale_id: str) -> None:
    """Each row is claimed by one worker. Once its lease is over, both work on it, with the same booking."""
    await asyncio.gather(*(ship.add_order(user=f"u{number}") for number in range(PAIRS)))

    async def claim_all() -> list[Job]:
        claims = await asyncio.gather(*(ship.claim(20) for _ in range(24)))
        jobs = [job for claimed in claims for job in claimed]
        assert len({job.subject for job in jobs}) == len(jobs) == PAIRS
        return jobs

    results = await race([(ship.work_on(job), ship.work_on(job)) for job in await claim_all()])
    assert results == {"planned": PAIRS, "unchanged": PAIRS}
    results = await race([(ship.work_on(job), ship.work_on(job)) for job in await claim_all()])
    assert results == {"booked": PAIRS, "unchanged": PAIRS}
    assert await finish_and_check(ship, sale_id) == {"booked": PAIRS}
    cheap = ship.carriers["cheap"]
    assert len(cheap.bookings) == PAIRS
    assert sum(times == 2 for times in cheap.requests.values()) > 5, "the workers never met at the carrier"


async def test_webhook_and_poll_at_once_store_events_once(ship: ShippingShop, sale_id: str) -> None:
    """Equal events of a webhook and a poll are stored once, units are counted once, cash is captured once."""
    await race([(ship.work_on(job),) for job in await plan_orders(ship, cod=PRICE)])
    await ship.make_all_due()
    events = [
        tracking_event("picked_up", -9),
        tracking_event("in_transit", -8),
        tracking_event("out_for_delivery", -2),
        tracking_event("delivered", -1),
    ]
    jobs = await ship.claim(PAIRS * 2)
    for job in jobs:
        ship.carriers["cheap"].tracking[str((await ship.get_shipment(job.subject)).tracking_no)] = events

    async def receive_webhook(job: Job) -> str:
        # Half of them come at once, before the polls, which take turns; the others among the polls and after them.
        await asyncio.sleep(choice((0.0, random() * 20 * _MOMENT_S)))
        return f"webhook {(await ship.apply_events(job.subject, *events)).result}"

    results = await race([(ship.work_on(job), receive_webhook(job)) for job in jobs])
    check_both_came_first(results, "status_changed", "webhook status_changed")
    assert results["status_changed"] + results["webhook status_changed"] == PAIRS
    assert await finish_and_check(ship, sale_id) == {"delivered": PAIRS}
    stored = await ship.fetch_value("SELECT count(*) FROM shipment_events WHERE event_key IS NOT NULL")
    assert stored == PAIRS * len(events)
    assert await ship.fetch_value("SELECT count(*) FROM orders WHERE status = 'delivered'") == PAIRS
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account LIKE 'cash:%'") == PAIRS * PRICE


async def test_pack_and_cancel_at_once_end_cancelled(ship: ShippingShop, sale_id: str) -> None:
    """Packing books the shipment or is refused; a shipment that was packed first is cancelled afterwards."""
    assert await plan_orders(ship, ship_to=[SHANGHAI]) == []
    ids = [row["shipment_id"] for row in await ship.fetch_rows("SELECT shipment_id FROM shipments")]
    results = await race(
        [
            (
                try_action(ship.fulfilment.pack(id_, f"ZT-{number:06}", "pia")),
                try_action(ship.fulfilment.cancel(id_, "not wanted", "dan")),
            )
            for number, id_ in enumerate(ids)
        ]
    )
    packed = results["done"] - PAIRS
    assert 5 < packed < PAIRS - 5, f"one end always came first: {results}"
    assert await finish_and_check(ship, sale_id) == {"cancelled": PAIRS}
    assert await ship.fetch_value("SELECT count(*) FROM bookings WHERE outcome = 'cancelled'") == packed


async def test_split_and_booking_at_once_book_actual_contents(ship: ShippingShop, sale_id: str) -> None:
    """The carrier's booking matches the contents of the shipment."""
    jobs = await plan_orders(ship, ("a", 4, 0))
    split = ship.fulfilment.repacking.split
    results = await race([(ship.work_on(job), try_action(split(job.subject, {0: 1}, "dan"))) for job in jobs])
    check_both_came_first(results, "done", "refused")
    assert await finish_and_check(ship, sale_id) == {"booked": PAIRS + results["done"]}
    await check_booked_contents(ship)


async def test_merge_and_booking_at_once_book_actual_contents(ship: ShippingShop, sale_id: str) -> None:
    jobs = await plan_orders(ship, ("a", 4, 0))
    repacking = ship.fulfilment.repacking
    for job in jobs:
        await repacking.split(job.subject, {0: 1}, "dan")
    pairs: dict[UUID, list[Job]] = {}
    await ship.make_all_due()
    for job in await ship.claim(PAIRS * 4):
        pairs.setdefault((await ship.get_shipment(job.subject)).order_id, []).append(job)
    assert {len(pair) for pair in pairs.values()} == {2}
    results = await race(
        [
            (*map(ship.work_on, pair), try_action(repacking.merge([job.subject for job in pair], "dan")))
            for pair in pairs.values()
        ]
    )
    check_both_came_first(results, "done", "refused")
    assert await finish_and_check(ship, sale_id) == {
        "booked": 2 * PAIRS - results["done"],
        "cancelled": results["done"],
    }
    await check_booked_contents(ship)


async def check_booked_contents(ship: ShippingShop) -> None:
    rows = await ship.fetch_rows(
        "SELECT booking_id, quantity, weight_g FROM shipments JOIN shipment_lines USING (shipment_id) "
        "WHERE status = 'booked'"
    )
    requests = current_requests(ship.carriers["cheap"])
    assert {row["booking_id"]: (row["quantity"], row["weight_g"]) for row in rows} == {
        booking_id: (sum(line.quantity for line in request.contents), request.weight_g)
        for booking_id, request in requests.items()
    }
    assert sum(row["quantity"] for row in rows) == 4 * PAIRS
