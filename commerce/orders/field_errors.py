"""Errors of an order's fields, so that one answer lists all of them."""

from __future__ import annotations

from commerce.kernel.errors import Invalid

_MAX_REPORTED = 20


class FieldErrors:
    """Collects errors by JSON pointer, up to twenty."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []

    def add(self, pointer: str, detail: str) -> None:
        """Add the error of a field."""
        if len(self.entries) < _MAX_REPORTED:
            self.entries.append({"pointer": pointer, "detail": detail})

    def to_invalid(self) -> Invalid:
        """Return the refusal that lists the errors."""
        detail = "; ".join(f"{entry['pointer']}: {entry['detail']}" for entry in self.entries[:3])
        return Invalid(detail, errors=self.entries)
