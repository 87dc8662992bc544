"""Routes that SF Express pushes, and what somebody else may send to the same address."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel.external import InvalidWebhook
from commerce.shipping.carrier_port import CarrierWebhook, ShipmentUpdate, TrackingEvent
from commerce.shipping.model import ShipmentStatus
from tests.shipping.sf_express_kit import BOOKING, NOW, NUMBER, OTHER_NUMBER, PUSH_KEY, make_adapter

SF, _ = make_adapter()
HEADERS = {"content-type": "application/json ;charset=UTF-8"}


def pushed_route(op_code: str = "50", **changed: Any) -> dict[str, Any]:
    """A route in the shape of the sample in SF's documentation."""
    return {
        "mailno": NUMBER,
        "acceptAddress": "深圳市",
        "reasonName": "",
        "orderid": BOOKING.hex,
        "acceptTime": "2026-11-11 08:56:54",
        "remark": "顺丰速运 已收取快件",
        "opCode": op_code,
        "id": "158918741444476",
        "reasonCode": "",
    } | changed


def body(*routes: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"Body": {"WaybillRoute": list(routes), **more}}, ensure_ascii=False).encode()


def read(content: bytes, key: str | None = PUSH_KEY) -> CarrierWebhook:
    return SF.read_webhook(HEADERS, {} if key is None else {"key": key}, content, NOW)


def refusal(content: bytes, key: str | None = PUSH_KEY) -> str:
    with pytest.raises(InvalidWebhook) as error:
        read(content, key)
    assert PUSH_KEY not in str(error.value)
    return error.value.code


GENUINE = body(
    pushed_route(), pushed_route("31", acceptTime="2026-11-11 09:00:00", remark="快件到达", id="158918741457126")
)


def test_a_genuine_push() -> None:
    notice = read(GENUINE)
    assert 1 <= len(notice.webhook_id) <= 256
    (push,) = notice.updates
    assert push == ShipmentUpdate(
        "sf_express",
        NUMBER,
        [
            TrackingEvent(
                datetime(2026, 11, 11, 0, 56, 54, tzinfo=UTC),
                "50",
                "顺丰速运 已收取快件",
                ShipmentStatus.PICKED_UP,
                place="深圳市",
            ),
            TrackingEvent(
                datetime(2026, 11, 11, 1, tzinfo=UTC), "31", "快件到达", ShipmentStatus.IN_TRANSIT, place="深圳市"
            ),
        ],
        BOOKING,
    )


def test_a_push_of_several_parcels() -> None:
    notice = read(
        body(
            pushed_route("44", acceptTime="2026-11-11 12:00:00"),
            pushed_route("4711", mailno=OTHER_NUMBER, orderid="somebody's"),
            pushed_route("50"),
        )
    )
    assert [(push.tracking_no, push.booking_id) for push in notice.updates] == [(NUMBER, BOOKING), (OTHER_NUMBER, None)]
    assert [[news.code for news in push.events] for push in notice.updates] == [["50", "44"], ["4711"]]
    assert notice.updates[1].events[0].is_unknown_code


@pytest.mark.parametrize("orderid", [None, "", BOOKING.hex.upper(), str(BOOKING), "{" + BOOKING.hex + "}", "x" * 500])
def test_only_our_numbers_are_bookings(orderid: str | None) -> None:
    assert read(body(pushed_route(orderid=orderid))).updates[0].booking_id is None


@pytest.mark.parametrize("key", [None, "", PUSH_KEY[:-1], PUSH_KEY + "x", PUSH_KEY.upper(), "密钥", "\udcff"])
def test_who_does_not_know_the_address(key: str | None) -> None:
    assert refusal(GENUINE, key) == "bad_signature"
    assert refusal(b"not even JSON", key) == "bad_signature"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"content=%3CRequest%20service%3D%22RoutePushService%22%3E",
        b'{"Body":' * 5_000,
        GENUINE[:-1],
        GENUINE + b"x",
        body(),
        b'{"Body":null}',
        b'{"Body":{"WaybillRoute":{}}}',
        b'{"Body":{"WaybillRoute":[null]}}',
        body(pushed_route(mailno="")),
        body(pushed_route(mailno="SF 1' OR 1")),
        body(pushed_route(mailno=7444400031887)),
        body(pushed_route(mailno="S" * 65)),
        body(pushed_route(opCode="")),
        body(pushed_route(opCode=50)),
        body(pushed_route(opCode="5" * 31)),
        body(pushed_route(reasonCode="\u0000")),
        body(pushed_route(acceptTime=1_794_355_200)),
        body(pushed_route(remark=["x"])),
        body(pushed_route(orderid=7)),
        body({name: value for name, value in pushed_route().items() if name != "opCode"}),
        body({name: value for name, value in pushed_route().items() if name != "mailno"}),
        body(*[pushed_route()] * 101),
        body(pushed_route(remark="x" * 65_536)),
        b" " * 65_537,
        b'{"Body":{"WaybillRoute":[{"x":' + b"[" * 60_000,
    ],
    ids=lambda content: repr(content[:60]),
)
def test_malformed_pushes(content: bytes) -> None:
    assert refusal(content) == "malformed"


@pytest.mark.parametrize("time", ["", "2026-11-11", "2026-11-11T08:00:00+08:00", "2026-11-31 08:00:00"])
def test_times_that_are_none(time: str) -> None:
    assert refusal(body(pushed_route(), pushed_route(acceptTime=time))) == "bad_content"


def test_the_same_again_is_the_same_notice() -> None:
    first = read(GENUINE)
    assert read(GENUINE) == first
    rewritten = json.dumps(json.loads(GENUINE), indent=1, sort_keys=True).encode()
    assert rewritten != GENUINE
    assert read(rewritten) == first
    renumbered = json.loads(GENUINE)
    for found in renumbered["Body"]["WaybillRoute"]:
        found |= {"id": "1", "firstStatusCode": "1", "reasonCode": None}
    assert read(json.dumps(renumbered).encode()) == first


@pytest.mark.parametrize(
    "changed",
    [
        {"mailno": OTHER_NUMBER},
        {"acceptAddress": "广州市"},
        {"orderid": "0" * 32},
        {"acceptTime": "2026-11-11 08:56:55"},
        {"remark": "x"},
        {"opCode": "80"},
        {"reasonCode": "2"},
    ],
)
def test_something_else_is_another_notice(changed: dict[str, Any]) -> None:
    assert read(body(pushed_route() | changed)).webhook_id != read(body(pushed_route())).webhook_id


@given(st.integers(0, len(GENUINE) - 1), st.integers(0, 255))
def test_a_mutated_push_is_refused_or_is_another(at: int, byte: int) -> None:
    mutated = GENUINE[:at] + bytes([byte]) + GENUINE[at + 1 :]
    genuine = read(GENUINE)
    try:
        notice = read(mutated)
    except InvalidWebhook:
        return
    # A byte of a name that is not read, of a serial number or between two values changes nothing.
    assert (notice.webhook_id == genuine.webhook_id) == (notice.updates == genuine.updates)


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"Body": text}).encode()))
def test_anything_else_is_malformed(content: bytes) -> None:
    assert refusal(content) == "malformed"


def test_what_it_is_answered() -> None:
    yes, no = SF.acknowledge(True), SF.acknowledge(False)
    assert {yes.content_type, no.content_type} == {"application/json"}
    assert (json.loads(yes.body)["return_code"], json.loads(no.body)["return_code"]) == ("0000", "1000")
    assert {yes.status, no.status} == {200}
