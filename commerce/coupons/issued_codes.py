"""Codes of coupons that are issued to one customer each: `CODE.SIGNATURE`.

The signature is the first 20 characters, in base32, of an HMAC-SHA256 over sale, code and customer: 100 bits, which
nobody guesses. A gateway checks it from memory; nothing is stored per customer.
"""

from __future__ import annotations

import hmac
from base64 import b32encode

_SIGNATURE_CHARS = 20
_SEPARATOR = "."
MAX_CODE_CHARS = 40 + len(_SEPARATOR) + _SIGNATURE_CHARS
"""characters of what a customer enters"""


class IssuedCodes:
    """Signs and verifies codes with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def issue(self, sale_id: str, code: str, user_id: str) -> str:
        """Return the code with which a customer can use a coupon; always the same one."""
        return f"{code}{_SEPARATOR}{self._sign(sale_id, code, user_id)}"

    def verify(self, sale_id: str, code: str, user_id: str, signature: str) -> bool:
        """Tell whether a signature is that of this coupon for this customer."""
        return hmac.compare_digest(signature.encode(), self._sign(sale_id, code, user_id).encode())

    def _sign(self, sale_id: str, code: str, user_id: str) -> str:
        message = f"{sale_id}\0{code}\0{user_id}".encode()
        return b32encode(hmac.digest(self._key, message, "sha256")).decode()[:_SIGNATURE_CHARS]


def split_code(text: str) -> tuple[str, str]:
    """Split what a customer entered into code and signature, which is empty if there is none."""
    code, _, signature = text.partition(_SEPARATOR)
    return code, signature
