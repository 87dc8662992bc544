"""Settings of returns, exchanges and claims."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.base import AbsolutePath, Positive, Seconds, SettingsSection


class AftersalesSettings(SettingsSection):
    """Deadlines of cases, and what becomes of those that nobody answers in time.

    The defaults are the rules of WeChat's shops: staff decide within 48 hours, customers send the products within 7
    days, the shop confirms them within 10 days, and a customer may escalate for 7 days."""

    decide_within_s: Seconds = 172_800
    ship_within_s: Seconds = 604_800
    confirm_within_s: Seconds = 864_000
    escalate_within_s: Seconds = 604_800
    answer_within_s: Seconds = Field(default=604_800, description="for a customer to answer an offer")
    refund_within_s: Seconds = Field(
        default=604_800, description="from inspected, or approved without anything to send back; the law allows 7 days"
    )
    exchange_pay_within_s: int = Field(
        default=172_800,
        ge=60,
        le=2_592_000,
        description="to pay what a replacement costs more, or the exchanged units are refunded",
    )
    when_undecided: Literal["escalate", "approve"] = Field(
        default="escalate",
        description="if staff do not decide in time; `approve` counts their silence for the customer",
    )
    when_unconfirmed: Literal["refund", "escalate"] = Field(
        default="refund", description="if nobody confirms in time what was sent back"
    )
    deadlines_every_s: Seconds = Field(
        default=10, description="late conversations are escalated, and deadlines follow a changed policy"
    )
    money_poll_s: Seconds = Field(default=5, description="first look at the refunds of a case; later ones are rarer")
    returned_shipments: Literal["restock", "write_off"] = Field(
        default="restock", description="units that a carrier brings back undelivered are sold again, or written off"
    )
    undelivered_refund_after_s: Seconds = Field(
        default=259_200, description="for staff to resend a prepaid shipment that is lost, returned or stopped"
    )
    return_overdue_after_s: Seconds = Field(
        default=604_800, description="without a report, after which a return shipment is on the worklist `overdue`"
    )
    return_warning_after_s: Seconds = Field(
        default=432_000, description="for staff to receive or inspect a return that has arrived, before an alert"
    )
    lines_per_case: Positive = 50
    evidence_dir: AbsolutePath | None = Field(
        default=None, description="pictures of customers; shared by all gateways; if not set, DATA_DIR/evidence"
    )
    evidence_bytes: Positive = 8_388_608
    evidence_pixels: Positive = 50_000_000
    evidence_side_px: Positive = 2_048
    evidence_per_order: Positive = 20  # that no case uses yet
    evidence_upload_timeout_s: Seconds = 60
    concurrent_uploads: Positive = 4  # per process, each with up to `evidence_bytes` and its pixels
    open_cases_per_order: Positive = 20
