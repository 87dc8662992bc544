"""Strict decoding of JSON bodies and idempotency keys; msgspec's errors become input errors."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.types import explain_mismatch
from commerce.orders.model import PlaceOrder
from gateway.body_mismatches import list_mismatches
from gateway.problems import BadRequest

IdempotencyKey = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
IDEMPOTENCY_KEY_DESCRIPTION = (
    "any text of up to 128 printable characters, new for each order; a repeat with the same key is the same order"
)
IDEMPOTENCY_KEY_INVALID = "not 1 to 128 printable ASCII characters without blanks"
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,128}")
_UNDECODABLE = (ValueError, RecursionError)
_ERROR_PATH = re.compile(r" - at `([^`]*)`$")
_TO_POINTER = str.maketrans({".": "/", "[": "/", "]": None})
_decode_order = msgspec.json.Decoder(PlaceOrder).decode

Type = TypeVar("Type")


def decode_json(decoder: msgspec.json.Decoder[Type], body: bytes) -> Type:
    """Decode a body to its type.

    Raises `Invalid` with a JSON pointer if a value is wrong, `BadRequest` if the body is not JSON.
    """
    try:
        return decoder.decode(body)
    except _UNDECODABLE as error:
        raise _input_problem(error, body, decoder.type) from None


def decode_order_body(body: bytes) -> PlaceOrder:
    """Decode the body of an order. Raises `Invalid` or `BadRequest` as `decode_json`."""
    try:
        return _decode_order(body)
    except _UNDECODABLE as error:
        raise _input_problem(error, body, PlaceOrder) from None


def _input_problem(error: Exception, body: bytes, type_: Any) -> ProblemError:
    if not isinstance(error, msgspec.ValidationError):
        return BadRequest(f"the body is not JSON: {error}")
    mismatches = [_locate(mismatch, pointer) for pointer, mismatch in list_mismatches(body, type_)]
    return _invalid(mismatches or [_locate(error)])


def invalid_input(error: msgspec.ValidationError) -> Invalid:
    """Build `Invalid` from msgspec's error.

    Its path `$.lines[0].sku` becomes the JSON pointer `/lines/0/sku`.
    """
    return _invalid([_locate(error)])


def _locate(error: msgspec.ValidationError, pointer: str = "") -> dict[str, str]:
    """Return an error of the part at a JSON pointer, with the pointer that its own path adds."""
    text = explain_mismatch(error)
    if path := _ERROR_PATH.search(text):
        text = text[: path.start()]
        pointer += path[1].removeprefix("key in ").removeprefix("$").translate(_TO_POINTER)
    return {"pointer": pointer, "detail": text}


def _invalid(errors: list[dict[str, str]]) -> Invalid:
    first, more = errors[0], len(errors) - 1
    others = f"; and {more} more, see errors" if more else ""
    return Invalid(f"{first['pointer'] or 'the body'}: {first['detail']}{others}", errors=errors)


def check_idempotency_key(value: str | None) -> str:
    """Return the value of an Idempotency-Key header if it is valid.

    Raises `BadRequest` if the header is missing, `Invalid` if its value is wrong.
    """
    if value is None:
        raise BadRequest(f"the header parameter Idempotency-Key is missing: {IDEMPOTENCY_KEY_DESCRIPTION}")
    if not _IDEMPOTENCY_KEY.fullmatch(value):
        raise Invalid(
            f"Idempotency-Key: {IDEMPOTENCY_KEY_INVALID}",
            errors=[{"pointer": "Idempotency-Key", "detail": IDEMPOTENCY_KEY_INVALID}],
        )
    return value
