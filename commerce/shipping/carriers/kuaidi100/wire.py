"""kuaidi100's protocol: forms with a parameter in JSON, signed with MD5.

Asking for pushes and the pushes: https://api.kuaidi100.com/document/5f0ffa8f2977d50a94e1023c; queries:
https://api.kuaidi100.com/document/5f0ffb5ebc8da837cbd8aefc. Its own code for both: https://github.com/kuaidi100-api.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlencode

import msgspec

from commerce.kernel import form_decoding
from commerce.kernel.china_time import parse_china_time
from commerce.kernel.external import ExternalOutcomeUnknown, InvalidWebhook
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.carriers.kuaidi100.settings import Kuaidi100Account
from commerce.shipping.carriers.kuaidi100.status_map import meaning

MAX_PUSH_BYTES = 262_144
"""A push has the whole history, some hundred bytes an entry; what is longer than this is not even parsed."""
MAX_PUSH_FIELDS = 20
MAX_ENTRIES = 1_000

_RESULT = "4"
"""Histories with the finer codes (statusCode), which "1" leaves out."""
_TEXT, _PLACE, _CODE = 500, 200, 64
"""The longest that is kept of each."""

_Text = str | None
_Code = str | int | None
T = TypeVar("T")


class Kuaidi100Entry(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a parcel's history. `ftime` is `time` in one form for all carriers."""

    context: _Text = None
    time: _Text = None
    ftime: _Text = None
    status: _Text = None
    status_code: _Code = None
    location: _Text = None
    area_name: _Text = None


Entries = Annotated[list[Kuaidi100Entry], msgspec.Meta(max_length=MAX_ENTRIES)]


class Kuaidi100Reply(msgspec.Struct, frozen=True, rename="camel"):
    """A history in answer to a query or as the last result in a push, the newest first; or why there is none."""

    message: _Text = None
    return_code: _Code = None
    status: _Code = None
    com: _Text = None
    nu: _Text = None
    data: Entries | None = None


class FollowAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """The answer to who asks for pushes."""

    result: bool
    return_code: str | int
    message: _Text = None


class Pushed(msgspec.Struct, frozen=True, rename="camel"):
    """A push's parameter. `com_old` is the carrier that was asked for, where kuaidi100 found that it is another."""

    last_result: Kuaidi100Reply
    com_old: _Text = None


def signature(*parts: str) -> str:
    """MD5 of the parts in a row, in capitals: pushes know no other."""
    return hashlib.md5("".join(parts).encode()).hexdigest().upper()  # noqa: S324  # it is theirs to choose


def follow_form(account: Kuaidi100Account, com: str, number: str, phone: str) -> bytes:
    """What asks for a parcel's pushes. It is not signed: it says the key."""
    parameters = {"callbackurl": account.notify_url, "salt": account.salt, "resultv2": _RESULT, **_phone(phone)}
    param = {"company": com, "number": number, "key": account.key, "parameters": parameters}
    return urlencode({"schema": "json", "param": _json(param)}).encode()


def query_form(account: Kuaidi100Account, com: str, number: str, phone: str) -> bytes:
    """What asks for a parcel's history."""
    param = _json({"com": com, "num": number, "resultv2": _RESULT, **_phone(phone)})
    sign = signature(param, account.key, account.customer)
    return urlencode({"customer": account.customer, "sign": sign, "param": param}).encode()


def read_answer(status: int, body: bytes, kind: type[T]) -> T:
    """Raises `Unclear` for anything but an answer of that form."""
    try:
        if status == 200:
            return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    raise ExternalOutcomeUnknown(f"this is no answer of kuaidi100's: {status} {body[:200]!r}")


def read_form(body: bytes, salt: str) -> str:
    """The parameter of a push, in JSON as it was signed. Raises `BadNotice`: malformed or bad_signature."""
    fields = form_decoding.decode_signed_form(
        body, max_bytes=MAX_PUSH_BYTES, max_fields=MAX_PUSH_FIELDS, required=("sign", "param")
    )
    if not hmac.compare_digest(fields["sign"].encode(), signature(fields["param"], salt).encode()):
        raise InvalidWebhook("bad_signature", "not signed with our salt")
    return fields["param"]


def read_pushed(param: str) -> Pushed:
    """Raises `BadNotice`: bad_content."""
    try:
        return msgspec.json.decode(param, type=Pushed)
    except (msgspec.MsgspecError, RecursionError) as why:
        raise InvalidWebhook("bad_content", str(why)[:200]) from None


def read_news(entries: Sequence[Kuaidi100Entry]) -> list[TrackingEvent]:
    """A history in the order of time. Raises `ValueError` for a time that is none."""
    # Of one second, what stands further down in a history happened earlier.
    return sorted((_news(entry) for entry in reversed(entries)), key=lambda news: news.at)


def _news(entry: Kuaidi100Entry) -> TrackingEvent:
    name = _line(entry.status)
    code, state, unknown = meaning("" if entry.status_code is None else _line(str(entry.status_code)), name)
    return TrackingEvent(
        at=parse_china_time(entry.ftime or entry.time or ""),
        code=code[:_CODE],
        text=(_line(entry.context) or name or code)[:_TEXT],
        state=state,
        is_unknown_code=unknown,
        place=(_line(entry.location) or _line(entry.area_name))[:_PLACE] or None,
    )


def _phone(phone: str) -> dict[str, str]:
    # The last four digits are enough for the carriers that ask for them, and more is none of kuaidi100's business.
    digits = "".join(character for character in phone if character.isdigit())
    return {"phone": digits[-4:]} if len(digits) >= 4 else {}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _line(text: str | None) -> str:
    """On one line, without NUL, which no database takes."""
    return " ".join((text or "").replace("\0", " ").split())
