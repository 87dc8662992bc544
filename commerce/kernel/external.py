"""Calls to other people's systems go through this port, so that the business knows no HTTP library.

Whoever calls cannot tell a request that never arrived from an answer that got lost: `Unclear` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol


class HttpResponse(NamedTuple):
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExternalOutcomeUnknown(Exception):
    """There was no answer, or none that can be believed: it may or may not have been done. Ask, then try again."""


class ExternalRefusal(Exception):
    """The other side understood and said no; the same again will be refused again. `code` is its own word for why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class InvalidWebhook(Exception):
    """A call from outside that cannot be believed, or is not about this shop. `code` is one of the words below."""

    CODES = ("malformed", "bad_signature", "unknown_key", "stale", "foreign", "bad_content")

    def __init__(self, code: str, detail: str) -> None:
        assert code in self.CODES
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class WebhookReply(NamedTuple):
    """What the other side wants to read in answer to its call."""

    status: int
    content_type: str
    body: bytes


class HttpTransport(Protocol):
    """Sends one request within the time that was set for the other side; raises `Unclear`."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse: ...
