"""Settings of conversations, as this package needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ConversationPolicy(Protocol):
    """The section `conversations` of the settings."""

    @property
    def reopen_within_days(self) -> float: ...
    @property
    def close_after_days(self) -> float: ...
    @property
    def open_questions_per_user(self) -> int: ...
    @property
    def unanswered_messages(self) -> int: ...
    @property
    def messages_per_conversation(self) -> int: ...
    @property
    def unsent_attachments(self) -> int: ...
    @property
    def views_per_staff(self) -> int: ...


class UploadPolicy(Protocol):
    """The part of the section `aftersales` of the settings that is about uploads."""

    @property
    def evidence_dir(self) -> Path | None: ...
    @property
    def evidence_pixels(self) -> int: ...
    @property
    def evidence_side_px(self) -> int: ...
