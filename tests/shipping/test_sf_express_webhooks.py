"""Webhooks of SF Express, and what others may send to their address."""

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
from tests.shipping.sf_express_kit import BOOKING, NOW, NUMBER, OTHER_NUMBER, WEBHOOK_KEY, make_adapter

SF, _ = make_adapter()
HEADERS = {"content-type": "application/json ;charset=UTF-8"}


def webhook_route(op_code: str = "50", **changed: Any) -> dict[str, Any]:
    """Make a route as in the sample of SF's documentation."""
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


def body(*routes: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"Body": {"WaybillRoute": list(routes), **members}}, ensure_ascii=False).encode()


def read(content: bytes, key: str | None = WEBHOOK_KEY) -> CarrierWebhook:
    return SF.read_webhook(HEADERS, {} if key is None else {"key": key}, content, NOW)


def refusal_code(content: bytes, key: str | None = WEBHOOK_KEY) -> str:
    with pytest.raises(InvalidWebhook) as error:
        read(content, key)
    assert WEBHOOK_KEY not in str(error.value)
    return error.value.code


GENUINE = body(
    webhook_route(), webhook_route("31", acceptTime="2026-11-11 09:00:00", remark="快件到达", id="158918741457126")
)


def test_genuine_webhook_is_decoded() -> None:
    webhook = read(GENUINE)
    assert 1 <= len(webhook.webhook_id) <= 256
    (update,) = webhook.updates
    assert update == ShipmentUpdate(
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


def test_webhook_of_several_shipments_is_split() -> None:
    webhook = read(
        body(
            webhook_route("44", acceptTime="2026-11-11 12:00:00"),
            webhook_route("4711", mailno=OTHER_NUMBER, orderid="somebody's"),
            webhook_route("50"),
        )
    )
    assert [(update.tracking_no, update.booking_id) for update in webhook.updates] == [
        (NUMBER, BOOKING),
        (OTHER_NUMBER, None),
    ]
    assert [[event.code for event in update.events] for update in webhook.updates] == [["50", "44"], ["4711"]]
    assert webhook.updates[1].events[0].is_unknown_code


@pytest.mark.parametrize("orderid", [None, "", BOOKING.hex.upper(), str(BOOKING), "{" + BOOKING.hex + "}", "x" * 500])
def test_foreign_order_id_is_no_booking_id(orderid: str | None) -> None:
    assert read(body(webhook_route(orderid=orderid))).updates[0].booking_id is None


@pytest.mark.parametrize("key", [None, "", WEBHOOK_KEY[:-1], WEBHOOK_KEY + "x", WEBHOOK_KEY.upper(), "密钥", "\udcff"])
def test_wrong_key_in_address_is_refused(key: str | None) -> None:
    assert refusal_code(GENUINE, key) == "bad_signature"
    assert refusal_code(b"not even JSON", key) == "bad_signature"


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
        body(webhook_route(mailno="")),
        body(webhook_route(mailno="SF 1' OR 1")),
        body(webhook_route(mailno=7444400031887)),
        body(webhook_route(mailno="S" * 65)),
        body(webhook_route(opCode=50)),
        body(webhook_route(acceptTime=1_794_355_200)),
        body(webhook_route(remark=["x"])),
        body(webhook_route(orderid=7)),
        body({name: value for name, value in webhook_route().items() if name != "opCode"}),
        body({name: value for name, value in webhook_route().items() if name != "mailno"}),
        body(*[webhook_route()] * 101),
        body(webhook_route(remark="x" * 65_536)),
        b" " * 65_537,
        b'{"Body":{"WaybillRoute":[{"x":' + b"[" * 60_000,
    ],
    ids=lambda content: repr(content[:60]),
)
def test_malformed_webhook_is_refused(content: bytes) -> None:
    assert refusal_code(content) == "malformed"


@pytest.mark.parametrize("time", ["", "2026-11-11", "2026-11-11T08:00:00+08:00", "2026-11-31 08:00:00"])
def test_malformed_time_is_refused(time: str) -> None:
    assert refusal_code(body(webhook_route(), webhook_route(acceptTime=time))) == "bad_content"


def test_repeated_webhook_has_the_same_id() -> None:
    first = read(GENUINE)
    assert read(GENUINE) == first
    rewritten = json.dumps(json.loads(GENUINE), indent=1, sort_keys=True).encode()
    assert rewritten != GENUINE
    assert read(rewritten) == first
    renumbered = json.loads(GENUINE)
    for route in renumbered["Body"]["WaybillRoute"]:
        route |= {"id": "1", "firstStatusCode": "1", "reasonCode": None}
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
def test_changed_webhook_has_another_id(changed: dict[str, Any]) -> None:
    assert read(body(webhook_route() | changed)).webhook_id != read(body(webhook_route())).webhook_id


@given(st.integers(0, len(GENUINE) - 1), st.integers(0, 255))
def test_mutated_webhook_is_refused_or_has_another_id(at: int, byte: int) -> None:
    mutated = GENUINE[:at] + bytes([byte]) + GENUINE[at + 1 :]
    genuine = read(GENUINE)
    try:
        webhook = read(mutated)
    except InvalidWebhook:
        return
    # A byte of a name that is not read, of a serial number or between two values has no effect.
    assert (webhook.webhook_id == genuine.webhook_id) == (webhook.updates == genuine.updates)


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: json.dumps({"Body": text}).encode()))
def test_arbitrary_body_is_malformed(content: bytes) -> None:
    assert refusal_code(content) == "malformed"


def test_acknowledgement_states_acceptance() -> None:
    accepted, refused = SF.acknowledge(True), SF.acknowledge(False)
    assert {accepted.content_type, refused.content_type} == {"application/json"}
    assert (json.loads(accepted.body)["return_code"], json.loads(refused.body)["return_code"]) == ("0000", "1000")
    assert {accepted.status, refused.status} == {200}
