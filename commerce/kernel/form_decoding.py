"""Strict decoding of signed forms (application/x-www-form-urlencoded).

A lenient decoder could read signed content in several ways.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl

from commerce.kernel.external import InvalidWebhook


def decode_signed_form(body: bytes, *, max_bytes: int, max_fields: int, required: Collection[str]) -> dict[str, str]:
    """Decode a form with distinct fields.

    Bytes that are not UTF-8 are kept as `surrogateescape` does, since the signature covers them: encode the fields in
    that way to verify it, and clean what is stored.
    Raises `InvalidWebhook` if the body is too long or malformed, repeats a field, or lacks a required one.
    """
    if len(body) > max_bytes:
        raise InvalidWebhook("malformed", f"the body has {len(body)} bytes, more than {max_bytes}")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="surrogateescape",
            max_num_fields=max_fields,
        )
    except ValueError:
        raise InvalidWebhook("malformed", "the body is not a form") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidWebhook("malformed", "a field occurs twice")
    if missing := set(required) - fields.keys():
        raise InvalidWebhook("malformed", f"fields are missing: {', '.join(sorted(missing))}")
    return fields
