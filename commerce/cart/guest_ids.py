"""Ids of guests' carts, signed: whoever has one may read and change the cart.

An id is `c1.ID.SIGNATURE`: the cart's UUID in hex, and the first 16 bytes of an HMAC-SHA256 over it in base64url.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from uuid import UUID

MAX_GUEST_ID_CHARS = 80
_GUEST_ID = re.compile(r"c1\.([0-9a-f]{32})\.([A-Za-z0-9_-]{22})")
_SIGNATURE_BYTES = 16


class GuestIds:
    """Signs and verifies ids of guests' carts with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def sign(self, cart_id: UUID) -> str:
        """Return the id by which a guest names the cart."""
        return f"c1.{cart_id.hex}.{self._signature(cart_id.hex)}"

    def verify(self, text: str) -> UUID | None:
        """Return the id of the cart, None if it was not signed with this key."""
        match = _GUEST_ID.fullmatch(text)
        if match is None or not hmac.compare_digest(match[2], self._signature(match[1])):
            return None
        return UUID(hex=match[1])

    def _signature(self, cart_hex: str) -> str:
        message = f"floodgate-cart\0{cart_hex}".encode()
        return urlsafe_b64encode(hmac.digest(self._key, message, "sha256")[:_SIGNATURE_BYTES]).rstrip(b"=").decode()
