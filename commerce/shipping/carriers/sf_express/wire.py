"""SF Express's protocol: signed requests, and the form of answers, routes and pushes.

Requests are forms, signed with the check word (https://open.sf-express.com/developSupport/976720?authId=1). Answers are
not signed: they are believed on the word of the connection's TLS. Routes are pushed as JSON
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
from commerce.shipping.carrier_port import ShipmentUpdate, TrackingEvent
from commerce.shipping.carriers.sf_express import messages, status_map
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount

FORM = "application/x-www-form-urlencoded; charset=UTF-8"
PASSED_ON, DONE = "A1000", "S0000"
MAX_PUSH_BYTES = 65_536
"""Ten routes are some kilobytes; what is longer than this is not even parsed."""
MAX_TEXT, MAX_PLACE = 500, 200

_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
T = TypeVar("T")


# Requests.


def digest(message: str, timestamp: str, check_word: str) -> str:
    """`msgDigest`: base64 of the MD5 of the three, escaped for a form as Java's URLEncoder does, on whose bytes SF's
    side insists: it leaves `*` as it is and escapes `~`."""
    escaped = quote_plus(message + timestamp + check_word, safe="*").replace("~", "%7E")
    return b64encode(md5(escaped.encode(), usedforsecurity=False).digest()).decode()


def request(account: SfExpressAccount, service: str, message: dict[str, Any], *, now_ms: int, request_id: str) -> bytes:
    """The signed form that asks a service."""
    text, timestamp = msgspec.json.encode(message).decode(), str(now_ms)
    return urlencode(
        {
            "partnerID": account.partner_id,
            "requestID": request_id,
            "serviceCode": service,
            "timestamp": timestamp,
            "msgDigest": digest(text, timestamp, account.check_word),
            "msgData": text,
        }
    ).encode()


# Answers.


def read_answer(answer: HttpResponse, kind: type[T], noes: frozenset[str]) -> T:
    """The content of an answer that is a success. Raises `Refused` for the codes in `noes`, else `Unclear`.

    What the platform itself refuses (A1001 and on) is `Unclear`: that is about the account, its network or its
    signature, and says nothing of what an earlier request for the same parcel has done.
    """
    if answer.status != 200:
        raise ExternalOutcomeUnknown(f"SF Express answers with HTTP status {answer.status}")
    envelope = _decode(answer.body, messages.SfEnvelope)
    if envelope.api_result_code != PASSED_ON:
        raise ExternalOutcomeUnknown(
            f"SF Express answers {envelope.api_result_code[:40]}: {(envelope.api_error_msg or '')[:200]}"
        )
    result = _decode(envelope.api_result_data or "", messages.Result)
    code, is_success = str(result.error_code), result.success in (True, "true")
    if is_success and code == DONE:
        return _decode(result.msg_data, kind)
    if is_success or code == DONE:
        raise ExternalOutcomeUnknown(f"SF Express answers {code[:40]} as a {'success' if is_success else 'failure'}")
    raise status_map.failure(code, result.error_msg or "", noes)


def _decode(body: bytes | str | msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except _NOT_JSON as why:
        raise ExternalOutcomeUnknown(f"SF Express's answer cannot be read: {why}") from None


# Routes.


def read_routes(routes: Iterable[messages.SfRoute]) -> list[TrackingEvent]:
    """In the order of time. Raises `ValueError` for a time that is none."""
    return sorted((_news(route) for route in routes), key=lambda news: news.at)


def _news(route: messages.SfRoute) -> TrackingEvent:
    reason = route.reason_code or ""
    state, unknown = status_map.route(route.op_code, reason)
    code = f"{route.op_code}/{reason}" if reason else route.op_code
    return TrackingEvent(
        at=parse_china_time(route.accept_time),
        code=code,
        text=_shown(route.remark, MAX_TEXT) or _shown(route.reason_name, MAX_TEXT) or f"SF Express route {code}",
        state=state,
        is_unknown_code=unknown,
        place=_shown(route.accept_address, MAX_PLACE) or None,
    )


def _shown(text: str | None, most: int) -> str:
    """Without control characters, of which Postgres takes not even all."""
    return "".join(char if char.isprintable() else " " for char in text or "").strip()[:most]


def read_push(body: bytes) -> list[messages.PushedRoute]:
    """The routes of a push. Raises `BadNotice`: malformed."""
    if len(body) > MAX_PUSH_BYTES:
        raise InvalidWebhook("malformed", f"{len(body)} bytes are more than {MAX_PUSH_BYTES}")
    try:
        return msgspec.json.decode(body, type=messages.PushedBody).body.routes
    except _NOT_JSON as why:
        raise InvalidWebhook("malformed", str(why)) from None


def notice_id(pushes: list[ShipmentUpdate]) -> str:
    """The same for the same news, however it is written."""
    return sha256(msgspec.json.encode(pushes)).hexdigest()
