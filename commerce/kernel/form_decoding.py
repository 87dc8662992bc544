"""Forms that others send (application/x-www-form-urlencoded), read strictly: what is signed has one meaning only."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import parse_qsl

from commerce.kernel.external import InvalidWebhook


def decode_signed_form(body: bytes, *, most_bytes: int, most_fields: int, needs: Collection[str]) -> dict[str, str]:
    """The fields of a form in UTF-8, each there once, those that are needed among them. Raises `BadNotice`."""
    if len(body) > most_bytes:
        raise InvalidWebhook("malformed", f"{len(body)} bytes are more than {most_bytes}")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=most_fields,
        )
    except ValueError:
        raise InvalidWebhook("malformed", "the body is no form in UTF-8") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidWebhook("malformed", "a field is there twice")
    if missing := set(needs) - fields.keys():
        raise InvalidWebhook("malformed", f"without {', '.join(sorted(missing))}")
    return fields
