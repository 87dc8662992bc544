"""The port of payment providers. An adapter is a folder in `providers/` with at least these files:

`settings.py` the account at the provider (keys, ids, addresses), `wire.py` its protocol (signatures and the form of
messages), `status_map.py` its statuses in our words, `adapter.py` the methods below, and `__init__.py` the `ADAPTER`
that the registry in `providers/__init__.py` lists.

Every method may be called again with the same ids, however the first call ended. The provider identifies a payment by
its `payment_id` and a refund by its `refund_id`, both as 32 hexadecimal digits, and never does one twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Protocol
from uuid import UUID

import msgspec

from commerce.kernel.external import WebhookReply
from commerce.kernel.money import Money
from commerce.kernel.types import filled_line
from commerce.payments.fund_lines import Payout

PaymentFlow = Literal["page", "mobile_page", "app", "qr", "jsapi"]
"""the provider's page, its page for phones, its app from ours, a code to scan, a page inside its app"""


class PaymentRequest(msgspec.Struct, frozen=True):
    """A payment to create at a provider.

    `subject` is the text on the customer's bill. `payer` is the provider's own id of the customer (for jsapi), and
    `payer_ip` the customer's network address (for WeChat Pay's mobile_page)."""

    payment_id: UUID
    order_id: UUID
    amount: Money
    subject: str
    expires_at: datetime
    flow: PaymentFlow
    payer: str | None = None
    return_url: str | None = None
    payer_ip: str | None = None


class PaymentAction(msgspec.Struct, frozen=True):
    """The customer's next step: open `url`, scan `code`, or pass `parameters` to the provider's SDK.

    It is of no use from `expires_at` on, even if the payment can still be paid: start the payments again to renew it.
    """

    kind: Literal["redirect", "qr", "app", "jsapi", "none"]
    url: str | None = None
    code: str | None = None
    parameters: dict[str, str] | None = None
    expires_at: datetime | None = None


PaymentState = Literal["absent", "waiting", "captured", "closed"]
"""state of a payment at its provider

`absent`: the provider does not know it (yet). `captured`: money was taken, also if it was refunded since. `closed`: no
money was taken and none will be."""
RefundState = Literal["absent", "waiting", "done", "failed"]
RefundFailure = Literal["closed", "abnormal", "window_over", "account_closed", "not_refundable"]
"""why a refund failed

`closed`: its number never succeeds, another one may. `abnormal`: the customer's bank does not take the money, which
lies at the provider. The others: the payment cannot be refunded through the provider."""


class ProviderPayment(msgspec.Struct, frozen=True):
    """A payment in the provider's view. Amount, transaction and time are set if it is captured.

    `refunded` is the sum of its refunds, if a webhook has it and names none of ours."""

    payment_id: UUID
    state: PaymentState
    amount: Money | None = None
    transaction_id: str | None = None
    captured_at: datetime | None = None
    refunded: Money | None = None


class ProviderRefund(msgspec.Struct, frozen=True):
    """A refund in the provider's view. `reason` is why it failed, in the provider's words.

    In a webhook the amount may be missing. `provider_refund_id` is the provider's own number of it, if it has one."""

    payment_id: UUID
    refund_id: UUID
    state: RefundState
    amount: Money | None = None
    reason: str = ""
    failure: RefundFailure | None = None
    provider_refund_id: str | None = None


class RefundRequest(msgspec.Struct, frozen=True):
    """A refund to request from a provider. `captured` is the whole amount of the payment."""

    payment_id: UUID
    refund_id: UUID
    amount: Money
    captured: Money
    reason: str


class BankCard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer's debit card for a refund that the paying account did not take.

    It is never stored and never logged. `bank` is the provider's word for the bank, such as ICBC_DEBIT."""

    bank: Annotated[str, msgspec.Meta(min_length=2, max_length=16, pattern=r"^[A-Z_]+\Z")]
    account: Annotated[str, msgspec.Meta(min_length=12, max_length=19, pattern=r"^[0-9]+\Z")]
    name: Annotated[str, filled_line(40)]

    def secrets(self) -> dict[str, str]:
        """Return what nobody but the provider may read, by the names of its protocol."""
        return {"bank_account": self.account, "real_name": self.name}

    def __repr__(self) -> str:
        return "BankCard()"


class PaymentWebhook(msgspec.Struct, frozen=True):
    """A verified webhook. `webhook_id` is the same whenever the provider repeats it."""

    webhook_id: str
    subject: ProviderPayment | ProviderRefund


class StatementLine(NamedTuple):
    """A line of a provider's daily statement.

    `refund_id` is None on the line of a payment. `transaction_id` is the provider's own number of the payment or of the
    refund. `fee` is what it charges for the movement, in minor units (less than 0 if it comes back with a refund), or
    the reason why that is unreadable. `hand_number` is that of a refund which the shop has not requested: somebody made
    it at the provider, and its `refund_id` is derived from this number."""

    payment_id: UUID
    refund_id: UUID | None
    amount: Money
    transaction_id: str
    fee: int | str = 0
    hand_number: str | None = None


class Provider(Protocol):
    """An external payment provider.

    Methods that call it raise `ExternalOutcomeUnknown` if it may or may not have done the request, `ExternalDelay` if
    it does not do it now, and `ExternalRefusal` if it refused."""

    name: str
    flows: tuple[PaymentFlow, ...]
    flows_with_payer_ip: tuple[PaymentFlow, ...]
    currencies: tuple[str, ...]
    min_lifetime: timedelta
    max_lifetime: timedelta
    """bounds of the time from the creation of a payment at the provider until its end"""

    async def create(self, request: PaymentRequest) -> PaymentAction:
        """Create a payment and return the customer's next step. A repeat returns a new, equivalent action."""
        ...

    async def query(self, payment_id: UUID) -> ProviderPayment: ...

    async def close(self, payment_id: UUID) -> ProviderPayment:
        """Make sure that a payment can no longer be paid. Returns it as `closed`, or `captured` if paid.

        If the provider does not know the payment, the result is `closed` or `absent`: until `expires_at` it may still
        be created by the customer."""
        ...

    async def refund(self, request: RefundRequest) -> ProviderRefund: ...

    async def query_refund(self, request: RefundRequest) -> ProviderRefund: ...

    async def redirect_refund(
        self, request: RefundRequest, provider_refund_id: str, card: BankCard | None
    ) -> ProviderRefund:
        """Send an `abnormal` refund to the customer's debit card, or without one to the shop's account.

        Raises `ExternalRefusal` also if the provider has no such request."""
        ...

    def read_webhook(self, headers: Mapping[str, str], body: bytes, now: datetime) -> PaymentWebhook:
        """Verify a webhook's signature over its raw body, and that it is for this account.

        Header names are in lower case. Raises `InvalidWebhook`, and never `ExternalRefusal`: the effect of the content
        on our payments is not judged here."""
        ...

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """Return the response to a webhook: it was stored, or it was not and may be repeated."""
        ...

    def read_statement(self, text: str) -> list[StatementLine | str]:
        """Read the daily statement: each line as `StatementLine`, or as the reason why it is unreadable."""
        ...

    def read_payouts(self, text: str) -> list[Payout | str]:
        """Read the payouts in a statement of funds, and why a line is unreadable."""
        ...

    async def refresh(self) -> None:
        """Renew what changes without our doing, such as the provider's certificates. Most adapters do nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProviderAdapter:
    """Description of an adapter, by which `open_providers` finds and creates it."""

    name: str
    """the payment method, and the provider's name in webhook paths, metrics and logs"""
    settings_field: str
    """field of the payment settings that holds the credentials; the adapter is used if it is set"""
    load_account: Callable[..., Any]
    """checks the credentials, given by keyword, and returns the account; raises `ValueError`"""
    create: Callable[..., Provider]
    """called with the account, an `HttpTransport` and a `Clock`"""
