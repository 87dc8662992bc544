"""Settings of conversations of customers with support."""

from __future__ import annotations

from pydantic import Field

from config.base import Positive, SettingsSection


class ConversationSettings(SettingsSection):
    """Limits of conversations, and when they are closed and reopened."""

    reopen_within_days: float = Field(
        default=14, gt=0, le=3650, description="a message to one that was closed longer ago opens a new one"
    )
    close_after_days: float = Field(
        default=3, gt=0, le=3650, description="a resolved one is closed, and its customer asked, once"
    )
    open_questions_per_user: Positive = 20
    unanswered_messages: Positive = Field(default=30, description="of a customer, which wait for an answer")
    messages_per_conversation: Positive = 2_000
    unsent_attachments: Positive = Field(default=10, description="uploads of a person that no message has")
    views_per_staff: Positive = 50
