"""A second implementation of the draw, written without the first."""

from __future__ import annotations

from functools import cmp_to_key
from hashlib import sha256


def _xor(data: bytes, value: int) -> bytes:
    return bytes(byte ^ value for byte in data)


def draw_by_rules(sale_id: str, tickets: set[bytes], randomness: str) -> tuple[str, list[bytes]]:
    """Draw by the published rules, with HMAC from RFC 2104 and pairwise comparison.

    Returns the digest of the list in hex and the ticket hashes by place.
    """
    digest = sha256(f"floodgate-list\0{sale_id}\0".encode() + b"".join(sorted(tickets))).digest()
    secret = randomness.encode()
    block = (sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    inner, outer = sha256(_xor(block, 0x36)), sha256(_xor(block, 0x5C))

    def score(ticket: bytes) -> bytes:
        inside, outside = inner.copy(), outer.copy()
        inside.update(digest + ticket)
        outside.update(inside.digest())
        return outside.digest()

    scores = {ticket: score(ticket) for ticket in tickets}

    def compare(ticket: bytes, other: bytes) -> int:
        return -1 if (scores[ticket], ticket) < (scores[other], other) else 1

    return digest.hex(), sorted(tickets, key=cmp_to_key(compare))
