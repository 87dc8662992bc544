"""Marks: what accounts may share, hashed with a secret of the sale so that nobody can read it back."""

from __future__ import annotations

import hmac

from commerce.screening.model import MARK_BYTES, Mark, MarkKind, Sighting


def make_mark(salt: bytes, kind: MarkKind, value: str) -> bytes:
    """Hash an address, device id, phone number or form with the salt of its sale."""
    return hmac.digest(salt, f"{kind}\0{value}".encode(errors="surrogateescape"), "sha256")[:MARK_BYTES]


def normalise_phone(phone: str) -> str:
    """Return the digits of a phone number, empty if it has none: accounts may write it in different ways."""
    return "".join(letter for letter in phone if letter.isdecimal())


def list_marks(sighting: Sighting) -> list[Mark]:
    """List the marks of a sighting."""
    sale_id, user_id = sighting.sale_id, sighting.user_id
    hashes: list[tuple[MarkKind, bytes | None]] = [
        ("address", sighting.address),
        ("device", sighting.device),
        ("form", sighting.form),
    ]
    return [Mark(sale_id, kind, mark, user_id) for kind, mark in hashes if mark is not None]
