"""Checks the coupons that an order presents, from the memory of a gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from commerce.coupons.errors import CouponKeyMissing
from commerce.coupons.issued_codes import IssuedCodes, split_code
from commerce.sales.model import CouponTerms

_MAX_SHOWN_CHARS = 80


def check_coupons(
    presented: Sequence[str],
    coupons: Mapping[str, CouponTerms],
    codes: IssuedCodes | None,
    sale_id: str,
    user_id: str,
    add_error: Callable[[str, str], None],
) -> list[str]:
    """Return the codes of valid coupons, each once.

    What is wrong with the others is added by JSON pointer. Raises `CouponKeyMissing` if an issued one is presented and
    the settings have no key.
    """
    valid: list[str] = []
    promotions: set[str] = set()
    for number, text in enumerate(presented):
        code, signature = split_code(text)
        terms, pointer = coupons.get(code), f"/coupons/{number}"
        if terms is None or (signature and not terms.is_issued):
            add_error(pointer, f"{text[:_MAX_SHOWN_CHARS]!r} is no coupon of this sale")
        elif terms.is_issued and not _is_issued_to(codes, sale_id, code, user_id, signature):
            add_error(pointer, "it was issued to another customer, or is not complete")
        elif code in valid:
            add_error(pointer, "it occurs twice")
        elif terms.promotion_id in promotions:
            add_error(pointer, "another coupon of the order is for the same promotion")
        else:
            valid.append(code)
            promotions.add(terms.promotion_id)
    return valid


def _is_issued_to(codes: IssuedCodes | None, sale_id: str, code: str, user_id: str, signature: str) -> bool:
    if codes is None:
        raise CouponKeyMissing("cannot check the coupon: set FLOODGATE_AUTH__COUPON_KEY")
    return codes.verify(sale_id, code, user_id, signature)
