"""Stores verified webhooks of payment providers, each once, and what they change.

Concurrent ones share a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, cast

from asyncpg import UniqueViolationError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.shared_transactions import SharedTransactions
from commerce.orders.model import Method
from commerce.payments import locked_orders, order_status, refund_status, store
from commerce.payments.model import ReceivedWebhook, WebhookKey
from commerce.payments.order_status import CaptureResult, LockedOrder, ProviderMismatch
from commerce.payments.provider_port import PaymentWebhook, ProviderPayment
from commerce.payments.refund_status import RefundResult

WebhookResult = CaptureResult | RefundResult | Literal["recorded", "duplicate", "refused"]
_CHANGING = ("captured", "refunded")


class _StoredBefore(Exception):
    """A webhook that was stored before and would now change something: the set is recorded without it."""


class PaymentWebhooks:
    """Takes in the webhooks of all providers."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._transactions: SharedTransactions[ReceivedWebhook, WebhookResult] = SharedTransactions(db, self._record)

    async def handle(self, method: Method, webhook: PaymentWebhook, body: bytes) -> WebhookResult:
        """Store a verified webhook and what it changes, in one transaction.

        A webhook that contradicts our records is stored with the reason, changes nothing and is `refused`. One that was
        stored before is a `duplicate`, or `refused` again."""
        received = ReceivedWebhook(method, webhook, body)
        try:
            result = await self._transactions.add(received)
        except UniqueViolationError as error:
            if error.constraint_name != store.TRANSACTION_CONSTRAINT:  # a defect, not the provider's fault
                raise
            result = await self._refuse(received, "its transaction belongs to another payment")
        failpoint("payment.after_webhook")
        return result

    async def _record(
        self, connection: Connection, webhooks: Sequence[ReceivedWebhook], may_wait: bool
    ) -> list[WebhookResult | Exception | None]:
        now = from_ms(self._clock.now_ms())
        payment_ids = [received.webhook.subject.payment_id for received in webhooks]
        orders = await locked_orders.lock_orders(connection, payment_ids, may_wait=may_wait)
        texts: dict[WebhookKey, str] = {}
        decided: list[tuple[ReceivedWebhook, str]] = []
        for received, payment_id in zip(webhooks, payment_ids, strict=True):
            if received.key not in texts and (may_wait or payment_id in orders):
                texts[received.key] = _decide(orders.get(payment_id), received, now)
                decided.append((received, texts[received.key]))
        repeated = texts.keys() - await store.insert_webhooks(connection, decided, now)
        if repeated:
            if any(_result(texts[key]) in _CHANGING for key in repeated):
                if len(webhooks) > 1:
                    raise _StoredBefore
                orders = {}
            texts |= await store.get_webhook_results(connection, list(repeated))
        await locked_orders.update_and_write(connection, self._ids, orders.values(), now)
        results: list[WebhookResult | Exception | None] = []
        for received in webhooks:
            to_result = _repeated_result if received.key in repeated else _result
            results.append(to_result(texts[received.key]) if received.key in texts else None)
            repeated.add(received.key)
        return results

    async def _refuse(self, received: ReceivedWebhook, reason: str) -> WebhookResult:
        text = f"refused: {reason}"
        async with self._db.connection() as connection:
            if await store.insert_webhooks(connection, [(received, text)], from_ms(self._clock.now_ms())):
                return "refused"
            stored = await store.get_webhook_results(connection, [received.key])
        return _repeated_result(stored[received.key])


def _decide(order: LockedOrder | None, received: ReceivedWebhook, now: datetime) -> str:
    """Note what a webhook changes in its order. Returns the result, with the reason if it is refused."""
    method, subject = received.method, received.webhook.subject
    payment = order.payments[subject.payment_id] if order else None
    try:
        if order is None or payment is None or payment.method != method:
            raise ProviderMismatch(f"there is no payment {subject.payment_id} by {method}")
        if isinstance(subject, ProviderPayment):
            if subject.state != "captured":
                return "recorded"  # the payment worker queries the provider itself
            refund_status.check_refunded(order, payment, subject)
            return order_status.record_capture(order, payment, subject, now)
        if subject.state != "done":
            refund_status.find_refund(order, payment, subject)
            return "recorded"
        return refund_status.record_refund(order, payment, subject)
    except ProviderMismatch as error:
        return f"refused: {error}"


def _result(text: str) -> WebhookResult:
    return cast(WebhookResult, text.partition(":")[0])


def _repeated_result(text: str) -> WebhookResult:
    return "refused" if text.startswith("refused") else "duplicate"
