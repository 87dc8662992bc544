"""Every broken promise has a check that sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.kernel.money import Money
from commerce.orders.model import Order, OrderLine, OrderStatus, PlacedOrder
from commerce.sales.model import Offer
from loadtest.scenarios import order_generator, purchase_log
from loadtest.scenarios.checks import READING, REFUSALS, CheckedResponse, Refused, Tagged, Violation, refusal, tagged
from loadtest.scenarios.purchase_log import Purchase, PurchaseLog, purchase

OFFERS = {
    "phone": Offer("phone", "Phone", 399_900, "CNY", 1, None),
    "tea": Offer("tea", "Tea", 16_800, "CNY", None, None),
}
ID, OTHER = UUID(int=1), UUID(int=2)
RAW: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def answer(status: int, body: Any, **headers: str) -> CheckedResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return CheckedResponse(
        status, {"x-request-id": "r", **named}, body if isinstance(body, bytes) else msgspec.json.encode(body)
    )


def problem(
    status: int, code: str, *, said: int | None = None, sku: str | None = None, **headers: str
) -> CheckedResponse:
    body = {"type": "t", "title": "t", "status": said or status, "code": code, "detail": "d", "request_id": "r"}
    more = {"sku": sku} if sku else {}
    return answer(status, body | more, **{"content_type": "application/problem+json", **headers})


def placed(
    status: int = 202, order_id: UUID = ID, amount: int = 399_900, location: str | None = None, **other: Any
) -> CheckedResponse:
    pay_by = datetime.now(UTC) + timedelta(minutes=15)
    body = PlacedOrder(order_id, "accepted", "s", Money(amount, "CNY"), pay_by, "fsync")
    return answer(status, msgspec.to_builtins(body) | other, location=location or f"/v1/orders/{order_id}")


def phone(key: str = "one") -> Purchase:
    return purchase(order_generator.single_item_order("s", "phone"), OFFERS, key)


def bought(log: PurchaseLog) -> Purchase:
    wanted = phone()
    assert isinstance(log.ordered(wanted, placed()), PlacedOrder)
    return wanted


def test_what_is_right_is_let_through() -> None:
    promised: Counter[str] = Counter()
    log = PurchaseLog(promised)
    wanted, first = phone(), placed()
    assert log.ordered(wanted, problem(503, "outcome_unknown", retry_after="1")) == Refused("outcome_unknown", 1.0)
    log.ordered(wanted, first)
    log.ordered(wanted, answer(200, first.body, location=first.headers["location"]))
    assert promised == {"phone": 1}
    assert log.ordered(phone("two"), problem(409, "over_limit", sku="phone")) == Refused("over_limit", sku="phone")
    assert set(log.in_reach(OFFERS)) == {"tea"}


def test_an_answer_that_was_lost_may_come_as_a_replay() -> None:
    wanted = phone()
    wanted.lost_sight()
    assert isinstance(PurchaseLog(Counter()).ordered(wanted, placed(200)), PlacedOrder)


def test_what_was_cancelled_or_expired_does_not_count() -> None:
    log = PurchaseLog(Counter())
    bought(log).given_up = True
    log.ordered(phone("two"), placed(order_id=OTHER))
    assert isinstance(log.ordered(phone("three"), problem(409, "over_limit", sku="phone")), Refused)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (placed(200), "200 for an order that was not accepted before"),
        (placed(201), "201 for an order that was not accepted before"),
        (placed(amount=1), "the total is not what the offers say"),
        (placed(location="/v1/orders/7"), "the Location is not that of the order"),
        (placed(sale_id="other"), "the order is in another sale"),
        (placed(status=202, durability="none"), "the body is not what the API describes"),
        (answer(202, b"<html>"), "the body is not what the API describes"),
        (answer(400, b"<html>", content_type="text/html"), "a 400 that is not application/problem+json"),
        (problem(422, "invalid"), "refused with 422 invalid, which may not be here"),
        (problem(500, "internal_error"), "refused with 500 internal_error, which may not be here"),
        (problem(409, "sold_out", said=410, sku="phone"), "a problem names another status than its answer has"),
        (problem(410, "sold_out", sku="phone"), "the status does not fit the code: 410 sold_out"),
        (problem(409, "sold_out", sku="tea"), "sold_out does not say which SKU of the order"),
        (problem(409, "over_limit", sku="phone"), "over_limit, though the limit leaves room"),
        (problem(429, "too_many_requests"), "429 too_many_requests without Retry-After"),
        (problem(503, "overloaded"), "503 overloaded without Retry-After"),
        (problem(503, "overloaded", retry_after="soon"), "Retry-After is not a number of seconds"),
        (
            problem(503, "overloaded", retry_after="1", x_request_id="q"),
            "a problem names another request than its answer",
        ),
        (CheckedResponse(202, {}, b"{}"), "the answer has no X-Request-Id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_to_an_order(said: CheckedResponse, text: str) -> None:
    with pytest.raises(Violation) as found:
        PurchaseLog(Counter()).ordered(phone(), said)
    assert found.value.text == text


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (placed(), "202 for a repeat of an accepted order"),
        (placed(200, OTHER), "a repeat has another body"),
        (problem(409, "sold_out", sku="phone"), "an accepted order is refused when it is repeated: sold_out"),
        (problem(410, "sale_closed"), "an accepted order is refused when it is repeated: sale_closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_to_a_repeat(said: CheckedResponse, text: str) -> None:
    log = PurchaseLog(Counter())
    wanted = bought(log)
    with pytest.raises(Violation, match=f"^{text}$"):
        log.ordered(wanted, said)


def test_more_than_the_limit() -> None:
    promised: Counter[str] = Counter()
    log = PurchaseLog(promised)
    bought(log)
    with pytest.raises(Violation, match="more than the limit"):
        log.ordered(phone("two"), placed(order_id=OTHER))
    assert promised == {"phone": 2}


def test_two_keys_for_one_order() -> None:
    log = PurchaseLog(Counter())
    log.ordered(purchase(order_generator.single_item_order("s", "tea"), OFFERS, "one"), placed(amount=16_800))
    with pytest.raises(Violation, match="two keys"):
        log.ordered(purchase(order_generator.single_item_order("s", "tea"), OFFERS, "two"), placed(amount=16_800))


def stored(wanted: Purchase, **changes: Any) -> Order:
    lines = [OrderLine(*part) for part in sorted(wanted.parts)]
    order = Order(
        wanted.order_id,
        OrderStatus.AWAITING_PAYMENT,
        "s",
        wanted.total,
        lines=lines,
        ship_to=wanted.order.ship_to,
        payments=wanted.order.payments,
    )
    return msgspec.structs.replace(order, **changes)


def test_a_stored_order_as_it_was_sent() -> None:
    wanted = bought(PurchaseLog(Counter()))
    early = Order(ID, OrderStatus.ACCEPTED, "s")
    assert purchase_log.read(wanted, answer(200, early)) == early
    assert not wanted.stored
    assert purchase_log.read(wanted, answer(200, stored(wanted))) == stored(wanted)
    assert wanted.stored
    with pytest.raises(Violation, match="stored is so no longer"):
        purchase_log.read(wanted, answer(200, early))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda wanted: problem(404, "not_found"), "404 for an order that was promised"),
        (lambda wanted: answer(206, stored(wanted)), "206 where only 200 is right"),
        (lambda wanted: answer(200, stored(wanted, order_id=OTHER)), "another order than was asked for"),
        (lambda wanted: answer(200, stored(wanted, sale_id="t")), "the order is in another sale"),
        (lambda wanted: answer(200, stored(wanted, status=OrderStatus.PAID)), "paid for an order that nobody paid"),
        (lambda wanted: answer(200, stored(wanted, total=Money(1, "CNY"))), "another total was stored"),
        (lambda wanted: answer(200, stored(wanted, lines=[])), "other lines were stored"),
        (lambda wanted: answer(200, stored(wanted, ship_to=[])), "other addresses were stored"),
        (lambda wanted: answer(200, stored(wanted, payments=None)), "other payments were stored"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_stored_order(make: Callable[[Purchase], CheckedResponse], text: str) -> None:
    wanted = bought(PurchaseLog(Counter()))
    with pytest.raises(Violation, match=f"^{text}$"):
        purchase_log.read(wanted, make(wanted))


def test_an_order_is_found_by_its_key_alone() -> None:
    wanted = bought(PurchaseLog(Counter()))
    right = stored(wanted)
    assert purchase_log.found(wanted, answer(200, {"items": [right], "next": None})) == right
    for items in ([], [right, right]):
        with pytest.raises(Violation, match="not one order"):
            purchase_log.found(wanted, answer(200, {"items": items, "next": None}))


def test_a_cancellation() -> None:
    wanted = bought(PurchaseLog(Counter()))
    wanted.given_up = True
    with pytest.raises(Violation, match="after a cancellation"):
        purchase_log.cancelled(wanted, answer(200, stored(wanted)))
    with pytest.raises(Violation, match="why it is cancelled"):
        purchase_log.cancelled(wanted, answer(200, stored(wanted, status=OrderStatus.CANCELLED)))
    right = stored(wanted, status=OrderStatus.CANCELLED, cancel_reason="by_customer")
    assert purchase_log.cancelled(wanted, answer(200, right)) == right
    assert purchase_log.cancelled(wanted, problem(409, "not_stored_yet", retry_after="1")) == Refused(
        "not_stored_yet", 1.0
    )


def test_the_own_list() -> None:
    log = PurchaseLog(Counter())
    wanted = bought(log)
    right = stored(wanted)

    def listed(*items: Order) -> object:
        return log.listed(wanted, answer(200, {"items": items, "next": None}))

    assert not isinstance(listed(right), Refused)
    foreign = msgspec.structs.replace(right, order_id=OTHER)
    for items, text in [
        ((), "not in the list"),
        ((right, right), "not newest first"),
        ((right, foreign), "not newest first"),
        ((foreign, right), "never placed"),
        ((stored(wanted, total=Money(1, "CNY")),), "another order than was placed"),
    ]:
        with pytest.raises(Violation, match=text):
            listed(*items)
    log.certain = False
    assert not isinstance(listed(foreign, right), Refused)


def test_tags() -> None:
    new = tagged(answer(200, [1], etag='"a"'), RAW)
    assert new == Tagged('"a"', [1])
    assert tagged(answer(304, b"", etag='"a"'), RAW, known=new) is new
    for said, known, text in [
        (answer(200, [1]), None, "has no ETag"),
        (answer(304, b"", etag='"a"'), None, "no ETag was sent"),
        (answer(304, b"", etag='"b"'), new, "another ETag"),
        (answer(304, b"x", etag='"a"'), new, "with a body"),
        (answer(200, [1], etag='"a"'), new, "no 304 came"),
        (answer(200, [], etag='"b"'), new, "something else"),
        (problem(404, "not_found"), None, "404 not_found"),
    ]:
        with pytest.raises(Violation, match=text):
            tagged(said, RAW, known=known)


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_only_what_may_be_refused_is(code: str) -> None:
    said = problem(REFUSALS[code], code, retry_after="1")
    if code in READING:
        assert refusal(said, READING) == Refused(code, 1.0)
    else:
        with pytest.raises(Violation, match="may not be here"):
            refusal(said, READING)


def test_mixed_baskets_add_up() -> None:
    for number in range(300):
        order = order_generator.mixed_order("s", OFFERS)
        wanted = purchase(order, OFFERS, str(number))
        assert 1 <= len(order.lines) <= 2
        assert wanted.units()["phone"] <= 1
        if order.payments:
            assert sum(share.amount for share in order.payments) == wanted.total.amount
        for line in order.lines:
            if isinstance(line.ship_to, int):
                assert line.ship_to < len(order.ship_to)
            else:
                assert sum(share.quantity for share in line.ship_to) == line.quantity
                assert max(share.address for share in line.ship_to) < len(order.ship_to)
