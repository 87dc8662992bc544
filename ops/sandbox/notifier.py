"""What happens after a trade is entered: a robot pays or refuses it, and callbacks tell the merchant.

Nothing is lost in a kill. Callbacks are rows of the bank; payments by a robot follow from the trades that wait.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from urllib.parse import urlsplit

import aiohttp

from commerce.kernel.clock import Clock
from commerce.kernel.tasks import end
from ops.sandbox.bank import Bank, BankRefusal, DueNotice, Refund, Trade
from ops.sandbox.protocol import SandboxProtocol
from ops.sandbox.switches import Switchboard, Switches

_logger = logging.getLogger(__name__)
_ALL = 2**31
_TURN = 200
"""How many robots' payments are made before requests get their turn."""
_MOMENT_MS = 300
_JUST_BEFORE_MS = 200
_LONGEST_WAIT_S = 1.0
_AGAIN = "#again"
"""Ends the row of a callback that is sent a second time under the same notice id."""
ATTEMPTS = 15
_WAITS_S = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600)


class Plans:
    """Decides by the switches what becomes of trades and callbacks. Never waits."""

    def __init__(self, bank: Bank, clock: Clock, board: Switchboard) -> None:
        self.wake = asyncio.Event()
        """Set when there is something new to do."""
        self._bank = bank
        self._clock = clock
        self._board = board
        self._robots: dict[str, list[tuple[int, str, bool]]] = {}

    def on_trade(self, trade: Trade) -> None:
        """A trade was entered. Again for the same trade does no harm."""
        plan = self._robot(trade)
        if plan is not None:
            plans = self._robots.setdefault(trade.provider, [])
            heapq.heappush(plans, plan)
            if plans[0] == plan:
                self.wake.set()

    def on_refund(self, trade: Trade, refund: Refund) -> None:
        """A refund was made. Again for the same refund does no harm."""
        self._announce(trade, refund)

    def pay(self, provider: str, out_no: str, *, too_late: bool = False) -> Trade:
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
                with suppress(BankRefusal):  # meanwhile somebody paid or closed it, or it has expired
                    if pays:
                        self.pay(provider, out_no)
                    else:
                        self._bank.close_trade(provider, out_no)

    def next_ms(self) -> int | None:
        """When the next robot is due."""
        return min((plans[0][0] for plans in self._robots.values() if plans), default=None)

    def _robot(self, trade: Trade) -> tuple[int, str, bool] | None:
        """When a robot decides on this trade, and whether it pays."""
        switches = self._board.of(trade.provider)
        if switches.approve == "ask":
            return None
        hits = self._board.hits
        pays = switches.approve == "auto" and not hits(switches.refused_share, "refused", trade.out_no)
        if pays and hits(switches.pay_late_share, "pay_late", trade.out_no):
            return trade.expires_ms - _JUST_BEFORE_MS, trade.out_no, True
        return trade.created_ms + switches.pay_after_ms, trade.out_no, pays

    def _announce(self, trade: Trade, refund: Refund | None) -> None:
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
            self._bank.noted(notice.notice_id, done=True, again_ms=due_ms)
            return
        if hits(switches.twice_share, "twice", number):
            self._bank.notify(replace(notice, notice_id=notice.notice_id + _AGAIN), due_ms)
            self._bank.notify(replace(notice, notice_id=_notice_id(basis, "second")), due_ms + _MOMENT_MS)
        if shuffled and refund is not None:
            payment = replace(notice, notice_id=_notice_id(basis, "payment"), out_refund_no=None)
            self._bank.notify(payment, due_ms + _MOMENT_MS)
        self.wake.set()

    def _wrong(self, switches: Switches, number: str) -> str | None:
        if self._board.hits(switches.wrong_signature_share, "wrong_signature", number):
            return "signature"
        return "amount" if self._board.hits(switches.wrong_amount_share, "wrong_amount", number) else None


def _notice_id(basis: str, which: str) -> str:
    return blake2b(f"{basis}/{which}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Sending:
    """How callbacks are sent. They go to these hosts only: nothing of a sandbox leaves the machine by mistake."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    timeout_s: float = 5.0
    concurrency: int = 32
    longest_wait_s: float = 60.0
    """Caps the growing waits between the attempts."""


class Notifier:
    """Does what is planned: robots' payments, and callbacks until the merchant has accepted them."""

    def __init__(
        self, bank: Bank, clock: Clock, plans: Plans, protocols: Mapping[str, SandboxProtocol], sending: Sending
    ) -> None:
        self._bank = bank
        self._clock = clock
        self._plans = plans
        self._protocols = protocols
        self._sending = sending
        self._in_flight: dict[str, asyncio.Task[bool]] = {}

    async def run(self) -> None:
        """Until it is cancelled; callbacks that are under way then are sent again after the next start."""
        for provider in self._protocols:
            self._plans.restart(provider)
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._sending.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._sending.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as client:
            try:
                while True:
                    self._plans.wake.clear()
                    self._plans.pay_due()
                    self._send_due(client)
                    await self._pause()
            finally:
                await asyncio.gather(*(end(task) for task in self._in_flight.values()))

    async def _pause(self) -> None:
        now_ms = self._clock.now_ms()
        times = [time for time in (self._plans.next_ms(), self._bank.next_due_ms(now_ms)) if time is not None]
        wait_s = min((min(times, default=_ALL * 1_000) - now_ms) / 1_000, _LONGEST_WAIT_S)
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._plans.wake.wait()

    def _send_due(self, client: aiohttp.ClientSession) -> None:
        for notice in self._bank.due(self._clock.now_ms(), self._sending.concurrency * 2):
            if len(self._in_flight) >= self._sending.concurrency:
                return
            if notice.notice_id not in self._in_flight:
                task = asyncio.create_task(self._send(client, notice))
                self._in_flight[notice.notice_id] = task
                task.add_done_callback(lambda task, notice=notice: self._over(notice, task))  # type: ignore[misc]

    async def _send(self, client: aiohttp.ClientSession, notice: DueNotice) -> bool:
        """Whether the merchant accepted it. Raises what an HTTP client raises."""
        trade = self._bank.trade(notice.provider, notice.out_no)
        assert trade is not None, "a callback is about a trade in the books"
        refund = self._bank.refund_of(notice.provider, notice.out_refund_no) if notice.out_refund_no else None
        if urlsplit(trade.notify_url).hostname not in self._sending.hosts:
            raise aiohttp.InvalidURL(trade.notify_url, "callbacks may not be sent to this host")
        protocol = self._protocols[notice.provider]
        sent = replace(notice, notice_id=notice.notice_id.removesuffix(_AGAIN))
        callback = protocol.callback(sent, trade, refund)
        async with client.post(
            trade.notify_url, data=callback.body, headers=callback.headers, allow_redirects=False
        ) as answer:
            return protocol.is_accepted(answer.status, await answer.content.read(65_536))

    def _over(self, notice: DueNotice, task: asyncio.Task[bool]) -> None:
        del self._in_flight[notice.notice_id]
        if task.cancelled():
            return
        error = task.exception()
        accepted = error is None and task.result()
        attempts = notice.attempts + 1
        if not accepted:
            expected = error is None or isinstance(error, aiohttp.ClientError | TimeoutError | ValueError)
            _logger.log(
                logging.INFO if expected else logging.ERROR,
                "a callback was not accepted",
                exc_info=None if expected else error,
                extra={"notice_id": notice.notice_id, "attempts": attempts, "why": repr(error)},
            )
        wait_s = min(_WAITS_S[min(notice.attempts, len(_WAITS_S) - 1)], self._sending.longest_wait_s)
        again_ms = self._clock.now_ms() + int(wait_s * 1_000)
        self._bank.noted(notice.notice_id, done=accepted or attempts >= ATTEMPTS, again_ms=again_ms)
        self._plans.wake.set()
