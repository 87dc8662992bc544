"""What the shop has settled about its parcels, as the settings say it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo


class BoxRule(Protocol):
    """A box, measured inside; `weight_g` is its own."""

    @property
    def name(self) -> str: ...
    @property
    def length_mm(self) -> int: ...
    @property
    def width_mm(self) -> int: ...
    @property
    def height_mm(self) -> int: ...
    @property
    def weight_g(self) -> int: ...
    @property
    def max_contents_g(self) -> int: ...


class ShippingPolicy(Protocol):
    """The part `shipping` of the settings."""

    @property
    def timezone(self) -> str: ...
    @property
    def dispatch_cutoff(self) -> time: ...
    @property
    def delivery_promise_days(self) -> int: ...
    @property
    def boxes(self) -> Sequence[BoxRule]: ...
    @property
    def box_fill_ratio(self) -> float: ...
    @property
    def shipments_per_order(self) -> int: ...
    @property
    def tracking_poll_initial_s(self) -> float: ...
    @property
    def tracking_poll_max_s(self) -> float: ...
    @property
    def no_first_scan_after_s(self) -> float: ...
    @property
    def stalled_after_s(self) -> float: ...
    @property
    def complete_after_s(self) -> float: ...


def dispatch_day(rules: ShippingPolicy, now: datetime) -> date:
    """The day on which a parcel that is planned now leaves, in the shop's time."""
    local = now.astimezone(ZoneInfo(rules.timezone))
    return local.date() + timedelta(days=local.time() > rules.dispatch_cutoff)


def promised_day(rules: ShippingPolicy, paid_at: datetime) -> date:
    return paid_at.astimezone(ZoneInfo(rules.timezone)).date() + timedelta(days=rules.delivery_promise_days)
