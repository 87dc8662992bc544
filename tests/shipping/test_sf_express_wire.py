"""SF Express's digest, forms, texts, route codes and credentials."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.shipping.carriers.sf_express import SfExpressAccount, status_map, wire
from commerce.shipping.carriers.sf_express.messages import SfRoute
from commerce.shipping.model import ShipmentStatus
from config.shipping import SfExpressSettings
from tests.shipping.sf_express_kit import (
    ACCOUNT_SETTINGS,
    CHECK_WORD,
    WEBHOOK_KEY,
    SfExpressRequest,
    account,
    booking_request,
    make_adapter,
    order_result,
    success_response,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


def java_escaped(text: str) -> str:
    """Encode as the documentation of java.net.URLEncoder prescribes, byte by byte."""
    unescaped = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-*_"
    return "".join("+" if byte == 32 else chr(byte) if byte in unescaped else f"%{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize(
    ("message", "timestamp", "check_word", "expected"),
    [
        ('{"orderId":"a"}', "1700000000000", "cw", "I5lfQpCy7jZci/5ajWek9Q=="),
        (
            '{"name":"红茶 *杯* ~100% (大) a+b&c=d\'s!","x":"🚚-_."}',
            "1700000000123",
            "Y7hH~mk*qf",
            "NeAJcm0nli09v8iI26tIUg==",
        ),
    ],
)
def test_digest_equals_javas(message: str, timestamp: str, check_word: str, expected: str) -> None:
    """Compare with OpenJDK 17: URLEncoder.encode, MessageDigest MD5, Base64, as in SF's SDK for Java."""
    assert wire.make_digest(message, timestamp, check_word) == expected


@given(TEXT, st.integers(0, 10**13), TEXT)
def test_digest_of_any_text_equals_documented_one(message: str, timestamp: int, check_word: str) -> None:
    escaped = java_escaped(f"{message}{timestamp}{check_word}")
    assert unquote_plus(escaped) == f"{message}{timestamp}{check_word}"
    expected = base64.b64encode(hashlib.md5(escaped.encode()).digest()).decode()
    assert wire.make_digest(message, str(timestamp), check_word) == expected


@given(st.dictionaries(TEXT, TEXT | st.integers(-(2**53), 2**53) | st.lists(TEXT, max_size=3), max_size=4))
def test_request_is_decoded_whole_and_signed(message: dict[str, Any]) -> None:
    body = wire.make_request(account(), "EXP_RECE_CREATE_ORDER", message, now_ms=1_700_000_000_123, request_id="r-1")
    form = SfExpressRequest("POST", "", {}, body).form
    assert list(form) == ["partnerID", "requestID", "serviceCode", "timestamp", "msgDigest", "msgData"]
    assert json.loads(form["msgData"]) == message
    assert form["msgDigest"] == wire.make_digest(form["msgData"], "1700000000123", CHECK_WORD)
    assert (form["partnerID"], form["requestID"], form["timestamp"]) == ("Y7hHmkqf", "r-1", "1700000000123")


async def test_request_does_not_contain_check_word() -> None:
    adapter, transport = make_adapter(success_response(order_result()))
    await adapter.book(booking_request())
    assert CHECK_WORD not in unquote_plus(transport.requests[0].body.decode())
    assert transport.requests[0].form["timestamp"] == "1794355230000"


@given(TEXT, TEXT, TEXT)
def test_any_route_text_is_printable_and_short(remark: str, reason: str, place: str) -> None:
    route = SfRoute("2026-11-11 08:00:00", "50", remark * 20, place * 20, None, reason)
    (event,) = wire.read_routes([route])
    assert 1 <= len(event.text) <= 500
    assert event.place is None or 1 <= len(event.place) <= 200
    assert (event.text + (event.place or "")).isprintable()


def test_route_code_is_in_one_group_only() -> None:
    groups = (
        status_map.PICKED_UP_CODES,
        status_map.IN_TRANSIT_CODES,
        status_map.OUT_FOR_DELIVERY_CODES,
        status_map.DELIVERED_CODES,
        status_map.RETURNED_CODES,
        status_map.UNCHANGED_CODES,
    )
    assert sum(map(len, groups)) == len(status_map.STATUS_BY_CODE)


@pytest.mark.parametrize(
    ("code", "reason", "status", "is_unknown_code"),
    [
        ("50", "", ShipmentStatus.PICKED_UP, False),
        ("54", "", ShipmentStatus.PICKED_UP, False),
        ("30", "", ShipmentStatus.IN_TRANSIT, False),
        ("31", "", ShipmentStatus.IN_TRANSIT, False),
        ("36", "", ShipmentStatus.IN_TRANSIT, False),
        ("44", "", ShipmentStatus.OUT_FOR_DELIVERY, False),
        ("204", "", ShipmentStatus.OUT_FOR_DELIVERY, False),
        ("125", "", ShipmentStatus.OUT_FOR_DELIVERY, False),
        ("80", "", ShipmentStatus.DELIVERED, False),
        ("8000", "", ShipmentStatus.DELIVERED, False),
        ("8000", "6", ShipmentStatus.LOST, False),
        ("8000", "2", ShipmentStatus.LOST, False),
        ("8000", "99", None, True),
        ("33", "", None, False),
        ("33", "83", None, False),
        ("70", "46", None, False),
        ("99", "", None, False),
        ("99", "2", ShipmentStatus.RETURNED_TO_SENDER, False),
        ("99", "3", None, True),
        ("631", "", ShipmentStatus.RETURNED_TO_SENDER, False),
        ("648", "", None, True),
        ("658", "", None, True),
        ("305", "", None, True),
        ("", "", None, True),
        ("050", "", None, True),
    ],
)
def test_route_code_and_reason_decode_to_status(
    code: str, reason: str, status: ShipmentStatus | None, is_unknown_code: bool
) -> None:
    assert status_map.decode_route(code, reason) == (status, is_unknown_code)


def test_settings_load_as_account() -> None:
    settings = SfExpressSettings.model_validate(
        {name: text for name, text in ACCOUNT_SETTINGS.items() if name != "base_url"}
    )
    loaded = SfExpressAccount.load(**settings.as_strings())
    assert loaded.base_url == "https://bspgw.sf-express.com/std/service"
    assert (loaded.express_type, loaded.cod_card) == (1, "7551234567")
    assert account(cod_card="7550000001", express_type="263").express_type == 263
    for secret in (CHECK_WORD, WEBHOOK_KEY):
        assert secret not in repr(loaded) + repr(settings)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("partner_id", ""),
        ("partner_id", "a b"),
        ("check_word", "short"),
        ("check_word", "with blanks in between"),
        ("monthly_card", ""),
        ("monthly_card", "755123456"),
        ("monthly_card", "７551234567"),
        ("cod_card", "12"),
        ("base_url", "ftp://sf.example"),
        ("base_url", "https://sf.example/?a=b"),
        ("webhook_key", ""),
        ("webhook_key", "too-short"),
        ("webhook_key", "sixteen&letters=or-more"),
        ("express_type", "0"),
        ("express_type", "1.5"),
        ("express_type", ""),
    ],
)
def test_invalid_credential_is_refused_without_showing_it(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"SF Express {name}: ") as error:
        account(**{name: text})
    if name in ("check_word", "webhook_key"):
        assert not text or text not in str(error.value)
