"""The adapter of kuaidi100: its requests, and what it makes of usable and unusable replies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

import pytest

from commerce.kernel.address import Address
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.kernel.money import Money
from commerce.shipping.carrier_port import BookingRequest, Carrier, CarrierWebhookReader, ContentLine, TrackingEvent
from commerce.shipping.carriers.kuaidi100 import Kuaidi100, Kuaidi100Account, Kuaidi100Carrier, wire
from commerce.shipping.carriers.kuaidi100.status_map import STATUS_CODES, StatusCode
from commerce.shipping.model import FINAL_STATUSES, ShipmentStatus
from tests.shipping.kuaidi100_kit import (
    ACCOUNT_SETTINGS,
    CARRIERS,
    CUSTOMER,
    HISTORY,
    KEY,
    NOTIFY_URL,
    SALT,
    FakeKuaidi100,
    FakeKuaidi100Transport,
    account,
    carrier,
    entry,
    open_fake_kuaidi100,
    query_result,
)

NUMBER, PHONE = "73100012345678", "+86 138-1234-5678"
BOOKING = UUID("0192f7c5" * 4)
FakeWithCarrier = tuple[FakeKuaidi100, Kuaidi100Carrier]


@pytest.fixture
async def fake_and_carrier() -> AsyncIterator[FakeWithCarrier]:
    async with open_fake_kuaidi100() as fake_and_carrier:
        yield fake_and_carrier


def at(day: int, hour: int, minute: int = 0, second: int = 0) -> datetime:
    """Return a moment of November 2026 in China's time."""
    return datetime(2026, 11, day, hour, minute, second, tzinfo=UTC) - timedelta(hours=8)


async def test_adapter_implements_both_ports() -> None:
    zto: Carrier = carrier(FakeKuaidi100Transport())
    reader: CarrierWebhookReader = Kuaidi100(account(), FakeKuaidi100Transport(), CARRIERS)
    assert (zto.name, zto.system, reader.system) == ("zto", "kuaidi100", "kuaidi100")
    assert (zto.accepts_bookings, zto.is_external, zto.needs_subscription) == (False, True, True)


async def test_book_is_refused_and_cancel_makes_no_request() -> None:
    transport = FakeKuaidi100Transport()
    zto, address = carrier(transport), Address("王芳", "13800000000", "CN", "杭州市", "文三路 1 号")
    request = BookingRequest(BOOKING, BOOKING, address, address, 500, 1, 1, 1, [ContentLine("茶", 1)], Money(1, "CNY"))
    for call in (zto.book(request), zto.find_booking(BOOKING)):
        with pytest.raises(ExternalRefusal, match="cannot book zto here") as error:
            await call
        assert error.value.code == "not_booked_here"
    assert await zto.cancel(BOOKING, None) == "cancelled"
    assert await zto.cancel(BOOKING, NUMBER) == "cancelled"
    assert transport.request_count == 0


async def test_subscribe_sends_account_and_phone_digits(fake_and_carrier: FakeWithCarrier) -> None:
    fake, zto = fake_and_carrier
    await zto.subscribe(NUMBER, PHONE)
    await zto.subscribe(NUMBER, PHONE)  # a repetition (501) is fine
    expected = {"callbackurl": NOTIFY_URL, "salt": SALT, "resultv2": "4", "phone": "5678"}
    assert fake.subscribed == {NUMBER: expected}
    assert fake.requests[0] == {"company": "zhongtong", "number": NUMBER, "key": KEY, "parameters": expected}
    await zto.subscribe("78900000", "12")
    assert "phone" not in fake.subscribed["78900000"], "two digits are no phone number"


async def test_tracking_returns_history(fake_and_carrier: FakeWithCarrier) -> None:
    fake, zto = fake_and_carrier
    assert await zto.fetch_tracking(NUMBER, PHONE) == [], "it has no history yet"
    fake.histories[NUMBER] = query_result(NUMBER)
    assert await zto.fetch_tracking(NUMBER, PHONE) == [
        TrackingEvent(at(24, 17, 30), "101", "已下单"),
        TrackingEvent(
            at(24, 20, 1), "103", "【上海市】青浦 已揽收", ShipmentStatus.PICKED_UP, place="上海,上海市,青浦区"
        ),
        TrackingEvent(at(24, 23, 59, 59), "0", "【嘉兴市】快件离开 嘉兴中转部", ShipmentStatus.IN_TRANSIT),
        TrackingEvent(
            at(25, 9, 12, 45),
            "5",
            "【杭州市】西湖一部 的 张三 正在派件",
            ShipmentStatus.OUT_FOR_DELIVERY,
            place="浙江,杭州市,西湖区",
        ),
        TrackingEvent(
            at(25, 18, 3, 11),
            "301",
            "【杭州市】已签收，签收人：本人",
            ShipmentStatus.DELIVERED,
            place="浙江,杭州市,西湖区",
        ),
    ]
    assert fake.requests[-1] == {"com": "zhongtong", "num": NUMBER, "resultv2": "4", "phone": "5678"}
    fake.histories[NUMBER] = query_result(NUMBER, data=[])
    assert await zto.fetch_tracking(NUMBER, PHONE) == []


async def test_wrong_key_is_refused() -> None:
    async with open_fake_kuaidi100(key="Other") as (_, zto):
        with pytest.raises(ExternalRefusal, match="503"):
            await zto.fetch_tracking(NUMBER, PHONE)
        with pytest.raises(ExternalRefusal, match="600"):
            await zto.subscribe(NUMBER, PHONE)


def test_signature_equals_independent_ones() -> None:
    # From running https://github.com/kuaidi100-api/python-demo, code/synquery.py, with this key and customer.
    param = (
        '{"com": "yuantong", "num": "YT9693083639795", "phone": "", '
        '"from": "\\u5e7f\\u4e1c\\u7701\\u6c5f\\u95e8\\u5e02", "to": "\\u5e7f\\u4e1c\\u7701\\u6df1\\u5733\\u5e02", '
        '"resultv2": "1", "show": "0", "order": "desc"}'
    )
    assert wire.sign(param, KEY, CUSTOMER) == "26C5F375ECD9B6F6515EA716C9936EDC"
    # From md5sum of GNU coreutils.
    assert wire.sign('{"message":"已签收"}', SALT) == "FFA92BE428CF93E84F67FEBC5715E7FF"
    form = parse_qs(wire.make_query_form(account(), "zhongtong", NUMBER, PHONE).decode())
    assert form == {
        "customer": [CUSTOMER],
        "sign": ["2A9ECD6F4C22EDFE32F741C20D5380ED"],
        "param": ['{"com":"zhongtong","num":"73100012345678","resultv2":"4","phone":"5678"}'],
    }


@pytest.mark.parametrize(("code", "status_code"), STATUS_CODES.items())
async def test_listed_code_or_name_decodes_to_status(code: str, status_code: StatusCode) -> None:
    for history_entry in (
        entry("2026-11-24 17:30:00", "…", status_code.name, code),
        entry("2026-11-24 17:30:00", "…", status_code.name, None),
    ):
        (event,) = await carrier(FakeKuaidi100Transport(query_result(NUMBER, data=[history_entry]))).fetch_tracking(
            NUMBER, PHONE
        )
        assert (event.code, event.status, event.is_unknown_code) == (code, status_code.status, False), (
            "by its code, or by its name alone"
        )


def test_final_statuses_have_these_codes_only() -> None:
    final = {code: each.status for code, each in STATUS_CODES.items() if each.status in FINAL_STATUSES}
    delivered = dict.fromkeys(("3", "301", "302", "303", "304"), ShipmentStatus.DELIVERED)
    assert final == delivered | {"4": ShipmentStatus.RETURNED_TO_SENDER}
    assert all(STATUS_CODES[code].status is None for code in ("6", "14", "203", "401")), (
        "on its way back is not returned"
    )


@pytest.mark.parametrize(
    ("status", "code", "stored"),
    [
        ("签收", "305", "305"),
        ("签收", "9", "9"),
        ("签收", "03", "03"),
        ("签收", "-1", "-1"),
        ("飞走了", None, "飞走了"),
        ("飞走了", "", "飞走了"),
        (None, None, "unsaid"),
        ("", "7" * 99, "7" * 64),
    ],
)
async def test_unknown_code_is_stored_without_status(status: Any, code: Any, stored: str) -> None:
    history_entry = entry("2026-11-24 17:30:00", "派件", status, code)
    (event,) = await carrier(FakeKuaidi100Transport(query_result(NUMBER, data=[history_entry]))).fetch_tracking(
        NUMBER, PHONE
    )
    assert event == TrackingEvent(at(24, 17, 30), stored, "派件", None, is_unknown_code=True)


@pytest.mark.parametrize(
    ("changed", "text", "place"),
    [
        ({"context": "好" * 501}, "好" * 500, None),
        ({"context": "a\0b\r\n c\t"}, "a b c", None),
        ({"context": ""}, "在途", None),
        ({"context": None, "status": None}, "0", None),
        ({"context": "x", "location": "青浦", "areaName": "上海"}, "x", "青浦"),
        ({"context": "x", "areaName": "沪" * 201}, "x", "沪" * 200),
        ({"context": "x", "statusCode": 0}, "x", None),
        ({"context": "x", "ftime": None}, "x", None),
        ({"context": "x", "time": "24/11 17:30"}, "x", None),
    ],
)
async def test_entry_texts_are_cut_and_cleaned(changed: dict[str, Any], text: str, place: str | None) -> None:
    history_entry = entry("2026-11-24 17:30:00", "…", "在途", "0") | changed
    (event,) = await carrier(FakeKuaidi100Transport(query_result(NUMBER, data=[history_entry]))).fetch_tracking(
        NUMBER, PHONE
    )
    assert event == TrackingEvent(at(24, 17, 30), "0", text, ShipmentStatus.IN_TRANSIT, place=place)


async def test_history_is_sorted_by_time() -> None:
    same = [entry("2026-11-24 17:30:00", text, "在途", "0") for text in ("second", "first")]
    for history in (HISTORY, HISTORY[::-1], HISTORY[2:] + HISTORY[:2]):
        events = await carrier(FakeKuaidi100Transport(query_result(NUMBER, data=history + same))).fetch_tracking(
            NUMBER, PHONE
        )
        assert [event.at for event in events] == sorted(event.at for event in events)
        assert len(events) == 7
        assert [event.text for event in events if event.text in ("first", "second")] == ["first", "second"]


async def test_tracking_no_is_compared_ignoring_case() -> None:
    assert (
        len(await carrier(FakeKuaidi100Transport(query_result("YT12345678"))).fetch_tracking("yt12345678", PHONE)) == 5
    )


def error_result(code: Any, message: Any = "…", **members: Any) -> dict[str, Any]:
    return {"result": False, "returnCode": code, "message": message} | members


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (error_result("400", "找不到对应公司"), "400"),
        (error_result("408", "验证码错误"), "408"),
        (error_result("503"), "503"),
        (error_result(503), "503"),
        (error_result("501", "服务器错误"), None),
        (error_result("502", "服务器繁忙"), None),
        (error_result("504"), None),
        (error_result("601", "KEY已过期"), None),
        (error_result("999"), None),
        (error_result(""), None),
        (error_result("2" * 9999, "…" * 9999), None),
    ],
)
async def test_query_error_is_refusal_or_unknown_outcome(answer: dict[str, Any], refused: str | None) -> None:
    with pytest.raises((ExternalRefusal, ExternalOutcomeUnknown)) as error:
        await carrier(FakeKuaidi100Transport(answer)).fetch_tracking(NUMBER, PHONE)
    assert getattr(error.value, "code", None) == refused
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "answer",
    [
        error_result("500", "查询无结果，请隔段时间再查"),
        {
            "message": "快递公司参数异常：单号不存在或者已经过期",
            "nu": "",
            "com": "",
            "status": "201",
            "state": "0",
            "data": [],
        },
        {"message": "查询无结果，请隔段时间再查", "status": "201"},
    ],
)
async def test_number_without_history_has_no_events(answer: dict[str, Any]) -> None:
    assert await carrier(FakeKuaidi100Transport(answer)).fetch_tracking(NUMBER, PHONE) == []


def history_with(**changed: Any) -> dict[str, Any]:
    return query_result(NUMBER, data=[*HISTORY, entry("2026-11-24 17:30:00", "…", "在途", "0") | changed])


UNUSABLE_REPLIES: list[tuple[Any, int]] = [
    (b"", 200),
    (b"<html>504 Gateway Time-out</html>", 200),
    (b"\xff\xfe", 200),
    (b'{"message":"\xff"}', 200),
    (b'{"message":"\\ud800"}', 200),
    (b"[" * 100_000, 200),
    (None, 200),
    ([], 200),
    ("ok", 200),
    ({}, 200),
    (query_result(NUMBER), 201),
    (query_result(NUMBER), 302),
    (query_result(NUMBER), 500),
    (error_result("400"), 400),
    (query_result("73100012345679"), 200),
    (query_result(NUMBER + "0"), 200),
    (query_result(None), 200),  # type: ignore[arg-type]
    (query_result(int(NUMBER)), 200),  # type: ignore[arg-type]
    (query_result(NUMBER, com="yuantong"), 200),
    (query_result(NUMBER, com=""), 200),
    (query_result(NUMBER, data=None), 200),
    (query_result(NUMBER, data={}), 200),
    (query_result(NUMBER, data="[]"), 200),
    (query_result(NUMBER, data=[None]), 200),
    (query_result(NUMBER, data=["已签收"]), 200),
    (query_result(NUMBER, data=HISTORY * 201), 200),
    (query_result(NUMBER, status="0"), 200),
    (query_result(NUMBER, status=None), 200),
    (query_result(NUMBER, status=True), 200),
    *(
        (history_with(ftime=time), 200)
        for time in (
            *("2026-11-24", "2026-11-24 17:30", "2026-11-24T17:30:00", "2026-11-24 17:30:00 ", " 2026-11-24 17:30:00"),
            *("2026-11-24 17:30:60", "2026-13-24 17:30:00", "2026-11-31 17:30:00", "2026-11-24 24:00:00", "now", "0"),
            *(
                "0001-01-01 00:00:00",
                "20261-1-24 17:30:00",
                "２０２６-11-24 17:30:00",
                "2026-11-4 17:30:00",
                1_795_000_000,
            ),
        )
    ),
    (history_with(time=None, ftime=None), 200),
    (history_with(time="", ftime=""), 200),
    (history_with(statusCode=1.0), 200),
    (history_with(statusCode=["0"]), 200),
    (history_with(statusCode=False), 200),
    (history_with(status=0), 200),
    (history_with(context=["…"]), 200),
    (history_with(areaName={}), 200),
]


@pytest.mark.parametrize(("content", "status"), UNUSABLE_REPLIES, ids=range(len(UNUSABLE_REPLIES)))
async def test_unusable_reply_is_an_unknown_outcome(content: Any, status: int) -> None:
    with pytest.raises(ExternalOutcomeUnknown) as error:
        await carrier(FakeKuaidi100Transport(content, status)).fetch_tracking(NUMBER, PHONE)
    assert len(str(error.value)) < 1_000
    with pytest.raises(ExternalOutcomeUnknown):
        await carrier(FakeKuaidi100Transport(content, status)).subscribe(NUMBER, PHONE)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (error_result("600"), "600"),
        (error_result("700", "POLL:不支持的快递公司"), "700"),
        (error_result(701), "701"),
        (error_result("702"), "702"),
        (error_result("500"), None),
        (error_result("601"), None),
        (error_result("503"), None),
        (error_result("200"), None),
        (error_result("500", result=True), None),
        (error_result(None), None),
        (error_result(200.0, result=True), None),
        (error_result("200", result="true"), None),
        (error_result("200", result=None), None),
    ],
)
async def test_subscribe_error_is_refusal_or_unknown_outcome(answer: dict[str, Any], refused: str | None) -> None:
    with pytest.raises((ExternalRefusal, ExternalOutcomeUnknown)) as error:
        await carrier(FakeKuaidi100Transport(answer)).subscribe(NUMBER, PHONE)
    assert getattr(error.value, "code", None) == refused


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("customer", ["", "é", "a b", "a" * 65, "a\n"]),
        ("key", ["", "é", "secret-key", "k" * 65, "secretkey\n"]),
        ("salt", ["", "secret", "secret" * 11, "secretsecretsecr et", "secretsecretsecreté", "secretsecretsecret\n"]),
        ("base_url", ["", "poll.kuaidi100.com", "ftp://x", "https://x?y", "https://x#y", "https://x y", "https://"]),
        ("notify_url", ["", "shop.example", "http://x?y", "http://x\n"]),
    ],
)
def test_invalid_credential_is_refused_without_showing_it(name: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=f"^kuaidi100 {name}: ") as error:
            account(**{name: text})
        assert "secret" not in str(error.value)


def test_account_repr_shows_no_secret() -> None:
    loaded = Kuaidi100Account.load(**ACCOUNT_SETTINGS)
    assert loaded.base_url == "https://poll.kuaidi100.com"
    assert KEY not in repr(loaded)
    assert SALT not in repr(loaded)


@pytest.mark.parametrize(
    "carriers",
    [{"ZTO": "zhongtong"}, {"": "zhongtong"}, {"zto": ""}, {"zto": "ZhongTong"}, {"zto": "中通"}, {"a": "x", "b": "x"}],
)
def test_invalid_carrier_map_is_refused(carriers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^kuaidi100_carriers: "):
        Kuaidi100(account(), FakeKuaidi100Transport(), carriers)
