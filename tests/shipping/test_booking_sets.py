"""Bookings of several shipments share transactions, with the effects that each has alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from commerce.jobs.model import Job
from commerce.kernel.postgres import Connection
from commerce.shipping.model import Shipment
from tests.support.fake_carrier import refusal
from tests.support.refusing_rows import refuse_updates
from tests.support.sales import eventually
from tests.support.shipping_shop import ShippingShop


async def claim_bookings(ship: ShippingShop, count: int) -> list[Job]:
    """Add orders, plan them and claim the jobs of their shipments, in the sequence of the shipments' ids."""
    for number in range(count):
        await ship.add_order(user=f"u{number}")
    for job in await ship.claim():
        assert await ship.work_on(job) == "planned"
    jobs = sorted(await ship.claim())
    assert [job.kind for job in jobs] == ["shipment.book"] * count
    return jobs


async def work_on_all(ship: ShippingShop, jobs: Sequence[Job]) -> list[str]:
    return list(await asyncio.gather(*map(ship.work_on, jobs)))


async def list_shipments(ship: ShippingShop, jobs: Sequence[Job]) -> list[Shipment]:
    return [await ship.get_shipment(job.subject) for job in jobs]


async def wait_for_requests(ship: ShippingShop, count: int) -> None:
    async def are_requested() -> bool:
        return ship.carriers["cheap"].requests.total() == count

    await eventually(are_requested)


@pytest.fixture
def statements(ship: ShippingShop, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of statements of each transaction."""
    counts: list[int] = []

    @asynccontextmanager
    async def transaction(**options: Any) -> AsyncIterator[Connection]:
        async with open_transaction(**options) as connection:
            counts.append(0)
            with connection.query_logger(lambda _: counts.append(counts.pop() + 1)):
                yield connection

    open_transaction = ship.shop.db.transaction
    monkeypatch.setattr(ship.shop.db, "transaction", transaction)
    return counts


async def test_set_of_bookings_takes_as_many_statements_as_one(ship: ShippingShop, statements: list[int]) -> None:
    cheap = ship.carriers["cheap"]
    jobs = await claim_bookings(ship, 22)
    assert await work_on_all(ship, jobs[:1]) == ["booked"]  # after it the driver knows all types
    statements.clear()
    assert await work_on_all(ship, jobs[1:2]) == ["booked"]
    assert await work_on_all(ship, jobs[2:]) == ["booked"] * 20
    assert len(statements) == 4, "one transaction before the calls, and one after them"
    assert statements[2:] == statements[:2]
    shipments = await list_shipments(ship, jobs)
    assert [shipment.tracking_no for shipment in shipments] == [cheap.bookings[job.booking_id] for job in shipments]
    for request in cheap.booking_requests:
        assert (request.contents[0].quantity, len(request.contents)) == (1, 1)
    assert {await ship.find_task(job.subject) for job in jobs} == {"shipment.track"}
    assert set(cheap.requests.values()) == {1}
    await ship.check_records()


async def test_requests_of_a_set_are_stored_before_the_carrier_is_called(ship: ShippingShop) -> None:
    """And they are with the carrier all at once."""
    ship.carriers["cheap"].gate = gate = asyncio.Event()
    jobs = await claim_bookings(ship, 20)
    working = asyncio.create_task(work_on_all(ship, jobs))
    await wait_for_requests(ship, 20)
    rows = await ship.fetch_rows("SELECT booking_id, outcome, xmin::text FROM bookings")
    assert {row["booking_id"] for row in rows} == set(ship.carriers["cheap"].requests)
    assert ({row["outcome"] for row in rows}, len({row["xmin"] for row in rows})) == ({"requested"}, 1)
    gate.set()
    assert await working == ["booked"] * 20


async def test_set_of_assignments_takes_as_many_statements_as_one(ship: ShippingShop, statements: list[int]) -> None:
    await claim_bookings(ship, 21)
    await ship.make_all_due()
    ship.unavailable_systems = ["cheap"]
    jobs = sorted(await ship.claim())
    assert {job.kind for job in jobs} == {"shipment.assign"}
    assert await work_on_all(ship, jobs[:1]) == ["assigned"]
    statements.clear()
    assert await work_on_all(ship, jobs[1:2]) == ["assigned"]
    assert await work_on_all(ship, jobs[2:]) == ["assigned"] * 19
    assert (len(statements), statements[0]) == (2, statements[1])
    assert {shipment.carrier for shipment in await list_shipments(ship, jobs)} == {"quick"}
    assert await ship.work_until_idle() == ["booked"] * 21


async def test_set_does_not_wait_for_order_locked_by_another(ship: ShippingShop) -> None:
    """Neither before the calls nor after them."""
    cheap = ship.carriers["cheap"]
    jobs = await claim_bookings(ship, 5)
    [first, second, *_] = await list_shipments(ship, jobs)
    lock = "SELECT FROM orders WHERE order_id = $1 FOR UPDATE"
    cheap.gate = asyncio.Event()
    async with ship.shop.db.transaction() as connection:
        await connection.execute(lock, first.order_id)
        tasks = [asyncio.create_task(ship.work_on(job)) for job in jobs]
        await wait_for_requests(ship, 4)
        async with ship.shop.db.transaction() as other_connection:
            await other_connection.execute(lock, second.order_id)
            cheap.gate.set()
            assert await asyncio.gather(*tasks[2:]) == ["booked"] * 3
            assert [task.done() for task in tasks[:2]] == [False, False]
            assert cheap.requests.total() == 4
        assert await tasks[1] == "booked"
        assert not tasks[0].done()
    assert await tasks[0] == "booked"
    assert set(cheap.requests.values()) == {1}
    await ship.check_records()


async def test_refused_and_unanswered_shipments_change_nothing_for_the_others(
    ship: ShippingShop, statements: list[int]
) -> None:
    cheap, quick = ship.carriers["cheap"], ship.carriers["quick"]
    jobs = await claim_bookings(ship, 6)
    cheap.next_outcomes = ["booked", refusal(), "lost", "booked", refusal("too_heavy"), "booked"]
    statements.clear()
    assert await work_on_all(ship, jobs) == ["booked", "refused", "no_answer", "booked", "refused", "booked"]
    assert len(statements) == 2
    shipments = await list_shipments(ship, jobs)
    assert [shipment.status for shipment in shipments] == [
        *("booked", "planned", "planned"),
        *("booked", "planned", "booked"),
    ]
    assert [shipment.carrier for shipment in shipments] == [*("cheap", "quick", "cheap"), *("cheap", "quick", "cheap")]
    assert [shipment.refused_by for shipment in shipments] == [[], ["cheap"], [], [], ["cheap"], []]
    reasons = await ship.fetch_rows("SELECT reason FROM bookings WHERE outcome = 'refused' ORDER BY shipment_id")
    assert [row["reason"] for row in reasons] == [
        "cheap refuses: no_service: not there",
        "cheap refuses: too_heavy: not there",
    ]
    assert await ship.list_event_texts(jobs[1].subject) == ["cheap refuses: no_service: not there"]
    assert await ship.work_until_idle() == ["booked"] * 3
    assert (Counter(cheap.requests.values()), quick.requests.total()) == ({1: 5, 2: 1}, 2)
    await ship.check_records()


async def test_shipments_of_one_order_are_booked_in_one_set(ship: ShippingShop) -> None:
    orders = [await ship.add_order(("a", 1, 0), ("c", 1, 0), user=f"u{number}") for number in range(3)]
    for job in await ship.claim():
        assert await ship.work_on(job) == "planned"
    assert await work_on_all(ship, await ship.claim()) == ["booked"] * 6
    assert [len(await ship.list_shipments(order_id)) for order_id in orders] == [2, 2, 2]
    await ship.check_records()


async def test_shipments_of_a_refunded_order_are_cancelled_in_the_middle_of_a_set(ship: ShippingShop) -> None:
    """One before it is requested, one while the carrier books it."""
    cheap = ship.carriers["cheap"]
    jobs = await claim_bookings(ship, 5)
    [early, late, *_] = await list_shipments(ship, jobs)
    await ship.refund_all(early.order_id)
    cheap.gate = asyncio.Event()
    working = asyncio.create_task(work_on_all(ship, jobs))
    await wait_for_requests(ship, 4)
    await ship.refund_all(late.order_id)
    cheap.gate.set()
    assert await working == ["stopped", "booked", "booked", "booked", "booked"]
    statuses = [shipment.status for shipment in await list_shipments(ship, jobs)]
    assert statuses == ["cancelled", "booked", "booked", "booked", "booked"]
    assert await ship.find_task(late.shipment_id) == "shipment.cancel"
    assert "cancelled" in await ship.work_until_idle()
    assert len(cheap.current_bookings) == 3
    await ship.check_records()


@pytest.mark.parametrize(
    ("table", "event", "condition", "requests"),
    [
        ("bookings", "INSERT", "NEW.shipment_id = '{}'", 0),
        ("shipments", "UPDATE", "NEW.status = 'booked' AND OLD.shipment_id = '{}'", 1),
    ],
)
async def test_shipment_that_cannot_be_stored_costs_only_itself(
    ship: ShippingShop, table: str, event: str, condition: str, requests: int
) -> None:
    """Before the call it is not made. After it, it is repeated for the same booking."""
    cheap = ship.carriers["cheap"]
    jobs = await claim_bookings(ship, 4)
    async with ship.shop.db.connection() as connection:
        await refuse_updates(connection, table, condition.format(jobs[1].subject), event=event)
    assert await work_on_all(ship, jobs) == ["booked", "error", "booked", "booked"]
    assert Counter(cheap.requests.values()) == {1: 3 + requests}
    await ship.fetch_rows(f"DROP TRIGGER refuse_some ON {table}")
    await ship.make_all_due()
    assert Counter(await ship.work_until_idle())["booked"] == 1
    assert (len(cheap.requests), cheap.requests.total()) == (4, 4 + requests)
    await ship.check_records()


async def test_number_of_another_shipment_in_a_set_parks_one_job(ship: ShippingShop) -> None:
    cheap = ship.carriers["cheap"]
    _, [owner] = await ship.add_booked_order()
    cheap.next_outcomes = ["lost"] * 4
    jobs = await claim_bookings(ship, 4)
    assert await work_on_all(ship, jobs) == ["no_answer"] * 4
    [_, confused, *_] = await list_shipments(ship, jobs)
    assert confused.booking_id is not None
    assert owner.tracking_no is not None
    cheap.bookings[confused.booking_id] = owner.tracking_no
    await ship.make_all_due()
    repeated = sorted(job for job in await ship.claim() if job.kind == "shipment.book")
    assert await work_on_all(ship, repeated) == ["booked", "tracking_no_conflict", "booked", "booked"]
    assert (await ship.get_job(confused.shipment_id)).parked
