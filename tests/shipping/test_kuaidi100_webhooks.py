"""Pushes of kuaidi100: the genuine are read, and whatever is changed in one is refused for the right reason."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from commerce.kernel.external import InvalidWebhook, WebhookReply
from commerce.shipping.carrier_port import CarrierWebhook
from commerce.shipping.carriers.kuaidi100 import Kuaidi100
from commerce.shipping.carriers.kuaidi100.wire import MAX_WEBHOOK_BYTES
from commerce.shipping.model import ShipmentStatus
from tests.shipping.kuaidi100_kit import (
    CARRIERS,
    HISTORY,
    SALT,
    FakeKuaidi100Transport,
    account,
    carrier,
    entry,
    md5,
    query_result,
    webhook_body,
    webhook_param,
)

NUMBER = "73100012345678"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
READER = Kuaidi100(account(), FakeKuaidi100Transport(), CARRIERS)
GENUINE = webhook_body(webhook_param(query_result(NUMBER)))


def read(body: bytes) -> CarrierWebhook:
    return READER.read_webhook({"content-type": "application/x-www-form-urlencoded"}, {}, body, NOW)


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidWebhook) as error:
        read(body)
    assert SALT not in str(error.value)
    assert len(str(error.value)) < 500
    return error.value.code


async def test_a_genuine_push_has_the_whole_history() -> None:
    notice = read(GENUINE)
    (one,) = notice.updates
    assert (one.carrier, one.tracking_no, one.booking_id) == ("zto", NUMBER, None)
    assert [news.code for news in one.events] == ["101", "103", "0", "5", "301"]
    assert one.events[-1].status == ShipmentStatus.DELIVERED
    assert one.events == await carrier(FakeKuaidi100Transport(query_result(NUMBER))).fetch_tracking(NUMBER, ""), (
        "and says what a query says"
    )
    # It is pushed again with more to it, to the address with whatever query we have put there.
    more = [entry("2026-11-26 08:00:00", "退签", "退签", "4"), *HISTORY]
    longer = READER.read_webhook({}, {"x": "y"}, webhook_body(webhook_param(query_result(NUMBER, data=more))), NOW)
    assert longer.updates[0].events[:5] == one.events
    assert longer.updates[0].events[5].status == ShipmentStatus.RETURNED_TO_SENDER
    assert longer.webhook_id != notice.webhook_id


def test_the_same_again_is_the_same_notice() -> None:
    param = webhook_param(query_result(NUMBER))
    swapped = urlencode({"param": param, "sign": md5(param + SALT), "time": "1"}).encode()
    assert read(swapped) == read(GENUINE) == read(GENUINE)
    ids = {
        read(webhook_body(webhook_param(query_result(str(number))))).webhook_id
        for number in range(73_100_000, 73_100_050)
    }
    assert len(ids) == 50
    assert all(len(each) == 64 for each in ids)


def test_it_stops_watching_a_parcel_that_it_never_heard_of() -> None:
    nothing: dict[str, Any] = {
        "message": "快递公司参数异常：单号不存在或者已经过期",
        "nu": NUMBER,
        "com": "yuantong",
        "status": "201",
    }
    for said in (nothing, nothing | {"data": []}, nothing | {"data": None}):
        notice = read(webhook_body(webhook_param(said, status="abort", message="3天查询无记录")))
        assert [(one.carrier, one.tracking_no, one.events) for one in notice.updates] == [("yto", NUMBER, [])]


def test_it_finds_that_another_carrier_has_the_parcel() -> None:
    corrected = query_result(NUMBER, com="ems")
    notice = read(webhook_body(webhook_param(corrected, autoCheck="1", comOld="yuantong", comNew="ems")))
    assert [one.carrier for one in notice.updates] == ["yto"], "for us it is the one that we asked for"
    assert refusal(webhook_body(webhook_param(corrected))) == "foreign"
    assert refusal(webhook_body(webhook_param(query_result(NUMBER), comOld="ems"))) == "foreign"


@pytest.mark.parametrize("com", ["ems", "", None, "zto", "ZHONGTONG", "zhongtong "])
def test_parcels_of_others(com: Any) -> None:
    assert refusal(webhook_body(webhook_param(query_result(NUMBER, com=com)))) == "foreign"


def test_signatures() -> None:
    param = webhook_param(query_result(NUMBER))
    genuine = md5(param + SALT)
    wrong = [genuine.lower(), genuine[:-1], genuine + "0", f" {genuine}", genuine[::-1], "", "é", "0" * 32, md5(param)]
    wrong += [
        md5(SALT + param),
        md5(param + SALT + "\n"),
        md5(param + SALT.upper()),
        f"{genuine}\0",
        "\udce9".join("ab"),
    ]
    for sign in wrong:
        form = urlencode({"sign": sign, "param": param}, errors="surrogateescape").encode()
        assert refusal(form) == ("malformed" if "\udce9" in sign else "bad_signature"), sign
    assert refusal(webhook_body(param, salt="another salt of 20 c")) == "bad_signature"
    for fields in ({"param": param}, {"sign": genuine}, {"sign": "", "x": "y"}):
        assert refusal(urlencode(fields).encode()) == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"&",
        b"=",
        b"sign",
        b"\xff",
        b"\0",
        GENUINE + b"&",
        GENUINE + b"&x",
        GENUINE + b"&sign=1",
        GENUINE + b"&" + GENUINE,
        GENUINE + b"&x=%ff",
        GENUINE.replace(b"%", b"%%"),
        GENUINE + "&x=é".encode(),
        GENUINE + b"".join(b"&x%d=" % at for at in range(20)),
        webhook_param(query_result(NUMBER)).encode(),
        json.dumps({"sign": "x", "param": "y"}).encode(),
        GENUINE + b"&x=" + b"y" * MAX_WEBHOOK_BYTES,
    ],
    ids=range(17),
)
def test_what_is_no_form(body: bytes) -> None:
    assert refusal(body) in ("malformed", "bad_signature")


def test_a_long_history_is_read_and_a_huge_one_is_not() -> None:
    long = [entry("2026-11-24 17:30:00", "快件离开" * 20, "在途", "0") for _ in range(200)]
    body = webhook_body(webhook_param(query_result(NUMBER, data=long)))
    assert 150_000 < len(body) <= MAX_WEBHOOK_BYTES
    assert len(read(body).updates[0].events) == 200
    assert refusal(webhook_body(webhook_param(query_result(NUMBER, data=long * 2)))) == "malformed"
    assert refusal(webhook_body(webhook_param(query_result(NUMBER, data=[{}] * 1_001)))) == "bad_content"


@pytest.mark.parametrize(
    "param",
    [
        "",
        "null",
        "[]",
        "{}",
        '"x"',
        "{",
        "[" * 50_000,
        '{"lastResult":null}',
        '{"lastResult":[]}',
        '{"lastResult":"{}"}',
        '{"lastResult":{"com":"zhongtong","nu":"\\ud800"}}',
        webhook_param(query_result(NUMBER), comOld=5),
        webhook_param(query_result(NUMBER, data="x")),
        webhook_param(query_result(NUMBER, data=[[]])),
        webhook_param(query_result(NUMBER, data=[{}])),
        webhook_param(query_result(NUMBER, data=[HISTORY[0] | {"ftime": "yesterday"}])),
        webhook_param(query_result(NUMBER, data=[HISTORY[0] | {"statusCode": 3.0}])),
        webhook_param(query_result("")),
        webhook_param(query_result(None)),  # type: ignore[arg-type]
        webhook_param(query_result("7" * 65)),
        webhook_param(query_result("7310\0")),
        webhook_param(query_result("7310' OR 1")),
        webhook_param(query_result("73100012345678\n")),
    ],
    ids=range(23),
)
def test_signed_but_not_of_the_form(param: str) -> None:
    assert refusal(webhook_body(param)) == "bad_content"


def test_no_byte_can_be_changed() -> None:
    fields, dice = parse_qs(GENUINE.decode()), random.Random(7)
    codes: Counter[str] = Counter()
    for _ in range(600):
        changed = bytearray(GENUINE)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        if parse_qs(changed.decode("latin-1")) == fields:
            continue  # %e5 is %E5
        codes[refusal(bytes(changed))] += 1
    for at in range(0, len(GENUINE), len(GENUINE) // 100):
        codes[refusal(GENUINE[:at])] += 1
        codes[refusal(GENUINE[:at] + GENUINE[at + 1 :])] += 1
        codes[refusal(GENUINE[:at] + b"0" + GENUINE[at:])] += 1
    assert set(codes) == {"malformed", "bad_signature"}
    assert codes.total() > 700


def test_what_it_reads_in_answer() -> None:
    yes, no = READER.acknowledge(True), READER.acknowledge(False)
    assert yes == WebhookReply(200, "application/json", yes.body)
    assert json.loads(yes.body) == {"result": True, "returnCode": "200", "message": "成功"}
    assert no.status == 400
    assert json.loads(no.body)["result"] is False
