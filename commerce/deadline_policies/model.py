"""Policies of deadlines as staff set them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

from commerce.working_time.model import CalendarId

DeadlinePolicyId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["claims-urgent"])]
DeadlineTeam = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z", examples=["claims"])]
DeadlineSubject = Literal["question", "return", "exchange", "claim", "refund_only"]
PriorityNo = Annotated[int, msgspec.Meta(ge=1, le=4, description="1 urgent to 4 low")]
WorkingSeconds = Annotated[int, msgspec.Meta(ge=60, le=5_184_000, description="seconds of working time")]


class DeadlineTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Working time of a calendar for the first response, the decision and the money.

    The policy counts for conversations of its team, kind and priority, each if it names one. Without a time there is no
    such deadline. A late conversation gets `escalation_priority`, if its own is lower, and `escalation_team_id`."""

    team_id: DeadlineTeam | None = None
    kind: DeadlineSubject | None = None
    priority: PriorityNo | None = None
    calendar_id: CalendarId = "default"
    first_response_s: WorkingSeconds | None = None
    decision_s: WorkingSeconds | None = None
    money_s: WorkingSeconds | None = None
    escalation_priority: PriorityNo | None = None
    escalation_team_id: DeadlineTeam | None = None


class DeadlinePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A stored policy. The most specific one counts: by team, then by kind, then by priority."""

    policy_id: str
    version: int
    terms: DeadlineTerms
    changed_at: datetime
    actor: str
