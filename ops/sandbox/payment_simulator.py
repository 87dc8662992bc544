"""Simulation of customers and providers: robots pay or refuse trades, webhooks report it.

Nothing is lost in a kill: webhooks are rows of the payment store, and robot payments follow from the waiting trades.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import blake2b

from commerce.kernel.clock import Clock
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults
from ops.sandbox.payment_store import (
    DuePaymentWebhook,
    PaymentStore,
    PaymentStoreRefusal,
    SimulatedRefund,
    SimulatedTrade,
)
from ops.sandbox.protocol import ProviderProtocol
from ops.sandbox.webhook_sender import OutgoingWebhook, SenderSettings, WebhookSender

_NO_LIMIT = 2**31
_MAX_ROBOT_PAYMENTS = 200
"""Robot payments per provider before the event loop serves requests again."""
_DUPLICATE_DELAY_MS = 300
_PAY_LATE_MARGIN_MS = 200
_COPY_SUFFIX = "#again"
"""Suffix of the row of a duplicate that is sent under the same webhook id."""


class PaymentSimulator:
    """Schedules robot payments and webhooks according to the faults. Never waits."""

    def __init__(self, payment_store: PaymentStore, clock: Clock, faults: ProviderFaultRegistry) -> None:
        self.wake = asyncio.Event()
        """Event that is set when there is new work."""
        self._payment_store = payment_store
        self._clock = clock
        self._faults = faults
        self._refund_requests = 0
        self._robots: dict[str, list[tuple[int, str, bool]]] = {}
        """Heap per provider: time of the robot's decision, number of the trade, True if it pays."""

    def on_trade(self, trade: SimulatedTrade) -> None:
        """Schedule the robot's decision on a new trade. Idempotent."""
        decision = self._decide(trade)
        if decision is not None:
            decisions = self._robots.setdefault(trade.provider, [])
            heapq.heappush(decisions, decision)
            if decisions[0] == decision:
                self.wake.set()

    def on_refund(self, trade: SimulatedTrade, refund: SimulatedRefund) -> None:
        """Schedule the webhooks about a new refund. Idempotent."""
        self._insert_webhooks(trade, refund)

    def decide_refund(self, refund: SimulatedRefund) -> SimulatedRefund:
        """Return a requested refund with its outcome. A repeat is not decided again.

        Raises `PaymentStoreRefusal` (too_often, account_closed, no_balance or system_error)."""
        faults, is_selected = self._faults.get(refund.provider), self._faults.is_selected
        self._refund_requests += 1
        request = f"{refund.provider}/{self._refund_requests}"
        if is_selected(faults.refund_limited_share, "refund_limited", request):
            raise PaymentStoreRefusal("too_often", "there are too many requests: send it again later")
        fails = is_selected(faults.refund_error_share, "refund_error", request)
        if fails and is_selected(0.5, "refund_error_before", request):
            raise PaymentStoreRefusal("system_error", "a fault of the system")
        if self._payment_store.find_refund(refund.provider, refund.out_refund_no) is not None:
            return refund
        if is_selected(faults.account_closed_share, "account_closed", refund.out_no):
            raise PaymentStoreRefusal("account_closed", "the customer has closed the account")
        spent = self._payment_store.totals(refund.provider)["refunds_amount"]
        if faults.merchant_balance is not None and spent + refund.amount > faults.merchant_balance:
            raise PaymentStoreRefusal("no_balance", "the merchant's balance does not cover the refund")
        outcome = "done"
        if refund.provider == "wechatpay":
            if is_selected(faults.refund_closed_share, "refund_closed", refund.out_refund_no):
                outcome = "closed"
            elif is_selected(faults.refund_abnormal_share, "refund_abnormal", refund.out_refund_no):
                outcome = "abnormal"
        decided = replace(refund, outcome=outcome, due_ms=refund.at_ms + faults.refund_ms)
        if fails:
            trade = self._payment_store.find_trade(refund.provider, refund.out_no)
            assert trade is not None, "a refund is of a stored trade"
            self.on_refund(trade, self._payment_store.refund(decided))
            raise PaymentStoreRefusal("system_error", "a fault of the system, after the refund")
        return decided

    def pay(self, provider: str, out_no: str, *, too_late: bool = False) -> SimulatedTrade:
        """Pay a trade and schedule its webhooks. Raises `PaymentStoreRefusal` as `PaymentStore.pay` does."""
        trade = self._payment_store.pay(provider, out_no, self._clock.now_ms(), too_late=too_late)
        self._insert_webhooks(trade, None)
        return trade

    def restart(self, provider: str) -> None:
        """Schedule all waiting trades again, and webhooks that a kill prevented.

        Call after a start and when faults change.
        """
        now_ms = self._clock.now_ms()
        waiting = self._payment_store.list_waiting(provider, _NO_LIMIT)
        decisions = (self._decide(trade) for trade in waiting if trade.expires_ms > now_ms)
        self._robots[provider] = sorted(decision for decision in decisions if decision is not None)
        for trade, refund in self._payment_store.list_unannounced(provider):
            self._insert_webhooks(trade, refund)
        self.wake.set()

    def pay_due(self) -> None:
        """Carry out due decisions of the robots, in limited portions."""
        now_ms = self._clock.now_ms()
        for provider, decisions in self._robots.items():
            for _ in range(_MAX_ROBOT_PAYMENTS):
                if not decisions or decisions[0][0] > now_ms:
                    break
                _, out_no, pays = heapq.heappop(decisions)
                with suppress(PaymentStoreRefusal):  # paid, closed or expired in the meantime
                    if pays:
                        self.pay(provider, out_no)
                    else:
                        self._payment_store.close_trade(provider, out_no)

    def find_next_due_ms(self) -> int | None:
        """Return the time of the next decision of a robot."""
        return min((decisions[0][0] for decisions in self._robots.values() if decisions), default=None)

    def _decide(self, trade: SimulatedTrade) -> tuple[int, str, bool] | None:
        """Return the robot's decision on this trade, or None if a person decides."""
        faults, is_selected = self._faults.get(trade.provider), self._faults.is_selected
        if faults.approve == "ask":
            return None
        pays = faults.approve == "auto" and not is_selected(faults.refused_share, "refused", trade.out_no)
        if pays and is_selected(faults.pay_late_share, "pay_late", trade.out_no):
            return trade.expires_ms - _PAY_LATE_MARGIN_MS, trade.out_no, True
        return trade.created_ms + faults.pay_after_ms, trade.out_no, pays

    def _insert_webhooks(self, trade: SimulatedTrade, refund: SimulatedRefund | None) -> None:
        """Store the webhooks about a payment or a refund. A dropped one is stored as done."""
        faults, is_selected = self._faults.get(trade.provider), self._faults.is_selected
        subject, basis = (refund.out_refund_no, refund.refund_no) if refund else (trade.out_no, trade.trade_no)
        is_reordered = is_selected(faults.reordered_share, "reordered", trade.out_no)
        is_delayed = is_selected(faults.delayed_share, "delayed", subject) or (is_reordered and refund is None)
        if refund is not None and refund.outcome == "abnormal":
            basis += "/abnormal"  # another webhook follows when it is done after all
        event_ms = max(self._clock.now_ms(), refund.due_ms if refund else 0)
        due_ms = event_ms + faults.webhook_delay_ms + (faults.extra_delay_ms if is_delayed else 0)
        webhook = DuePaymentWebhook(
            webhook_id=_webhook_id(basis, "first"),
            provider=trade.provider,
            out_no=trade.out_no,
            out_refund_no=refund.out_refund_no if refund else None,
            defect=self._choose_defect(faults, subject),
            attempts=0,
        )
        self._payment_store.insert_webhook(webhook, due_ms)
        if not trade.notify_url or is_selected(faults.dropped_share, "dropped", subject):
            self._payment_store.mark_attempted(webhook.webhook_id, done=True, retry_ms=due_ms)
            return
        if is_selected(faults.duplicate_share, "duplicate", subject):
            copy = replace(webhook, webhook_id=webhook.webhook_id + _COPY_SUFFIX)
            self._payment_store.insert_webhook(copy, due_ms)
            later = replace(webhook, webhook_id=_webhook_id(basis, "second"))
            self._payment_store.insert_webhook(later, due_ms + _DUPLICATE_DELAY_MS)
        if is_reordered and refund is not None:
            payment = replace(webhook, webhook_id=_webhook_id(basis, "payment"), out_refund_no=None)
            self._payment_store.insert_webhook(payment, due_ms + _DUPLICATE_DELAY_MS)
        self.wake.set()

    def _choose_defect(self, faults: ProviderFaults, subject: str) -> str | None:
        if self._faults.is_selected(faults.wrong_signature_share, "wrong_signature", subject):
            return "signature"
        return "amount" if self._faults.is_selected(faults.wrong_amount_share, "wrong_amount", subject) else None


def _webhook_id(basis: str, copy: str) -> str:
    return blake2b(f"{basis}/{copy}".encode(), digest_size=16).hexdigest()


class WebhookScheduler:
    """Carries out robot payments and sends webhooks until the merchant accepts them; a `WebhookQueue`."""

    def __init__(
        self,
        payment_store: PaymentStore,
        clock: Clock,
        simulator: PaymentSimulator,
        protocols: Mapping[str, ProviderProtocol],
        sender_settings: SenderSettings,
    ) -> None:
        self._payment_store = payment_store
        self._clock = clock
        self._simulator = simulator
        self._protocols = protocols
        self._sender_settings = sender_settings

    async def run(self) -> None:
        """Run until cancelled."""
        for provider in self._protocols:
            self._simulator.restart(provider)
        await WebhookSender[DuePaymentWebhook](self, self._clock, self._sender_settings).run()

    # The methods of `WebhookQueue`.

    @property
    def wake(self) -> asyncio.Event:
        return self._simulator.wake

    def process_due(self) -> None:
        self._simulator.pay_due()

    def find_next_due_ms(self, now_ms: int) -> int | None:
        times = (self._simulator.find_next_due_ms(), self._payment_store.find_next_due_ms(now_ms))
        return min((time for time in times if time is not None), default=None)

    def list_due_webhooks(self, now_ms: int, limit: int) -> list[DuePaymentWebhook]:
        return self._payment_store.list_due_webhooks(now_ms, limit)

    def build_webhook(self, due_webhook: DuePaymentWebhook) -> OutgoingWebhook:
        provider, refund_no = due_webhook.provider, due_webhook.out_refund_no
        trade = self._payment_store.find_trade(provider, due_webhook.out_no)
        assert trade is not None, "a webhook is about a stored trade"
        refund = self._payment_store.find_refund(provider, refund_no) if refund_no else None
        due_webhook = replace(due_webhook, webhook_id=due_webhook.webhook_id.removesuffix(_COPY_SUFFIX))
        signed = self._protocols[provider].build_webhook(due_webhook, trade, refund)
        return OutgoingWebhook(trade.notify_url, signed.headers, signed.body)

    def is_accepted(self, due_webhook: DuePaymentWebhook, status: int, body: bytes) -> bool:
        return self._protocols[due_webhook.provider].is_accepted(status, body)

    def mark_attempted(self, due_webhook: DuePaymentWebhook, *, done: bool, retry_ms: int) -> None:
        self._payment_store.mark_attempted(due_webhook.webhook_id, done=done, retry_ms=retry_ms)
