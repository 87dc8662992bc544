"""What every payment provider does, in one shape. An adapter is a folder in `providers/` with at least these files:

`settings.py` what the shop has agreed with the provider (keys, ids, addresses), `wire.py` its protocol: signatures and
the form of messages, `states.py` its words for what became of a payment in ours, `adapter.py` the methods below.

Each method may be called again with the same ids, however the first call ended: the provider knows a payment by its
`payment_id` and a refund by its `refund_id` (both as 32 hexadecimal digits) and never does one twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

from commerce.kernel.external import WebhookReply
from commerce.kernel.money import Money

PaymentFlow = Literal["page", "app", "qr", "jsapi"]
"""How the customer pays: on a page of the provider's, in its app from ours, by a code to scan, inside its own app."""


class PaymentRequest(msgspec.Struct, frozen=True):
    """A payment that a provider is asked to take. `payer` is the provider's own id of the customer (for jsapi)."""

    payment_id: UUID
    order_id: UUID
    amount: Money
    subject: str
    expires_at: datetime
    flow: PaymentFlow
    payer: str | None = None
    return_url: str | None = None


class PaymentAction(msgspec.Struct, frozen=True):
    """What the customer has to do now: follow `url`, scan `code`, or hand `parameters` to the provider's SDK."""

    kind: Literal["redirect", "qr", "app", "jsapi", "none"]
    url: str | None = None
    code: str | None = None
    parameters: dict[str, str] | None = None


PaymentState = Literal["absent", "waiting", "captured", "closed"]
"""`absent`: the provider knows nothing of it (yet). `captured`: money was taken, whatever was refunded since. `closed`:
no money was taken and none will be."""
RefundState = Literal["absent", "waiting", "done", "failed"]


class ProviderPayment(msgspec.Struct, frozen=True):
    """A payment as the provider sees it. Amount, transaction and time are there when it is captured."""

    payment_id: UUID
    state: PaymentState
    amount: Money | None = None
    transaction_id: str | None = None
    captured_at: datetime | None = None


class ProviderRefund(msgspec.Struct, frozen=True):
    """A refund as the provider sees it. `why` says why it failed; a callback may leave out the amount."""

    payment_id: UUID
    refund_id: UUID
    state: RefundState
    amount: Money | None = None
    reason: str = ""


class RefundRequest(msgspec.Struct, frozen=True):
    """A refund that a provider is asked for; `captured` is the payment's whole amount."""

    payment_id: UUID
    refund_id: UUID
    amount: Money
    captured: Money
    reason: str


class PaymentWebhook(msgspec.Struct, frozen=True):
    """A callback that is genuine: `notice_id` is the same whenever the provider sends it again."""

    webhook_id: str
    subject: ProviderPayment | ProviderRefund


class StatementLine(NamedTuple):
    """One line of a provider's daily statement. `refund_id` is None on the line of a payment; `transaction_id` is the
    provider's own number of the payment, or of the refund."""

    payment_id: UUID
    refund_id: UUID | None
    amount: Money
    transaction_id: str


class Provider(Protocol):
    """One way to be paid by somebody outside.

    The methods that call out raise `Unclear` where nobody knows what happened, and `Refused` where it was said no.
    """

    name: str
    flows: tuple[PaymentFlow, ...]
    currencies: tuple[str, ...]

    async def create(self, charge: PaymentRequest) -> PaymentAction:
        """Ask for a payment; what the customer has to do. Again for the same payment gives the like."""
        ...

    async def query(self, payment_id: UUID) -> ProviderPayment: ...

    async def close(self, payment_id: UUID) -> ProviderPayment:
        """See to it that it can be paid no more, unless it has been: `closed` or `captured`.

        Also `closed` or `absent` where the provider has never heard of it: until `expires_at` it still may.
        """
        ...

    async def refund(self, order: RefundRequest) -> ProviderRefund: ...

    async def query_refund(self, order: RefundRequest) -> ProviderRefund: ...

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """Check a callback's signature over its raw body, and that it is ours. Names of headers are in lower case.

        Raises `BadNotice`, and `Refused` never: what the content means for us is not judged here.
        """
        ...

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """The answer to a callback: it was stored, or it was not and may come again."""
        ...

    def read_statement(self, text: str) -> list[StatementLine | str]:
        """The provider's daily statement, each line as `Line` or, where it cannot be read, as a text that says why."""
        ...

    async def refresh(self) -> None:
        """Renew what changes by itself, such as the provider's certificates. Nothing to do for most."""
        ...
