"""kuaidi100's protocol: forms with a parameter in JSON, signed with MD5.

Subscriptions and webhooks: https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c; queries:
https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc. Its own code for both: https://github.com/kuaidi100-api.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec

from commerce.kernel.china_time import parse_china_time
from commerce.kernel.external import ExternalOutcomeUnknown, InvalidWebhook
from commerce.kernel.external_text import clean_text, decode_repaired_json
from commerce.kernel.form_decoding import decode_signed_form
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.carriers.kuaidi100.settings import Kuaidi100Account
from commerce.shipping.carriers.kuaidi100.status_map import decode_status

MAX_WEBHOOK_BYTES = 262_144
"""A webhook has the whole history, some hundred bytes per entry. A longer body is not parsed."""
MAX_WEBHOOK_FIELDS = 20
MAX_ENTRIES = 1_000

_RESULT_VERSION = "4"
"""Histories with the finer codes (statusCode), which version "1" leaves out."""
_MAX_TEXT_CHARACTERS, _MAX_PLACE_CHARACTERS, _MAX_CODE_CHARACTERS = 500, 200, 64
"""Longer values are cut."""

_Text = str | None
_Code = str | int | None
T = TypeVar("T")


class Kuaidi100Entry(msgspec.Struct, frozen=True, rename="camel"):
    """An entry of a shipment's history. `ftime` is `time` in one format for all carriers."""

    context: _Text = None
    time: _Text = None
    ftime: _Text = None
    status: _Text = None
    status_code: _Code = None
    location: _Text = None
    area_name: _Text = None


Entries = Annotated[list[Kuaidi100Entry], msgspec.Meta(max_length=MAX_ENTRIES)]


class Kuaidi100Reply(msgspec.Struct, frozen=True, rename="camel"):
    """A history, newest entry first, or the reason for which there is none.

    It is the reply to a query, and the last result in a webhook."""

    message: _Text = None
    return_code: _Code = None
    status: _Code = None
    com: _Text = None
    nu: _Text = None
    data: Entries | None = None


class Kuaidi100SubscribeReply(msgspec.Struct, frozen=True, rename="camel"):
    """The reply to a subscription."""

    result: bool
    return_code: str | int
    message: _Text = None


class Kuaidi100WebhookParam(msgspec.Struct, frozen=True, rename="camel"):
    """The parameter of a webhook.

    `com_old` is the subscribed carrier if kuaidi100 found that it is another one."""

    last_result: Kuaidi100Reply
    com_old: _Text = None


def sign(*parts: str) -> str:
    """Return the MD5 of the joined parts in capitals, the only signature that webhooks have."""
    return hashlib.md5("".join(parts).encode("utf-8", "surrogateescape")).hexdigest().upper()  # noqa: S324  # kuaidi100 prescribes it


def make_subscribe_form(account: Kuaidi100Account, com: str, tracking_no: str, phone: str) -> bytes:
    """Make the form that requests webhooks for a shipment. It contains the key instead of a signature."""
    parameters = {"callbackurl": account.notify_url, "salt": account.salt, "resultv2": _RESULT_VERSION, **_phone(phone)}
    param = {"company": com, "number": tracking_no, "key": account.key, "parameters": parameters}
    return urlencode({"schema": "json", "param": _json(param)}).encode()


def make_query_form(account: Kuaidi100Account, com: str, tracking_no: str, phone: str) -> bytes:
    """Make the signed form that queries a shipment's history."""
    param = _json({"com": com, "num": tracking_no, "resultv2": _RESULT_VERSION, **_phone(phone)})
    signature = sign(param, account.key, account.customer)
    return urlencode({"customer": account.customer, "sign": signature, "param": param}).encode()


def decode_reply(status: int, body: bytes, kind: type[T]) -> T:
    """Decode a reply of the expected kind. Raises `ExternalOutcomeUnknown` for any other reply."""
    try:
        if status == 200:
            return decode_repaired_json(body, kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise ExternalOutcomeUnknown(f"cannot read kuaidi100's reply: {status} {body[:200]!r}")


def read_signed_param(body: bytes, salt: str) -> str:
    """Verify a webhook's signature and return its parameter: JSON, exactly as signed.

    Raises `InvalidWebhook` with the code malformed or bad_signature."""
    fields = decode_signed_form(
        body, max_bytes=MAX_WEBHOOK_BYTES, max_fields=MAX_WEBHOOK_FIELDS, required=("sign", "param")
    )
    if not hmac.compare_digest(fields["sign"].encode("utf-8", "surrogateescape"), sign(fields["param"], salt).encode()):
        raise InvalidWebhook("bad_signature", "not signed with our salt")
    return fields["param"]


def decode_param(param: str) -> Kuaidi100WebhookParam:
    """Decode a webhook's parameter. Raises `InvalidWebhook` with the code bad_content."""
    try:
        return decode_repaired_json(param, Kuaidi100WebhookParam)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidWebhook("bad_content", str(error)[:200]) from None


def read_events(entries: Sequence[Kuaidi100Entry]) -> list[TrackingEvent]:
    """Convert a history to tracking events sorted by time. Raises `ValueError` if a time is malformed."""
    # Of entries in the same second, the one further down in the history happened earlier.
    return sorted((_event(entry) for entry in reversed(entries)), key=lambda event: event.at)


def _event(entry: Kuaidi100Entry) -> TrackingEvent:
    name = clean_text(entry.status, _MAX_TEXT_CHARACTERS)
    code = "" if entry.status_code is None else clean_text(str(entry.status_code), _MAX_CODE_CHARACTERS)
    decoded = decode_status(code, name)
    return TrackingEvent(
        at=parse_china_time(entry.ftime or entry.time or ""),
        code=decoded.code[:_MAX_CODE_CHARACTERS],
        text=clean_text(entry.context, _MAX_TEXT_CHARACTERS) or name or decoded.code,
        status=decoded.status,
        is_unknown_code=decoded.is_unknown_code,
        place=clean_text(entry.location, _MAX_PLACE_CHARACTERS)
        or clean_text(entry.area_name, _MAX_PLACE_CHARACTERS)
        or None,
    )


def _phone(phone: str) -> dict[str, str]:
    # The carriers that require a phone number need its last four digits only, so kuaidi100 gets no more of it.
    digits = "".join(character for character in phone if character.isdigit())
    return {"phone": digits[-4:]} if len(digits) >= 4 else {}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
