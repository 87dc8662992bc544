"""Webhooks of kuaidi100: genuine ones are decoded, changed ones are refused for the right reason."""

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


def refusal_code(body: bytes) -> str:
    with pytest.raises(InvalidWebhook) as error:
        read(body)
    assert SALT not in str(error.value)
    assert len(str(error.value)) < 500
    return error.value.code


async def test_genuine_webhook_contains_whole_history() -> None:
    webhook = read(GENUINE)
    (update,) = webhook.updates
    assert (update.carrier, update.tracking_no, update.booking_id) == ("zto", NUMBER, None)
    assert [event.code for event in update.events] == ["101", "103", "0", "5", "301"]
    assert update.events[-1].status == ShipmentStatus.DELIVERED
    assert update.events == await carrier(FakeKuaidi100Transport(query_result(NUMBER))).fetch_tracking(NUMBER, ""), (
        "a webhook equals a query"
    )
    # A later webhook has more entries. The query of the address is ignored.
    more = [entry("2026-11-26 08:00:00", "退签", "退签", "4"), *HISTORY]
    longer = READER.read_webhook({}, {"x": "y"}, webhook_body(webhook_param(query_result(NUMBER, data=more))), NOW)
    assert longer.updates[0].events[:5] == update.events
    assert longer.updates[0].events[5].status == ShipmentStatus.RETURNED_TO_SENDER
    assert longer.webhook_id != webhook.webhook_id


def test_repeated_webhook_has_the_same_id() -> None:
    param = webhook_param(query_result(NUMBER))
    swapped = urlencode({"param": param, "sign": md5(param + SALT), "time": "1"}).encode()
    assert read(swapped) == read(GENUINE) == read(GENUINE)
    ids = {
        read(webhook_body(webhook_param(query_result(str(number))))).webhook_id
        for number in range(73_100_000, 73_100_050)
    }
    assert len(ids) == 50
    assert all(len(webhook_id) == 64 for webhook_id in ids)


def test_abort_without_history_has_no_events() -> None:
    no_history: dict[str, Any] = {
        "message": "快递公司参数异常：单号不存在或者已经过期",
        "nu": NUMBER,
        "com": "yuantong",
        "status": "201",
    }
    for result in (no_history, no_history | {"data": []}, no_history | {"data": None}):
        webhook = read(webhook_body(webhook_param(result, status="abort", message="3天查询无记录")))
        assert [(update.carrier, update.tracking_no, update.events) for update in webhook.updates] == [
            ("yto", NUMBER, [])
        ]


def test_corrected_carrier_keeps_subscribed_name() -> None:
    corrected = query_result(NUMBER, com="ems")
    webhook = read(webhook_body(webhook_param(corrected, autoCheck="1", comOld="yuantong", comNew="ems")))
    assert [update.carrier for update in webhook.updates] == ["yto"], "the subscribed carrier"
    assert refusal_code(webhook_body(webhook_param(corrected))) == "foreign"
    assert refusal_code(webhook_body(webhook_param(query_result(NUMBER), comOld="ems"))) == "foreign"


@pytest.mark.parametrize("com", ["ems", "", None, "zto", "ZHONGTONG", "zhongtong "])
def test_foreign_carrier_code_is_refused(com: Any) -> None:
    assert refusal_code(webhook_body(webhook_param(query_result(NUMBER, com=com)))) == "foreign"


def test_wrong_signature_is_refused() -> None:
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
        assert refusal_code(form) == "bad_signature", sign
    assert refusal_code(webhook_body(param, salt="another salt of 20 c")) == "bad_signature"
    for fields in ({"param": param}, {"sign": genuine}, {"sign": "", "x": "y"}):
        assert refusal_code(urlencode(fields).encode()) == "malformed"


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
        GENUINE.replace(b"%", b"%%"),
        GENUINE + "&x=é".encode(),
        GENUINE + b"".join(b"&x%d=" % at for at in range(20)),
        webhook_param(query_result(NUMBER)).encode(),
        json.dumps({"sign": "x", "param": "y"}).encode(),
        GENUINE + b"&x=" + b"y" * MAX_WEBHOOK_BYTES,
    ],
    ids=range(16),
)
def test_malformed_form_is_refused(body: bytes) -> None:
    assert refusal_code(body) in ("malformed", "bad_signature")


def test_long_history_is_read_and_huge_one_is_refused() -> None:
    long = [entry("2026-11-24 17:30:00", "快件离开" * 20, "在途", "0") for _ in range(200)]
    body = webhook_body(webhook_param(query_result(NUMBER, data=long)))
    assert 150_000 < len(body) <= MAX_WEBHOOK_BYTES
    assert len(read(body).updates[0].events) == 200
    assert refusal_code(webhook_body(webhook_param(query_result(NUMBER, data=long * 2)))) == "malformed"
    assert refusal_code(webhook_body(webhook_param(query_result(NUMBER, data=[{}] * 1_001)))) == "bad_content"


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
def test_signed_malformed_content_is_refused(param: str) -> None:
    assert refusal_code(webhook_body(param)) == "bad_content"


def test_changed_byte_is_refused() -> None:
    fields, dice = parse_qs(GENUINE.decode()), random.Random(7)
    codes: Counter[str] = Counter()
    for _ in range(600):
        changed = bytearray(GENUINE)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        if parse_qs(changed.decode("latin-1")) == fields:
            continue  # %e5 equals %E5
        codes[refusal_code(bytes(changed))] += 1
    for at in range(0, len(GENUINE), len(GENUINE) // 100):
        codes[refusal_code(GENUINE[:at])] += 1
        codes[refusal_code(GENUINE[:at] + GENUINE[at + 1 :])] += 1
        codes[refusal_code(GENUINE[:at] + b"0" + GENUINE[at:])] += 1
    assert set(codes) == {"malformed", "bad_signature"}
    assert codes.total() > 700


def test_acknowledgement_states_acceptance() -> None:
    accepted, refused = READER.acknowledge(True), READER.acknowledge(False)
    assert accepted == WebhookReply(200, "application/json", accepted.body)
    assert json.loads(accepted.body) == {"result": True, "returnCode": "200", "message": "成功"}
    assert refused.status == 400
    assert json.loads(refused.body)["result"] is False
