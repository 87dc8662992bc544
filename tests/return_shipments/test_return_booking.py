"""Return shipments at carriers: collected, booked once, cancelled, refused, killed in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from commerce.jobs.model import JobKey
from commerce.return_shipments import return_jobs
from commerce.return_shipments.errors import CannotReturn, InvalidReturnState
from commerce.return_shipments.model import ReturnStatus
from commerce.return_shipments.return_tasks import RETURN_SHIPMENTS
from tests.support.fake_carrier import refusal
from tests.support.return_shop import ReturnShop
from tests.support.sales import eventually
from tests.support.shipping_shop import tracking_event


async def test_return_shipment_is_collected_at_customer_by_cheapest_carrier(returns: ReturnShop) -> None:
    order_id = await returns.deliver_order(("a", 2, 0))
    id_ = await returns.request(await returns.add_case(order_id))
    assert await returns.work_until_idle() == ["booked"]
    shipment, cheap = await returns.get(id_), returns.ship.carriers["cheap"]
    request = cheap.booking_requests[-1]
    assert (shipment.status, shipment.carrier, shipment.price_minor) == ("booked", "cheap", 1000)
    assert (shipment.tracking_no, shipment.sort_code) == (cheap.bookings[request.booking_id], "571-A")
    assert request.is_return
    assert (request.sender, request.order_id) == (shipment.from_address, order_id)
    assert request.recipient.line == request.sender.line  # the warehouse hz is at the same address
    assert [tuple(line) for line in request.contents] == [("thing a", 2)]
    assert (await returns.find_job(id_))["kind"] == "return_shipment.poll"
    assert returns.steps == [(id_, ReturnStatus.BOOKED)]
    story = "SELECT kind, reason, details ->> 'return_shipment_id' AS id FROM order_events WHERE kind = 'case'"
    [event] = await returns.ship.fetch_rows(story)
    assert tuple(event) == ("case", f"your return is announced to cheap as {shipment.tracking_no}", str(id_))


async def test_refused_return_is_booked_with_next_carrier_then_parked(returns: ReturnShop) -> None:
    """A retry by staff asks all carriers again, under new booking ids."""
    quick, cheap = returns.ship.carriers["quick"], returns.ship.carriers["cheap"]
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    cheap.next_outcomes, quick.next_outcomes = [refusal()], [refusal()]
    assert await returns.work_until_idle() == ["refused", "refused"]
    job, shipment = await returns.find_job(id_), await returns.get(id_)
    assert (job["parked"], job["kind"], shipment.carrier, shipment.refused_by) == (
        *(True, "return_shipment.assign", None, ["cheap", "quick"]),
    )
    assert "ask the customer to send it" in job["last_error"]
    await returns.ship.shop.jobs.retry_one(JobKey(RETURN_SHIPMENTS, id_), "dan")
    assert (await returns.list_texts(id_))[-1] == "retried"
    assert await returns.work_until_idle() == ["assigned", "booked"]
    returned = [request for carrier in (quick, cheap) for request in carrier.booking_requests if request.is_return]
    assert len({request.booking_id for request in returned}) == 3


async def test_carrier_that_collects_nothing_is_named_with_reason(returns: ReturnShop) -> None:
    for carrier in returns.ship.carriers.values():
        carrier.collects_returns = False
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    job = await returns.find_job(id_)
    assert job["parked"]
    assert "cheap: it collects nothing from customers" in job["last_error"]


async def test_unknown_outcome_is_queried_before_booking_is_repeated(returns: ReturnShop) -> None:
    cheap = returns.ship.carriers["cheap"]
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    cheap.next_outcomes = ["lost"]
    assert [await returns.work_on(job) for job in await returns.claim()] == ["no_answer"]
    await returns.ship.make_all_due()
    assert "booked" in await returns.work_until_idle()
    shipment = await returns.get(id_)
    assert shipment.booking_id is not None
    assert cheap.requests[shipment.booking_id] == 1, "the second attempt finds the booking"
    assert shipment.tracking_no == cheap.bookings[shipment.booking_id]


async def test_units_that_fit_no_single_box_are_refused_with_remedy(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("b", 4, 0)))
    with pytest.raises(CannotReturn, match="request a return shipment for a part"):
        await returns.request(case_id)
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_shipments") == 0


async def test_cancelled_return_ends_booking_and_tells_case(returns: ReturnShop) -> None:
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    await returns.work_until_idle()
    await returns.cancel(id_)
    await returns.cancel(id_)
    assert await returns.work_until_idle() == ["cancelled"]
    shipment = await returns.get(id_)
    assert (shipment.status, shipment.is_cancelling) == ("cancelled", False)
    assert shipment.booking_id in returns.ship.carriers["cheap"].cancelled_bookings
    assert await returns.find_job(id_) is None
    assert returns.steps[-1] == (id_, ReturnStatus.CANCELLED)


async def test_return_cancelled_too_late_is_followed_again(returns: ReturnShop) -> None:
    cheap = returns.ship.carriers["cheap"]
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    await returns.work_until_idle()
    shipment = await returns.get(id_)
    assert shipment.booking_id is not None
    assert shipment.tracking_no is not None
    cheap.handed_over.add(shipment.booking_id)
    cheap.tracking[shipment.tracking_no] = [tracking_event("picked_up")]
    await returns.cancel(id_)
    assert await returns.work_until_idle() == ["too_late", "status_changed"]
    assert (await returns.get(id_)).status == "picked_up"
    with pytest.raises(InvalidReturnState, match="it is picked up"):
        await returns.cancel(id_)


async def test_return_cancelled_during_request_is_cancelled_at_carrier(returns: ReturnShop) -> None:
    """The carrier has booked it, its answer comes after the cancellation: nobody collects it."""
    cheap = returns.ship.carriers["cheap"]
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    cheap.gate = asyncio.Event()
    before = len(cheap.bookings)
    [job] = await returns.claim()
    task = asyncio.create_task(returns.work_on(job))

    async def is_booked() -> bool:
        return len(cheap.bookings) > before

    await eventually(is_booked)
    await returns.cancel(id_)
    cheap.gate.set()
    assert await task == "booked"
    assert await returns.work_until_idle() == ["cancelled"]
    shipment = await returns.get(id_)
    assert (shipment.status, shipment.booking_id in cheap.cancelled_bookings) == ("cancelled", True)


async def test_absent_booking_is_cancelled_only_after_requests_have_ended(returns: ReturnShop) -> None:
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    await returns.cancel(id_)
    assert [await returns.work_on(job) for job in await returns.claim()] == ["no_answer"]
    await returns.ship.fetch_rows(
        "UPDATE return_shipments SET requested_at = requested_at - $1::interval", timedelta(hours=1)
    )
    await returns.ship.make_all_due()
    assert "cancelled" in await returns.work_until_idle()
    assert (await returns.get(id_)).status == "cancelled"


@pytest.mark.parametrize("is_booked", [False, True])
async def test_nobody_comes_for_case_that_has_ended(returns: ReturnShop, is_booked: bool) -> None:
    """The customer cancels the case before the booking, or before the carrier comes."""
    case_id = await returns.add_case(await returns.deliver_order())
    id_ = await returns.request(case_id)
    if is_booked:
        await returns.work_until_idle()
    await returns.ship.fetch_rows(
        "UPDATE cases SET items_back = false, kind = 'refund_only', items_state = 'not_expected' WHERE case_id = $1",
        case_id,
    )
    await returns.ship.make_all_due()
    await returns.ship.fetch_rows("UPDATE return_shipments SET requested_at = requested_at - interval '1 hour'")
    assert (await returns.work_until_idle())[-2:] == ["stopped", "cancelled"]
    shipment, cheap = await returns.get(id_), returns.ship.carriers["cheap"]
    assert shipment.status == "cancelled"
    assert (shipment.booking_id in cheap.cancelled_bookings) is is_booked


class _KilledError(BaseException):
    """The process ends here, as by kill -9: nothing after it is done."""


@pytest.mark.parametrize(
    "place", ["return_shipment.before_book", "return_shipment.after_book", "return_shipment.after_cancel"]
)
async def test_worker_killed_around_call_leaves_one_booking(
    returns: ReturnShop, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The lease ends, and the next worker continues under the same booking id."""

    def die(name: str) -> None:
        if name == place:
            raise _KilledError

    cheap = returns.ship.carriers["cheap"]
    id_ = await returns.request(await returns.add_case(await returns.deliver_order()))
    if place == "return_shipment.after_cancel":
        await returns.work_until_idle()
        await returns.cancel(id_)
    before = await returns.get(id_)
    monkeypatch.setattr(return_jobs, "failpoint", die)
    [job] = await returns.claim()
    with pytest.raises(_KilledError):
        await returns.work_on(job)
    monkeypatch.undo()
    assert (await returns.get(id_)).status == before.status, "nothing of the answer is stored"
    await returns.ship.make_all_due()
    await returns.work_until_idle()
    shipment = await returns.get(id_)
    assert shipment.booking_id == before.booking_id
    assert shipment.status == ("cancelled" if place == "return_shipment.after_cancel" else "booked")
    assert [request.is_return for request in cheap.booking_requests].count(True) <= 2
    assert sum(booking == shipment.booking_id for booking in cheap.bookings) == 1
