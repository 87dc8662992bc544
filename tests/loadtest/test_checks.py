"""Checks of the load tests: every broken promise is found, and no correct answer is refused."""

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
from loadtest.scenarios.checks import (
    READ_REFUSALS,
    REFUSALS,
    CheckedResponse,
    ExpectedRefusal,
    TaggedValue,
    Violation,
    check_refusal,
    check_tagged,
)
from loadtest.scenarios.purchase_log import Purchase, PurchaseLog, create_purchase

OFFERS = {
    "phone": Offer("phone", "Phone", 399_900, "CNY", 1, None),
    "tea": Offer("tea", "Tea", 16_800, "CNY", None, None),
}
ID, OTHER = UUID(int=1), UUID(int=2)
RAW: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def answer(status: int, body: Any, **headers: str) -> CheckedResponse:
    header_names = {name.replace("_", "-"): value for name, value in headers.items()}
    return CheckedResponse(
        status, {"x-request-id": "r", **header_names}, body if isinstance(body, bytes) else msgspec.json.encode(body)
    )


def problem(
    status: int, code: str, *, body_status: int | None = None, sku: str | None = None, **headers: str
) -> CheckedResponse:
    body = {"type": "t", "title": "t", "status": body_status or status, "code": code, "detail": "d", "request_id": "r"}
    more = {"sku": sku} if sku else {}
    return answer(status, body | more, **{"content_type": "application/problem+json", **headers})


def placed(
    status: int = 202, order_id: UUID = ID, amount: int = 399_900, location: str | None = None, **other: Any
) -> CheckedResponse:
    pay_by = datetime.now(UTC) + timedelta(minutes=15)
    body = PlacedOrder(order_id, "accepted", "s", Money(amount, "CNY"), pay_by, "fsync")
    return answer(status, msgspec.to_builtins(body) | other, location=location or f"/v1/orders/{order_id}")


def phone(key: str = "one") -> Purchase:
    return create_purchase(order_generator.single_item_order("s", "phone"), OFFERS, key)


def place(log: PurchaseLog) -> Purchase:
    purchase = phone()
    assert isinstance(log.check_placed(purchase, placed()), PlacedOrder)
    return purchase


def test_correct_answers_are_accepted() -> None:
    promised: Counter[str] = Counter()
    log = PurchaseLog(promised)
    purchase, first = phone(), placed()
    assert log.check_placed(purchase, problem(503, "outcome_unknown", retry_after="1")) == ExpectedRefusal(
        "outcome_unknown", 1.0
    )
    log.check_placed(purchase, first)
    log.check_placed(purchase, answer(200, first.body, location=first.headers["location"]))
    assert promised == {"phone": 1}
    assert log.check_placed(phone("two"), problem(409, "over_limit", sku="phone")) == ExpectedRefusal(
        "over_limit", sku="phone"
    )
    assert set(log.filter_available(OFFERS)) == {"tea"}


def test_order_after_lost_answer_may_be_a_replay() -> None:
    purchase = phone()
    purchase.mark_outcome_unknown()
    assert isinstance(PurchaseLog(Counter()).check_placed(purchase, placed(200)), PlacedOrder)


def test_cancelled_order_is_not_counted_for_the_limit() -> None:
    log = PurchaseLog(Counter())
    place(log).is_cancel_requested = True
    log.check_placed(phone("two"), placed(order_id=OTHER))
    assert isinstance(log.check_placed(phone("three"), problem(409, "over_limit", sku="phone")), ExpectedRefusal)


@pytest.mark.parametrize(
    ("response", "text"),
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
        (problem(409, "sold_out", body_status=410, sku="phone"), "a problem names another status than its answer has"),
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
def test_wrong_answer_to_order_is_a_violation(response: CheckedResponse, text: str) -> None:
    with pytest.raises(Violation) as raised:
        PurchaseLog(Counter()).check_placed(phone(), response)
    assert raised.value.text == text


@pytest.mark.parametrize(
    ("response", "text"),
    [
        (placed(), "202 for a repeat of an accepted order"),
        (placed(200, OTHER), "a repeat has another body"),
        (problem(409, "sold_out", sku="phone"), "an accepted order is refused when it is repeated: sold_out"),
        (problem(410, "sale_closed"), "an accepted order is refused when it is repeated: sale_closed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_answer_to_repeat_is_a_violation(response: CheckedResponse, text: str) -> None:
    log = PurchaseLog(Counter())
    purchase = place(log)
    with pytest.raises(Violation, match=f"^{text}$"):
        log.check_placed(purchase, response)


def test_order_above_limit_is_a_violation() -> None:
    promised: Counter[str] = Counter()
    log = PurchaseLog(promised)
    place(log)
    with pytest.raises(Violation, match="more than the limit"):
        log.check_placed(phone("two"), placed(order_id=OTHER))
    assert promised == {"phone": 2}


def test_same_order_for_two_keys_is_a_violation() -> None:
    log = PurchaseLog(Counter())
    log.check_placed(
        create_purchase(order_generator.single_item_order("s", "tea"), OFFERS, "one"), placed(amount=16_800)
    )
    with pytest.raises(Violation, match="two keys"):
        log.check_placed(
            create_purchase(order_generator.single_item_order("s", "tea"), OFFERS, "two"), placed(amount=16_800)
        )


def stored(purchase: Purchase, **changes: Any) -> Order:
    lines = [
        OrderLine(line_no, sku, quantity, ship_to, price, price, 0, quantity * price)
        for line_no, sku, quantity, ship_to, price in sorted(purchase.parts)
    ]
    order = Order(
        purchase.order_id,
        OrderStatus.AWAITING_PAYMENT,
        "s",
        purchase.total,
        lines=lines,
        ship_to=purchase.order.ship_to,
        payments=purchase.order.payments,
    )
    return msgspec.structs.replace(order, **changes)


def test_stored_order_must_stay_stored() -> None:
    purchase = place(PurchaseLog(Counter()))
    early = Order(ID, OrderStatus.ACCEPTED, "s")
    assert purchase_log.check_read(purchase, answer(200, early)) == early
    assert not purchase.is_stored
    assert purchase_log.check_read(purchase, answer(200, stored(purchase))) == stored(purchase)
    assert purchase.is_stored
    with pytest.raises(Violation, match="no longer stored"):
        purchase_log.check_read(purchase, answer(200, early))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda purchase: problem(404, "not_found"), "404 for an order that was promised"),
        (lambda purchase: answer(206, stored(purchase)), "206 where only 200 is right"),
        (lambda purchase: answer(200, stored(purchase, order_id=OTHER)), "another order than was requested"),
        (lambda purchase: answer(200, stored(purchase, sale_id="t")), "the order is in another sale"),
        (lambda purchase: answer(200, stored(purchase, status=OrderStatus.PAID)), "paid for an order that nobody paid"),
        (lambda purchase: answer(200, stored(purchase, total=Money(1, "CNY"))), "another total was stored"),
        (lambda purchase: answer(200, stored(purchase, lines=[])), "other lines were stored"),
        (lambda purchase: answer(200, stored(purchase, ship_to=[])), "other addresses were stored"),
        (lambda purchase: answer(200, stored(purchase, payments=None)), "other payments were stored"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_stored_order_is_a_violation(make: Callable[[Purchase], CheckedResponse], text: str) -> None:
    purchase = place(PurchaseLog(Counter()))
    with pytest.raises(Violation, match=f"^{text}$"):
        purchase_log.check_read(purchase, make(purchase))


def test_search_by_key_must_return_one_order() -> None:
    purchase = place(PurchaseLog(Counter()))
    expected = stored(purchase)
    assert purchase_log.check_found_by_key(purchase, answer(200, {"items": [expected], "next": None})) == expected
    for items in ([], [expected, expected]):
        with pytest.raises(Violation, match="not one order"):
            purchase_log.check_found_by_key(purchase, answer(200, {"items": items, "next": None}))


def test_cancellation_needs_status_and_reason() -> None:
    purchase = place(PurchaseLog(Counter()))
    purchase.is_cancel_requested = True
    with pytest.raises(Violation, match="after a cancellation"):
        purchase_log.check_cancelled(purchase, answer(200, stored(purchase)))
    with pytest.raises(Violation, match="has no reason"):
        purchase_log.check_cancelled(purchase, answer(200, stored(purchase, status=OrderStatus.CANCELLED)))
    expected = stored(purchase, status=OrderStatus.CANCELLED, cancel_reason="by_customer")
    assert purchase_log.check_cancelled(purchase, answer(200, expected)) == expected
    assert purchase_log.check_cancelled(purchase, problem(409, "not_stored_yet", retry_after="1")) == ExpectedRefusal(
        "not_stored_yet", 1.0
    )


def test_own_list_must_hold_known_orders_newest_first() -> None:
    log = PurchaseLog(Counter())
    purchase = place(log)
    expected = stored(purchase)

    def listed(*items: Order) -> object:
        return log.check_own_list(purchase, answer(200, {"items": items, "next": None}))

    assert not isinstance(listed(expected), ExpectedRefusal)
    foreign = msgspec.structs.replace(expected, order_id=OTHER)
    for items, text in [
        ((), "not in the list"),
        ((expected, expected), "not newest first"),
        ((expected, foreign), "not newest first"),
        ((foreign, expected), "never placed"),
        ((stored(purchase, total=Money(1, "CNY")),), "another order than was placed"),
    ]:
        with pytest.raises(Violation, match=text):
            listed(*items)
    log.is_certain = False
    assert not isinstance(listed(foreign, expected), ExpectedRefusal)


def test_wrong_etag_is_a_violation() -> None:
    new = check_tagged(answer(200, [1], etag='"a"'), RAW)
    assert new == TaggedValue('"a"', [1])
    assert check_tagged(answer(304, b"", etag='"a"'), RAW, cached=new) is new
    weak = check_tagged(answer(200, [1], etag='W/"a"'), RAW)
    assert check_tagged(answer(304, b"", etag='W/"a"'), RAW, cached=weak) is weak
    for response, cached, text in [
        (answer(200, [1]), None, "has no ETag"),
        (answer(200, [1], etag='W/a"'), None, "has no ETag"),
        (answer(304, b"", etag='"a"'), None, "no ETag was sent"),
        (answer(304, b"", etag='"b"'), new, "another ETag"),
        (answer(304, b"x", etag='"a"'), new, "with a body"),
        (answer(200, [1], etag='"a"'), new, "no 304 came"),
        (answer(200, [], etag='"b"'), new, "something else"),
        (problem(404, "not_found"), None, "404 not_found"),
    ]:
        with pytest.raises(Violation, match=text):
            check_tagged(response, RAW, cached=cached)


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_refusal_of_read_must_be_allowed_for_reads(code: str) -> None:
    response = problem(REFUSALS[code], code, retry_after="1")
    if code in READ_REFUSALS:
        assert check_refusal(response, READ_REFUSALS) == ExpectedRefusal(code, 1.0)
    else:
        with pytest.raises(Violation, match="may not be here"):
            check_refusal(response, READ_REFUSALS)


def test_mixed_orders_add_up() -> None:
    for number in range(300):
        order = order_generator.mixed_order("s", OFFERS)
        purchase = create_purchase(order, OFFERS, str(number))
        assert 1 <= len(order.lines) <= 2
        assert purchase.count_units()["phone"] <= 1
        if order.payments:
            assert sum(share.amount for share in order.payments) == purchase.total.amount
        for line in order.lines:
            if isinstance(line.ship_to, int):
                assert line.ship_to < len(order.ship_to)
            else:
                assert sum(share.quantity for share in line.ship_to) == line.quantity
                assert max(share.address for share in line.ship_to) < len(order.ship_to)
