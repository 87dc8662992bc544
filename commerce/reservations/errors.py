"""Refusals to release units of an order."""

from __future__ import annotations

from commerce.kernel.errors import Conflict


class UnitsNotLeft(Conflict):
    """More units were to be released than the order still has, or none of them may be."""

    code = "units_not_left"
