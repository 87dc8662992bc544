"""Settings of the deletion of old rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.base import Positive, Seconds, SettingsSection

_Days = Annotated[float, Field(gt=0)]
_WebhookDays = Annotated[float, Field(ge=7, description="providers and carriers repeat webhooks for days")]
_RepeatDays = Annotated[float, Field(ge=1, description="clients repeat a request whose answer they lost")]


class RetentionSettings(SettingsSection):
    """Ages from which rows are deleted, if nothing that is open needs them.

    `screening_days` count from a customer's last request, `guest_cart_days` from a cart's last change,
    `missed_search_days` from the last time that somebody searched so, `sales_minute_days` from the minute."""

    payment_webhook_days: _WebhookDays = 180
    carrier_webhook_days: _WebhookDays = 90
    tracking_event_days: _WebhookDays = 180
    staff_request_days: _Days = 2
    guest_cart_days: _Days = 30
    checkout_days: _RepeatDays = 90
    screening_days: _Days = 30
    order_view_days: _Days = 365
    sales_minute_days: _Days = 92
    unused_evidence_days: _Days = 7
    unused_picture_days: _Days = 7
    picture_import_days: _Days = 30
    quality_day_days: _Days = 1_830
    product_import_days: _Days = 30
    article_vote_days: _RepeatDays = 2
    missed_search_days: _Days = 90
    rows_per_step: Positive = 1_000
    step_pause_s: Seconds = 0.5
