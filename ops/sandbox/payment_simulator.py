"""What happens after a trade is entered: a robot pays or refuses it, and callbacks tell the merchant.

Nothing is lost in a kill. Callbacks are rows of the bank; payments by a robot follow from the trades that wait.
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
from ops.sandbox.payment_store import DueNotice, PaymentStore, PaymentStoreRefusal, SimulatedRefund, SimulatedTrade
from ops.sandbox.protocol import SandboxProtocol
from ops.sandbox.webhook_sender import OutgoingWebhook, Sending, WebhookSender

_ALL = 2**31
_TURN = 200
"""How many robots' payments are made before requests get their turn."""
_MOMENT_MS = 300
_JUST_BEFORE_MS = 200
_AGAIN = "#again"
"""Ends the row of a callback that is sent a second time under the same notice id."""


class PaymentSimulator:
    """Decides by the switches what becomes of trades and callbacks. Never waits."""

    def __init__(self, bank: PaymentStore, clock: Clock, board: ProviderFaultRegistry) -> None:
        self.wake = asyncio.Event()
        """Set when there is something new to do."""
        self._bank = bank
        self._clock = clock
        self._board = board
        self._robots: dict[str, list[tuple[int, str, bool]]] = {}

    def on_trade(self, trade: SimulatedTrade) -> None:
        """A trade was entered. Again for the same trade does no harm."""
        plan = self._robot(trade)
        if plan is not None:
            plans = self._robots.setdefault(trade.provider, [])
            heapq.heappush(plans, plan)
            if plans[0] == plan:
                self.wake.set()

    def on_refund(self, trade: SimulatedTrade, refund: SimulatedRefund) -> None:
        """A refund was made. Again for the same refund does no harm."""
        self._announce(trade, refund)

    def pay(self, provider: str, out_no: str, *, too_late: bool = False) -> SimulatedTrade:
        """The customer pays. Raises `BankRefusal` as `Bank.pay` does."""
        trade = self._bank.pay(provider, out_no, self._clock.now_ms(), too_late=too_late)
        self._announce(trade, None)
        return trade

    def restart(self, provider: str) -> None:
        """Plan afresh, after a start or with other switches, for the trades that wait and for what a kill left."""
        now_ms = self._clock.now_ms()
        waiting = (trade for trade in self._bank.waiting(provider, _ALL) if trade.expires_ms > now_ms)
        self._robots[provider] = sorted(plan for trade in waiting if (plan := self._robot(trade)))
        for trade, refund in self._bank.unannounced(provider):
            self._announce(trade, refund)
        self.wake.set()

    def pay_due(self) -> None:
        """The robots pay and refuse what is due, not too much at a time."""
        now_ms = self._clock.now_ms()
        for provider, plans in self._robots.items():
            for _ in range(_TURN):
                if not plans or plans[0][0] > now_ms:
                    break
                _, out_no, pays = heapq.heappop(plans)
                with suppress(PaymentStoreRefusal):  # meanwhile somebody paid or closed it, or it has expired
                    if pays:
                        self.pay(provider, out_no)
                    else:
                        self._bank.close_trade(provider, out_no)

    def next_ms(self) -> int | None:
        """When the next robot is due."""
        return min((plans[0][0] for plans in self._robots.values() if plans), default=None)

    def _robot(self, trade: SimulatedTrade) -> tuple[int, str, bool] | None:
        """When a robot decides on this trade, and whether it pays."""
        switches = self._board.of(trade.provider)
        if switches.approve == "ask":
            return None
        hits = self._board.hits
        pays = switches.approve == "auto" and not hits(switches.refused_share, "refused", trade.out_no)
        if pays and hits(switches.pay_late_share, "pay_late", trade.out_no):
            return trade.expires_ms - _JUST_BEFORE_MS, trade.out_no, True
        return trade.created_ms + switches.pay_after_ms, trade.out_no, pays

    def _announce(self, trade: SimulatedTrade, refund: SimulatedRefund | None) -> None:
        """Enter the callbacks about a payment or a refund. One that is never sent is entered as done."""
        switches, hits = self._board.of(trade.provider), self._board.hits
        number, basis = (refund.out_refund_no, refund.refund_no) if refund else (trade.out_no, trade.trade_no)
        shuffled = hits(switches.shuffled_share, "shuffled", trade.out_no)
        late = hits(switches.late_share, "late", number) or (shuffled and refund is None)
        due_ms = self._clock.now_ms() + switches.callback_ms + (switches.late_ms if late else 0)
        about = refund.out_refund_no if refund else None
        wrong = self._wrong(switches, number)
        notice = DueNotice(_notice_id(basis, "first"), trade.provider, trade.out_no, about, wrong, 0)
        self._bank.notify(notice, due_ms)
        if not trade.notify_url or hits(switches.never_share, "never", number):
            self._bank.mark_attempted(notice.notice_id, done=True, again_ms=due_ms)
            return
        if hits(switches.twice_share, "twice", number):
            self._bank.notify(replace(notice, notice_id=notice.notice_id + _AGAIN), due_ms)
            self._bank.notify(replace(notice, notice_id=_notice_id(basis, "second")), due_ms + _MOMENT_MS)
        if shuffled and refund is not None:
            payment = replace(notice, notice_id=_notice_id(basis, "payment"), out_refund_no=None)
            self._bank.notify(payment, due_ms + _MOMENT_MS)
        self.wake.set()

    def _wrong(self, switches: ProviderFaults, number: str) -> str | None:
        if self._board.hits(switches.wrong_signature_share, "wrong_signature", number):
            return "signature"
        return "amount" if self._board.hits(switches.wrong_amount_share, "wrong_amount", number) else None


def _notice_id(basis: str, which: str) -> str:
    return blake2b(f"{basis}/{which}".encode(), digest_size=16).hexdigest()


class WebhookScheduler:
    """Does what is planned: robots' payments, and callbacks until the merchant has accepted them."""

    def __init__(
        self,
        bank: PaymentStore,
        clock: Clock,
        plans: PaymentSimulator,
        protocols: Mapping[str, SandboxProtocol],
        sending: Sending,
    ) -> None:
        self._bank = bank
        self._clock = clock
        self._plans = plans
        self._protocols = protocols
        self._sending = sending

    async def run(self) -> None:
        """Until it is cancelled."""
        for provider in self._protocols:
            self._plans.restart(provider)
        await WebhookSender[DueNotice](self, self._clock, self._sending).run()

    # What the sender works off.

    @property
    def wake(self) -> asyncio.Event:
        return self._plans.wake

    def turn(self) -> None:
        self._plans.pay_due()

    def next_ms(self, now_ms: int) -> int | None:
        times = (self._plans.next_ms(), self._bank.next_due_ms(now_ms))
        return min((time for time in times if time is not None), default=None)

    def due(self, now_ms: int, limit: int) -> list[DueNotice]:
        return self._bank.due(now_ms, limit)

    def letter(self, due: DueNotice) -> OutgoingWebhook:
        trade = self._bank.trade(due.provider, due.out_no)
        assert trade is not None, "a callback is about a trade in the books"
        refund = self._bank.refund_of(due.provider, due.out_refund_no) if due.out_refund_no else None
        sent = replace(due, notice_id=due.notice_id.removesuffix(_AGAIN))
        return OutgoingWebhook(trade.notify_url, *self._protocols[due.provider].callback(sent, trade, refund))

    def is_accepted(self, due: DueNotice, status: int, body: bytes) -> bool:
        return self._protocols[due.provider].is_accepted(status, body)

    def noted(self, due: DueNotice, *, done: bool, again_ms: int) -> None:
        self._bank.mark_attempted(due.notice_id, done=done, again_ms=again_ms)
