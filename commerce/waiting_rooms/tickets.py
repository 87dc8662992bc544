"""Tickets of waiting rooms and wait-lists: numbers, signed for one customer and one sale.

A ticket of a room is `r1.NUMBER.EXPIRES.SIGNATURE`: the number (0 before the draw), the second at which it expires, and
the first 16 bytes of an HMAC-SHA256 over both, the sale and the user, in base64url. That of a wait-list begins with
`w1` and is bound to a SKU too. Another sale, user, SKU or kind makes it invalid.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode

from commerce.waiting_rooms.draw import ticket_hash

MAX_TICKET_CHARS = 80
NONCE_BYTES = 16
_TICKET = re.compile(r"([rw]1)\.([0-9]{1,9})\.([0-9]{1,12})\.([A-Za-z0-9_-]{22})")
_SIGNATURE_BYTES = 16


class RoomTickets:
    """Signs and verifies tickets with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def sign(self, sale_id: str, user_id: str, number: int, expires_s: int, sku: str | None = None) -> str:
        """Return a customer's ticket of the waiting room, or with `sku` of the wait-list."""
        signature = self._signature(sale_id, user_id, sku, str(number), str(expires_s))
        return f"{_kind(sku)}.{number}.{expires_s}.{signature}"

    def verify(self, sale_id: str, user_id: str, ticket: str, now_s: float, sku: str | None = None) -> int | None:
        """Return the number of a ticket; None if it is not this user's for this sale and SKU, or has expired."""
        match = _TICKET.fullmatch(ticket)
        if match is None or match[1] != _kind(sku):
            return None
        _, number, expires, signature = match.groups()
        # A signature of other digits for the same number, such as 007, is not one that was given out.
        if not hmac.compare_digest(signature, self._signature(sale_id, user_id, sku, number, expires)):
            return None
        return int(number) if now_s < int(expires) else None

    def _signature(self, sale_id: str, user_id: str, sku: str | None, number: str, expires: str) -> str:
        kind = "room-ticket" if sku is None else f"wait-list-ticket\0{sku}"
        message = f"floodgate-{kind}\0{sale_id}\0{user_id}\0{number}\0{expires}".encode()
        return urlsafe_b64encode(hmac.digest(self._key, message, "sha256")[:_SIGNATURE_BYTES]).rstrip(b"=").decode()


def _kind(sku: str | None) -> str:
    return "r1" if sku is None else "w1"


def make_nonce(salt: bytes, user_id: str) -> bytes:
    """Return the secret that only the customer and the shop know of his ticket hash."""
    return hmac.digest(salt, user_id.encode(), "sha256")[:NONCE_BYTES]


def hash_of(salt: bytes, sale_id: str, user_id: str) -> tuple[bytes, bytes]:
    """Return a customer's ticket hash and its nonce."""
    nonce = make_nonce(salt, user_id)
    return ticket_hash(sale_id, user_id, nonce), nonce
