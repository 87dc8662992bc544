"""Refusals of refunds, to staff and to those who grant them for customers."""

from __future__ import annotations

from commerce.kernel.errors import Conflict


class UnitsRefunded(Conflict):
    code = "units_refunded"
    title = "Fewer units are left to refund"


class FreightRefunded(Conflict):
    code = "freight_refunded"
    title = "Less freight is left to refund"
