"""The adapter of SF Express: book, find, cancel and track, with responses as documented."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.money import Money
from commerce.shipping.carrier_port import BookingConfirmation, Carrier, CarrierWebhookReader
from commerce.shipping.carriers.sf_express import SfExpress
from commerce.shipping.carriers.sf_express.status_map import (
    ABSENT_CODES,
    BOOKING_REFUSALS,
    CANCELLED_CODES,
    DUPLICATE_ORDER,
)
from tests.shipping.sf_express_kit import (
    ACCOUNT_SETTINGS,
    BOOKING,
    CALLS,
    NUMBER,
    OTHER_NUMBER,
    RECIPIENT,
    SENDER,
    booking_request,
    error_response,
    make_adapter,
    order_result,
    platform_response,
    route_entry,
    routes_response,
    success_response,
)

CANCELLATION = {"orderId": BOOKING.hex, "waybillNoInfoList": [], "resStatus": 2, "extraInfoList": None}


def test_adapter_implements_both_ports() -> None:
    adapter, _ = make_adapter()
    carrier: Carrier = adapter
    reader: CarrierWebhookReader = adapter
    assert (
        carrier.name,
        carrier.system,
        carrier.accepts_bookings,
        carrier.is_external,
        carrier.needs_subscription,
    ) == (
        *("sf_express", "sf_express"),
        *(True, True, False),
    )
    assert reader.system == carrier.system


async def test_book_sends_order_and_returns_number() -> None:
    adapter, transport = make_adapter(success_response(order_result()))
    assert await adapter.book(booking_request()) == BookingConfirmation(NUMBER, "710VA-F")
    (request,) = transport.requests
    assert (request.method, request.url, request.service) == (
        "POST",
        ACCOUNT_SETTINGS["base_url"],
        "EXP_RECE_CREATE_ORDER",
    )
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded; charset=UTF-8"
    assert request.message == {
        "language": "zh-CN",
        "orderId": BOOKING.hex,
        "cargoDetails": [{"name": "红茶杯", "count": 2}, {"name": ("茶 " * 100)[:128], "count": 1}],
        "contactInfoList": [
            {
                "contactType": 1,
                "country": "CN",
                "contact": "红茶仓",
                "mobile": "57188880000",
                "province": "浙江省",
                "city": "杭州市",
                "county": "西湖区",
                "address": "文三路 1 号 *一楼*",
                "postCode": "310000",
            },
            {
                "contactType": 2,
                "country": "CN",
                "contact": "张三 ~",
                "mobile": "13925211148",
                "province": "广东省",
                "city": "广州市",
                "county": "白云区",
                "address": "湖北大厦 10 楼 & 2",
            },
        ],
        "monthlyCard": "7551234567",
        "payMethod": 1,
        "expressTypeId": 1,
        "parcelQty": 1,
        "totalWeight": 1.234,
        "totalLength": 40.5,
        "totalWidth": 30.0,
        "totalHeight": 20.0,
        "isReturnRoutelabel": 1,
        "isUnifiedWaybillNo": 1,
    }


@pytest.mark.parametrize(
    ("credentials", "card"), [({}, "7551234567"), ({"cod_card": "7550000001", "express_type": "2"}, "7550000001")]
)
async def test_book_with_cash_on_delivery_names_amount_and_card(credentials: dict[str, str], card: str) -> None:
    adapter, transport = make_adapter(success_response(order_result()), **credentials)
    await adapter.book(booking_request(cod=Money(10_805, "CNY")))
    assert transport.requests[0].message["serviceList"] == [{"name": "COD", "value": "108.05", "value1": card}]
    assert transport.requests[0].message["expressTypeId"] == int(credentials.get("express_type", "1"))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"cod": Money(100, "HKD")}, "unsupported"),
        ({"recipient": msgspec.structs.replace(RECIPIENT, country="HK")}, "unsupported"),
        ({"sender": msgspec.structs.replace(SENDER, country="GB")}, "unsupported"),
        ({"recipient": msgspec.structs.replace(RECIPIENT, province="省" * 31)}, "too_long"),
        ({"recipient": msgspec.structs.replace(RECIPIENT, name="三" * 101)}, "too_long"),
        ({"recipient": msgspec.structs.replace(RECIPIENT, line="楼" * 201)}, "too_long"),
        ({"recipient": msgspec.structs.replace(RECIPIENT, phone="1" * 21)}, "too_long"),
    ],
)
async def test_unsupported_shipment_is_refused_without_request(changed: dict[str, Any], code: str) -> None:
    adapter, transport = make_adapter()
    with pytest.raises(ExternalRefusal) as error:
        await adapter.book(booking_request(**changed))
    assert (error.value.code, transport.requests) == (code, [])


@pytest.mark.parametrize("code", sorted(BOOKING_REFUSALS - {DUPLICATE_ORDER}))
async def test_refusal_code_is_raised_as_refusal(code: str) -> None:
    adapter, transport = make_adapter(error_response(code, "传入了不可发货的月结卡号" * 50), error_response("8018"))
    with pytest.raises(ExternalRefusal) as error:
        await adapter.book(booking_request())
    assert error.value.code == code
    assert len(error.value.detail) == 200
    assert transport.services == ["CREATE_ORDER", "SEARCH_ORDER_RESP"]


async def test_refused_order_that_exists_is_confirmed() -> None:
    adapter, _ = make_adapter(error_response("8177"), success_response(order_result()))
    assert (await adapter.book(booking_request())).tracking_no == NUMBER
    adapter, _ = make_adapter(error_response("8177"), ExternalOutcomeUnknown("timed out"))
    with pytest.raises(ExternalOutcomeUnknown, match="timed out"):
        await adapter.book(booking_request())


async def test_duplicate_order_is_searched() -> None:
    adapter, transport = make_adapter(error_response(8016), success_response(order_result(filterResult="2")))
    assert await adapter.book(booking_request()) == BookingConfirmation(NUMBER, "710VA-F")
    assert transport.services == ["CREATE_ORDER", "SEARCH_ORDER_RESP"]
    assert transport.requests[1].message == {"orderId": BOOKING.hex, "searchType": "1", "language": "zh-CN"}
    adapter, _ = make_adapter(error_response("8016"), error_response("8018"))
    with pytest.raises(ExternalOutcomeUnknown, match="does not find"):
        await adapter.book(booking_request())


@pytest.mark.parametrize("has_number", [True, False])
async def test_undecided_order_is_searched_again(has_number: bool) -> None:
    by_hand = order_result(filterResult=1) if has_number else order_result(filterResult=1, waybillNoInfoList=None)
    adapter, _ = make_adapter(success_response(by_hand), success_response(by_hand))
    with pytest.raises(ExternalOutcomeUnknown, match="has not decided"):
        await adapter.book(booking_request())
    adapter, transport = make_adapter(success_response(by_hand), success_response(order_result()))
    assert (await adapter.book(booking_request())).tracking_no == NUMBER
    assert transport.services == ["CREATE_ORDER", "SEARCH_ORDER_RESP"]
    adapter, _ = make_adapter(success_response(by_hand), error_response("8018"))
    with pytest.raises(ExternalOutcomeUnknown, match="has not decided"):
        await adapter.book(booking_request())
    adapter, _ = make_adapter(success_response(by_hand), success_response(order_result(filterResult="3", remark="2")))
    with pytest.raises(ExternalRefusal, match="filter_3"):
        await adapter.book(booking_request())


@pytest.mark.parametrize("numbers", [None, [], [{"waybillType": 1, "waybillNo": NUMBER}]])
async def test_unserved_address_is_refused(numbers: Any) -> None:
    adapter, _ = make_adapter(
        success_response(order_result(filterResult=3, waybillNoInfoList=numbers, remark="派方超范围" * 100))
    )
    with pytest.raises(ExternalRefusal) as error:
        await adapter.book(booking_request())
    assert error.value.code == "filter_3"
    assert "派方超范围" in error.value.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"orderId": "0" * 32},
        {"orderId": None},
        {"filterResult": 4},
        {"filterResult": ""},
        {"filterResult": 2.5},
        {"waybillNoInfoList": None},
        {"waybillNoInfoList": []},
        {"waybillNoInfoList": [{"waybillType": 3, "waybillNo": NUMBER}]},
        {"waybillNoInfoList": [{"waybillType": 1, "waybillNo": NUMBER}, {"waybillType": 1, "waybillNo": OTHER_NUMBER}]},
        {"waybillNoInfoList": [{"waybillType": 1, "waybillNo": ""}]},
        {"waybillNoInfoList": [{"waybillType": 1, "waybillNo": "SF 1"}]},
        {"waybillNoInfoList": [{"waybillType": 1, "waybillNo": 7444400043266}]},
        {"waybillNoInfoList": [{"waybillType": 1}]},
        {"waybillNoInfoList": NUMBER},
    ],
)
async def test_incomplete_order_is_an_unknown_outcome(changed: dict[str, Any]) -> None:
    for name in ("book", "find"):
        adapter, _ = make_adapter(success_response(order_result(**changed)))
        with pytest.raises(ExternalOutcomeUnknown):
            await CALLS[name](adapter)


@pytest.mark.parametrize(
    ("changed", "sort_code"),
    [
        ({}, "710VA-F"),
        ({"routeLabelInfo": None}, None),
        ({"routeLabelInfo": []}, None),
        ({"routeLabelInfo": [{"code": "0010", "routeLabelData": {"destRouteLabel": "710"}}]}, None),
        ({"routeLabelInfo": [{"code": 1000, "routeLabelData": {"destRouteLabel": "710"}}]}, "710"),
        ({"routeLabelInfo": [{"code": "1000", "routeLabelData": None}]}, None),
        ({"routeLabelInfo": [{"code": "1000", "routeLabelData": {"destRouteLabel": ""}}]}, None),
        ({"routeLabelInfo": [{"code": "1000", "routeLabelData": {"destRouteLabel": "7" * 65}}]}, None),
        ({"filterResult": None}, "710VA-F"),
        (
            {
                "waybillNoInfoList": [
                    {"waybillType": 3, "waybillNo": OTHER_NUMBER},
                    {"waybillType": "1", "waybillNo": NUMBER},
                ]
            },
            "710VA-F",
        ),
    ],
)
async def test_sort_code_is_read_from_label(changed: dict[str, Any], sort_code: str | None) -> None:
    adapter, _ = make_adapter(success_response(order_result(**changed)))
    assert await adapter.book(booking_request()) == BookingConfirmation(NUMBER, sort_code)


@pytest.mark.parametrize("code", sorted(ABSENT_CODES))
async def test_absent_booking_is_not_found(code: str) -> None:
    adapter, _ = make_adapter(error_response(code))
    assert await adapter.find_booking(BOOKING) is None


async def test_existing_booking_is_found() -> None:
    adapter, _ = make_adapter(success_response(order_result()))
    assert await adapter.find_booking(BOOKING) == BookingConfirmation(NUMBER, "710VA-F")
    adapter, _ = make_adapter(success_response(order_result(filterResult="3", waybillNoInfoList=[])))
    assert await adapter.find_booking(BOOKING) is None
    adapter, _ = make_adapter(success_response(order_result(filterResult="1")))
    with pytest.raises(ExternalOutcomeUnknown, match="has not decided"):
        await adapter.find_booking(BOOKING)


@pytest.mark.parametrize("number", [NUMBER, None])
async def test_cancel_returns_cancelled(number: str | None) -> None:
    adapter, transport = make_adapter(
        success_response(CANCELLATION), *(error_response(code) for code in sorted(CANCELLED_CODES))
    )
    for _ in range(1 + len(CANCELLED_CODES)):
        assert await adapter.cancel(BOOKING, number) == "cancelled"
    assert transport.services == ["UPDATE_ORDER"] * 3
    assert transport.requests[0].message == {"orderId": BOOKING.hex, "dealType": 2, "language": "zh-CN"}


@pytest.mark.parametrize("code", sorted(ABSENT_CODES))
async def test_cancel_of_absent_order_returns_absent(code: str) -> None:
    adapter, transport = make_adapter(error_response(code))
    assert await adapter.cancel(BOOKING, None) == "absent"
    assert transport.services == ["UPDATE_ORDER"]
    adapter, _ = make_adapter(error_response(code))
    with pytest.raises(ExternalOutcomeUnknown, match="does not find an order that has its number"):
        await adapter.cancel(BOOKING, NUMBER)


@pytest.mark.parametrize(
    "answer",
    [
        error_response("8252"),
        error_response("8019"),
        error_response("8044"),
        success_response(CANCELLATION | {"resStatus": 1}),
        ExternalOutcomeUnknown("no answer"),
    ],
)
async def test_cancel_after_pick_up_returns_too_late(answer: Any) -> None:
    adapter, transport = make_adapter(answer, routes_response(route_entry("50")))
    assert await adapter.cancel(BOOKING, NUMBER) == "too_late"
    assert transport.services == ["UPDATE_ORDER", "SEARCH_ROUTES"]
    message = transport.requests[1].message
    assert (message["trackingType"], message["trackingNumber"]) == ("2", [BOOKING.hex])
    for no_status in (
        routes_response(),
        routes_response(route_entry("127")),
        routes_response(route_entry("646"), route_entry("4711")),
        error_response("8018"),
    ):
        adapter, _ = make_adapter(answer, no_status)
        with pytest.raises(ExternalOutcomeUnknown):
            await adapter.cancel(BOOKING, NUMBER)


@pytest.mark.parametrize(
    "changed", [{"orderId": "0" * 32}, {"resStatus": None}, {"resStatus": 1}, {"resStatus": "3"}, {"resStatus": True}]
)
async def test_incomplete_cancellation_is_an_unknown_outcome(changed: dict[str, Any]) -> None:
    adapter, _ = make_adapter(success_response(CANCELLATION | changed), routes_response())
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.cancel(BOOKING, NUMBER)


async def test_subscribe_sends_no_request() -> None:
    adapter, transport = make_adapter()
    await adapter.subscribe(NUMBER, RECIPIENT.phone)
    assert transport.requests == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_request_ids_are_unique(call: Callable[[SfExpress], Awaitable[Any]]) -> None:
    # The platform is overloaded twice, and again for the routes that a cancellation fetches.
    busy = [platform_response(None, apiResultCode="A1005") for _ in range(4)]
    adapter, transport = make_adapter(*busy)
    for _ in range(2):
        with pytest.raises(ExternalOutcomeUnknown, match="A1005"):
            await call(adapter)
    ids = [UUID(request.form["requestID"]) for request in transport.requests]
    assert len(set(ids)) == len(ids) >= 2
