"""Settings of screening: signals of scalpers, and what a customer's score leads to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from config.base import Positive, SettingsSection

_LogScore = Annotated[int, Field(ge=1, le=100)]
# An address alone has 25 points, and with a form of requests 45: many innocent people share both.
_DelayScore = Annotated[int, Field(ge=30, le=100)]
_RefuseScore = Annotated[int, Field(ge=60, le=100)]


class ScreeningSettings(SettingsSection):
    """Signals of scalpers as a score from 0 to 100, and the scores from which a customer is acted on.

    Of the actions whose score is reached the last one in this list is taken: log, proof of work, wait, refuse. One
    without a score is never taken.
    """

    enabled: bool = Field(default=False, description="note joins and orders, and score the customers of running sales")
    log_min_score: _LogScore | None = None
    proof_of_work_min_score: _DelayScore | None = Field(
        default=None, description="joining a waiting room takes a proof of work"
    )
    wait_min_score: _DelayScore | None = Field(default=None, description="joining a waiting room is possible later")
    refuse_min_score: _RefuseScore | None = Field(default=None, description="joining and ordering are refused")
    wait_s: Positive = 60
    # Signals, per sale.
    accounts_per_address: Positive = 50
    accounts_per_device: Positive = 3
    accounts_per_phone: Positive = 5
    accounts_per_form: Positive = 100
    form_accounts_per_address: Positive = 20
    requests_per_s: Positive = 8
    fastest_human_ms: Positive = 150
    # Proofs of work.
    proof_attempts: Annotated[int, Field(ge=2, le=1_000_000)] = 10_000
    proof_valid_s: Annotated[int, Field(ge=10, le=3_600)] = 300
    proofs_per_sale: Positive = 1_000_000
    # Limits of a gateway's memory.
    buffered_customers: Positive = 20_000
    sightings_per_s: Positive = 2_000
    waiting_sightings: Positive = 200_000  # rows in Postgres that wait for the worker
    acted_on_customers: Positive = 100_000
    # Limits of the worker.
    rows_per_step: Annotated[int, Field(ge=1, le=10_000)] = 2_000
