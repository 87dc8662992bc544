"""SF Express's protocol: signed requests, replies, routes and webhooks.

Requests are forms, signed with the check word (https://open.sf-express.com/developSupport/976720?authId=1). Replies are
not signed: TLS authenticates them. Routes arrive as JSON webhooks
(https://open.sf-express.com/Api/ApiDetails?level3=404).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import md5, sha256
from typing import Any, TypeVar
from urllib.parse import quote_plus, urlencode

import msgspec

from commerce.kernel.china_time import parse_china_time
from commerce.kernel.external import ExternalOutcomeUnknown, HttpResponse, InvalidWebhook
from commerce.kernel.external_text import clean_text, decode_repaired_json
from commerce.shipping.carrier_port import ShipmentUpdate, TrackingEvent
from commerce.shipping.carriers.sf_express import messages, status_map
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
PLATFORM_OK, SERVICE_OK = "A1000", "S0000"
MAX_WEBHOOK_BYTES = 65_536
"""Ten routes are some kilobytes. A longer body is not parsed."""
MAX_TEXT_CHARACTERS, MAX_PLACE_CHARACTERS, MAX_CODE_CHARACTERS = 500, 200, 30
"""Longer values are cut."""

_DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
T = TypeVar("T")


# Requests.


def make_digest(message: str, timestamp: str, check_word: str) -> str:
    """Make `msgDigest`: base64 of the MD5 of the three texts, form-encoded.

    SF's side requires the bytes of Java's URLEncoder, which keeps `*` and escapes `~`."""
    escaped = quote_plus(message + timestamp + check_word, safe="*").replace("~", "%7E")
    return b64encode(md5(escaped.encode(), usedforsecurity=False).digest()).decode()


def make_request(
    account: SfExpressAccount, service: str, message: dict[str, Any], *, now_ms: int, request_id: str
) -> bytes:
    """Make the signed form that calls a service."""
    text, timestamp = msgspec.json.encode(message).decode(), str(now_ms)
    return urlencode(
        {
            "partnerID": account.partner_id,
            "requestID": request_id,
            "serviceCode": service,
            "timestamp": timestamp,
            "msgDigest": make_digest(text, timestamp, account.check_word),
            "msgData": text,
        }
    ).encode()


# Replies.


def read_reply(response: HttpResponse, kind: type[T], refusals: frozenset[str]) -> T:
    """Decode the content of a successful reply.

    Raises `ExternalRefusal` for the codes in `refusals`, and `ExternalOutcomeUnknown` for all others. Among these are
    the platform's own refusals (A1001 and on): they concern the account, its network or its signature, and state
    nothing of the outcome of an earlier request for the same shipment."""
    if response.status != 200:
        raise ExternalOutcomeUnknown(f"SF Express answers with HTTP status {response.status}")
    envelope = _decode(response.body, messages.SfEnvelope)
    if envelope.api_result_code != PLATFORM_OK:
        raise ExternalOutcomeUnknown(
            f"SF Express answers {envelope.api_result_code[:40]}: {(envelope.api_error_msg or '')[:200]}"
        )
    result = _decode(envelope.api_result_data or "", messages.SfResult)
    code, is_success = str(result.error_code), result.success in (True, "true")
    if is_success and code == SERVICE_OK:
        return _decode(result.msg_data, kind)
    if is_success or code == SERVICE_OK:
        raise ExternalOutcomeUnknown(f"SF Express answers {code[:40]} as a {'success' if is_success else 'failure'}")
    raise status_map.make_error(code, result.error_msg or "", refusals)


def _decode(body: bytes | str | msgspec.Raw, kind: type[T]) -> T:
    try:
        return decode_repaired_json(bytes(body) if isinstance(body, msgspec.Raw) else body, kind)
    except _DECODE_ERRORS as error:
        raise ExternalOutcomeUnknown(f"cannot read SF Express's reply: {error}") from None


# Routes.


def read_routes(routes: Iterable[messages.SfRoute]) -> list[TrackingEvent]:
    """Convert routes to tracking events sorted by time. Raises `ValueError` if a time is malformed."""
    return sorted((_event(route) for route in routes), key=lambda event: event.at)


def _event(route: messages.SfRoute) -> TrackingEvent:
    op_code, reason = clean_text(route.op_code, MAX_CODE_CHARACTERS), clean_text(route.reason_code, MAX_CODE_CHARACTERS)
    status, is_unknown_code = status_map.decode_route(op_code, reason)
    code = f"{op_code}/{reason}" if reason else op_code or "unsaid"
    text = clean_text(route.remark, MAX_TEXT_CHARACTERS) or clean_text(route.reason_name, MAX_TEXT_CHARACTERS)
    return TrackingEvent(
        at=parse_china_time(route.accept_time),
        code=code,
        text=text or f"SF Express route {code}",
        status=status,
        is_unknown_code=is_unknown_code,
        place=clean_text(route.accept_address, MAX_PLACE_CHARACTERS) or None,
    )


def decode_webhook(body: bytes) -> list[messages.SfWebhookRoute]:
    """Decode the routes of a webhook. Raises `InvalidWebhook` with the code malformed."""
    if len(body) > MAX_WEBHOOK_BYTES:
        raise InvalidWebhook("malformed", f"the body has {len(body)} bytes, more than {MAX_WEBHOOK_BYTES}")
    try:
        return decode_repaired_json(body, messages.SfWebhookBody).body.routes
    except _DECODE_ERRORS as error:
        raise InvalidWebhook("malformed", str(error)) from None


def make_webhook_id(updates: list[ShipmentUpdate]) -> str:
    """Make an id that is the same for the same content, however it is written."""
    return sha256(msgspec.json.encode(updates)).hexdigest()
