"""Numbers of refunds on providers' statements: ours, and those of refunds that somebody made by hand."""

from __future__ import annotations

from uuid import UUID, uuid5

from commerce.kernel.ids import parse_uuid_hex
from commerce.payments.fund_lines import check_number


def read_refund_number(payment_id: UUID, number: str) -> tuple[UUID, str | None]:
    """Return the id of a refund on a statement, and its number if that is none of the shop's.

    Raises `ValueError` if there is no number."""
    refund_id = parse_uuid_hex(number)
    if refund_id is not None:
        return refund_id, None
    return uuid5(payment_id, check_number(number, "number of ours, nor another one of a refund")), number
