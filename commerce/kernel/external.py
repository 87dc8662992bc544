"""The port to external systems, so that business code depends on no HTTP library.

A lost request looks like a lost response: both raise `ExternalOutcomeUnknown`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

DelayReason = Literal["merchant_balance", "frequency", "frozen", "busy"]
"""the merchant's balance, the number of requests, a frozen payment, or the system itself is the reason"""


class HttpResponse(NamedTuple):
    """A response with header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExternalOutcomeUnknown(Exception):
    """No answer came, or none that can be trusted.

    The request may have been executed, so query its state before a retry.
    """


class AnswerTooLong(ExternalOutcomeUnknown):
    """The answer is longer than its reader accepts. A repeat would be, too."""


class ExternalDelay(ExternalOutcomeUnknown):
    """The external system answered that it does not do the request now: the same one may succeed later.

    It can be reached, so its circuit breaker stays closed. `code` is the system's own word, `reason` ours. Whoever does
    not tell this from an unknown outcome queries the state before a retry, which does no harm.
    """

    def __init__(self, code: str, reason: DelayReason, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.reason = reason


class ExternalRefusal(Exception):
    """The external system refused the request and would refuse a repeat.

    `code` is the system's own word for the reason.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class InvalidWebhook(Exception):
    """An incoming webhook is not authentic, not readable, or not for this shop. `code` is one of `CODES`."""

    CODES = ("malformed", "bad_signature", "unknown_key", "stale", "foreign", "bad_content")

    def __init__(self, code: str, detail: str) -> None:
        assert code in self.CODES
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class WebhookReply(NamedTuple):
    """The response that an external system expects to its webhook."""

    status: int
    content_type: str
    body: bytes


class HttpTransport(Protocol):
    """Sends one request within the timeout of its system. Raises `ExternalOutcomeUnknown`."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse: ...


class CredentialSource(Protocol):
    """The settings of an account at a provider or a carrier."""

    def as_strings(self) -> dict[str, str]:
        """Return all fields as strings, secrets in clear text: for the adapter only."""
        ...
