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
    def carries_g(self) -> int: ...


class ShippingPolicy(Protocol):
    """The part `shipping` of the settings."""

    @property
    def timezone(self) -> str: ...
    @property
    def hand_over_by(self) -> time: ...
    @property
    def promise_days(self) -> int: ...
    @property
    def boxes(self) -> Sequence[BoxRule]: ...
    @property
    def fill_share(self) -> float: ...
    @property
    def parcels_per_order(self) -> int: ...
    @property
    def track_first_s(self) -> float: ...
    @property
    def track_most_s(self) -> float: ...
    @property
    def silent_after_s(self) -> float: ...
    @property
    def stuck_after_s(self) -> float: ...
    @property
    def complete_after_s(self) -> float: ...


def dispatch_day(rules: ShippingPolicy, now: datetime) -> date:
    """The day on which a parcel that is planned now leaves, in the shop's time."""
    local = now.astimezone(ZoneInfo(rules.timezone))
    return local.date() + timedelta(days=local.time() > rules.hand_over_by)


def promised_day(rules: ShippingPolicy, paid_at: datetime) -> date:
    return paid_at.astimezone(ZoneInfo(rules.timezone)).date() + timedelta(days=rules.promise_days)
