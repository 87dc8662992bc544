"""The shop's shipping settings, and the dates that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo


class BoxRule(Protocol):
    """A box with its inner dimensions; `weight_g` is the empty box's weight."""

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
    """The section `shipping` of the settings."""

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


def dispatch_day(policy: ShippingPolicy, now: datetime) -> date:
    """Return the day in the warehouses' time zone on which a shipment that is planned now is dispatched."""
    local = now.astimezone(ZoneInfo(policy.timezone))
    return local.date() + timedelta(days=local.time() > policy.dispatch_cutoff)


def promised_day(policy: ShippingPolicy, paid_at: datetime) -> date:
    """Return the day in the warehouses' time zone by which an order is promised to be delivered."""
    return paid_at.astimezone(ZoneInfo(policy.timezone)).date() + timedelta(days=policy.delivery_promise_days)
