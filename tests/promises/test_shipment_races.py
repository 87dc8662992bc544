"""P7: more than a hundred pairs each of what may happen to a parcel in the same moment.

Whoever comes first decides. Afterwards nobody is booked twice, goods are counted as parcels hold them, and no parcel
waits for anything.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from copy import copy
from dataclasses import dataclass
from random import random, shuffle
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.fulfilment.fulfilment_jobs import Job
from commerce.kernel.address import Address
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest, CancelOutcome, TrackingEvent
from commerce.shipping.errors import InvalidShipmentState
from commerce.shipping.model import Shipment
from config.settings import Settings
from ops.services import CliServices
from tests.support.sales import ADDRESS, eventually, make_sale
from tests.support.shipping_shop import PRICE, SHANGHAI, FakeCarrier, ShippingShop, open_shipping_shop, tracking_event

pytestmark = pytest.mark.drill  # half a minute, in which nothing else is learnt

PAIRS, AT_ONCE = 120, 40
_MOMENT_S = 0.06
_NEW = msgspec.convert({**ADDRESS, "line": "Wensan Road 90"}, Address)
_SHIPPING = ("P7", "P8")
_WAITING = "SELECT count(*) FROM shipments WHERE task IN ('book', 'cancel', 'subscribe') OR parked"


@dataclass
class FakeHesitatingCarrier(FakeCarrier):
    """What it is asked for comes to pass somewhere in the middle of the call."""

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        await pause_briefly()
        booked = await super().book(parcel)
        await pause_briefly()
        return booked

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
    """With connections enough that pairs meet in the database and not before it."""
    return make_settings(limits={"database_connections": 12})


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings, max_attempts=1_000) as found:
        for name, before in list(found.carriers.items()):
            found.carriers[name] = FakeHesitatingCarrier(
                name, before.accepts_bookings, before.is_external, before.needs_subscription
            )
        yield found


async def planned(ship: ShippingShop, *lines: tuple[str, int, int], **more: Any) -> list[Job]:
    """That many orders in one parcel each, which are leased to be booked where the driver books."""
    await asyncio.gather(*(ship.add_order(*lines, user=f"u{number}", **more) for number in range(PAIRS)))
    assert Counter(await asyncio.gather(*map(ship.jobs.work, await ship.jobs.claim(PAIRS, [], [])))) == {
        "planned": PAIRS
    }
    return await ship.jobs.claim(PAIRS * 2, [], [])


async def race(ends: Sequence[Sequence[Coroutine[Any, Any, str]]]) -> Counter[str]:
    """All ends of each group at nearly the same time, many groups together, in any order; how often they said what."""

    async def run(end: Coroutine[Any, Any, str]) -> str:
        await asyncio.sleep(random() * _MOMENT_S)
        return await end

    said: Counter[str] = Counter()
    for first in range(0, len(ends), AT_ONCE):
        runners = [end for group in ends[first : first + AT_ONCE] for end in group]
        shuffle(runners)
        said.update(await asyncio.gather(*map(run, runners)))
    return said


async def refusing(work: Awaitable[Any]) -> str:
    """What became of it at the desk."""
    try:
        await work
    except InvalidShipmentState:
        return "not now"
    return "done"


async def over(ship: ShippingShop, sale_id: str) -> Counter[str]:
    """Let the driver finish and check everything; how many parcels are where."""

    async def look() -> bool:
        await asyncio.gather(*map(ship.work_on, await ship.jobs.claim(PAIRS, [], [])))
        return not await ship.fetch_value(_WAITING)

    await eventually(look, timeout_s=30)
    await ship.check_records()
    await make_sale(ship.shop, sale_id, {"a": (1, PRICE, None)})
    await ship.fetch_rows("UPDATE orders SET sale_id = $1", sale_id)
    audit = await ship.shop.audit.audit_sale(sale_id)
    # These orders never went through Redis, and their money comes from nowhere: goods and histories are what is real.
    assert not [found for found in audit.findings if found.promise in _SHIPPING]
    assert not any((await ship.shop.audit.sum_ledger()).values())
    return Counter({row["status"]: row["count"] for row in await ship.fetch_rows(
        "SELECT status, count(*) FROM shipments GROUP BY status"
    )})  # fmt: skip


def both_came_first(said: Counter[str], *words: str) -> None:
    assert min(said[word] for word in words) > 5, f"one end always came first: {said}"


def current_requests(carrier: FakeCarrier) -> dict[UUID, BookingRequest]:
    """What it was told of each booking that it will come for."""
    return {
        parcel.booking_id: parcel
        for parcel in carrier.booking_requests
        if parcel.booking_id in carrier.current_bookings
    }


async def test_cancel_against_booking(ship: ShippingShop, sale_id: str) -> None:
    jobs = await planned(ship)
    said = await race(
        [(ship.work_on(job), refusing(ship.fulfilment.cancel(shipment_id(job), "not wanted", "dan"))) for job in jobs]
    )
    both_came_first(said, "booked", "unchanged")
    assert said["done"] == PAIRS
    assert await over(ship, sale_id) == {"cancelled": PAIRS}
    assert not ship.carriers["cheap"].current_bookings


async def test_redirect_against_booking(ship: ShippingShop, sale_id: str) -> None:
    """It is booked to the new door and not to the old one."""
    jobs = await planned(ship)
    said = await race(
        [
            (ship.work_on(job), refusing(ship.fulfilment.redirect(shipment_id(job), _NEW, "moved", "dan")))
            for job in jobs
        ]
    )
    assert said == {"booked": PAIRS, "done": PAIRS}
    assert await over(ship, sale_id) == {"booked": PAIRS}
    cheap = ship.carriers["cheap"]
    assert [parcel.recipient for parcel in current_requests(cheap).values()] == [_NEW] * PAIRS
    assert 5 < cheap.cancel_calls < PAIRS - 5, "one end always came first"


async def test_refund_against_booking(ship: ShippingShop, sale_id: str) -> None:
    """What goes back is not sent: not asked for, or called off, at the latest when its news are looked for."""
    jobs = await planned(ship)

    async def refund(job: Job) -> str:
        await ship.refund_all(job.order_id)
        return "done"

    said = await race([(ship.work_on(job), refund(job)) for job in jobs])
    both_came_first(said, "booked", "stopped")
    await ship.make_all_due()
    assert await over(ship, sale_id) == {"cancelled": PAIRS}
    assert not ship.carriers["cheap"].current_bookings


async def test_driver_against_driver(ship: ShippingShop, sale_id: str) -> None:
    """Rows are claimed by one of them; those whose lease is over both work on, with the same booking."""
    await asyncio.gather(*(ship.add_order(user=f"u{number}") for number in range(PAIRS)))
    drivers = (ship.jobs, copy(ship.jobs))

    async def claimed() -> list[Job]:
        found = await asyncio.gather(*(driver.claim(20, [], []) for driver in drivers * 12))
        jobs = [job for jobs in found for job in jobs]
        assert len({job.order_id for job in jobs}) == len(jobs) == PAIRS
        return jobs

    said = await race([tuple(driver.work(job) for driver in drivers) for job in await claimed()])
    assert said == {"planned": PAIRS, "unchanged": PAIRS}
    said = await race([tuple(driver.work(job) for driver in drivers) for job in await claimed()])
    assert said == {"booked": PAIRS, "unchanged": PAIRS}
    assert await over(ship, sale_id) == {"booked": PAIRS}
    cheap = ship.carriers["cheap"]
    assert len(cheap.bookings) == PAIRS
    assert sum(times == 2 for times in cheap.requests.values()) > 5, "they never met at the carrier"


async def test_push_against_poll(ship: ShippingShop, sale_id: str) -> None:
    """The same news by two ways are one event each, goods are counted once, cash is taken once."""
    await race([(ship.work_on(job),) for job in await planned(ship, cod=PRICE)])
    await ship.make_all_due()
    told = [
        tracking_event("picked_up", -9),
        tracking_event("in_transit", -8),
        tracking_event("out_for_delivery", -2),
        tracking_event("delivered", -1),
    ]
    jobs = await ship.jobs.claim(PAIRS * 2, [], [])
    for job in jobs:
        ship.carriers["cheap"].tracking[str(shipment(job).tracking_no)] = told

    async def push(job: Job) -> str:
        return f"push {(await ship.apply_events(shipment_id(job), *told)).result}"

    said = await race([(ship.work_on(job), push(job)) for job in jobs])
    both_came_first(said, "status_changed", "push status_changed")
    assert said["status_changed"] + said["push status_changed"] == PAIRS
    assert await over(ship, sale_id) == {"delivered": PAIRS}
    assert await ship.fetch_value("SELECT count(*) FROM shipment_events WHERE event_key IS NOT NULL") == PAIRS * len(
        told
    )
    assert await ship.fetch_value("SELECT count(*) FROM orders WHERE status = 'delivered'") == PAIRS
    assert await ship.fetch_value("SELECT sum(amount_minor) FROM ledger WHERE account = 'cash'") == PAIRS * PRICE


async def test_pack_against_cancel(ship: ShippingShop, sale_id: str) -> None:
    """The desk books with its number, or finds that it is not wanted; what was packed first is called off after."""
    assert await planned(ship, ship_to=[SHANGHAI]) == []
    ids = [row["shipment_id"] for row in await ship.fetch_rows("SELECT shipment_id FROM shipments")]
    said = await race(
        [
            (
                refusing(ship.fulfilment.pack(id_, f"ZT-{number:06}", "pia")),
                refusing(ship.fulfilment.cancel(id_, "not wanted", "dan")),
            )
            for number, id_ in enumerate(ids)
        ]
    )
    packed = said["done"] - PAIRS
    assert 5 < packed < PAIRS - 5, f"one end always came first: {said}"
    assert await over(ship, sale_id) == {"cancelled": PAIRS}
    assert await ship.fetch_value("SELECT count(*) FROM bookings WHERE outcome = 'cancelled'") == packed


async def test_split_against_booking(ship: ShippingShop, sale_id: str) -> None:
    """The carrier comes for what is in the parcel."""
    jobs = await planned(ship, ("a", 4, 0))
    split = ship.fulfilment.repacking.split
    said = await race([(ship.work_on(job), refusing(split(shipment_id(job), {0: 1}, "dan"))) for job in jobs])
    both_came_first(said, "done", "not now")
    assert await over(ship, sale_id) == {"booked": PAIRS + said["done"]}
    await check_booked_contents(ship)


async def test_merge_against_booking(ship: ShippingShop, sale_id: str) -> None:
    jobs = await planned(ship, ("a", 4, 0))
    repacking = ship.fulfilment.repacking
    for job in jobs:
        await repacking.split(shipment_id(job), {0: 1}, "dan")
    pairs: dict[UUID, list[Job]] = {}
    await ship.make_all_due()
    for job in await ship.jobs.claim(PAIRS * 4, [], []):
        pairs.setdefault(job.order_id, []).append(job)
    assert {len(pair) for pair in pairs.values()} == {2}
    said = await race(
        [
            (*map(ship.work_on, pair), refusing(repacking.merge([shipment_id(job) for job in pair], "dan")))
            for pair in pairs.values()
        ]
    )
    both_came_first(said, "done", "not now")
    assert await over(ship, sale_id) == {"booked": 2 * PAIRS - said["done"], "cancelled": said["done"]}
    await check_booked_contents(ship)


async def check_booked_contents(ship: ShippingShop) -> None:
    rows = await ship.fetch_rows(
        "SELECT booking_id, quantity, weight_g FROM shipments JOIN shipment_lines USING (shipment_id) "
        "WHERE status = 'booked'"
    )
    told = current_requests(ship.carriers["cheap"])
    assert {row["booking_id"]: (row["quantity"], row["weight_g"]) for row in rows} == {
        id_: (sum(content.quantity for content in parcel.contents), parcel.weight_g) for id_, parcel in told.items()
    }
    assert sum(row["quantity"] for row in rows) == 4 * PAIRS


def shipment(job: Job) -> Shipment:
    assert isinstance(job, Shipment)
    return job


def shipment_id(job: Job) -> UUID:
    return shipment(job).shipment_id
