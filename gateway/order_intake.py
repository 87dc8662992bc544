"""Gathers the orders of one turn of the event loop into one Redis call a sale: the hot path.

Orders leave at the end of the turn that they came in, or, while calls are in flight, of the turn after the next answer.
After an answer two more turns are waited for as long as each brings more orders: those who were just answered send
again, and a call that more orders share is cheaper for each. A full batch does not wait for that, and no timer is
waited on. Each order succeeds or fails alone.

After a lost connection or a timeout nobody knows what Redis did. The batch is sent again with the same ids and keys,
which tells: an order that was taken comes back as a replay of itself. If that cannot be cleared up in time, the
answer is `outcome_unknown`, never 'failed'.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

import lua
from commerce.kernel.clock import DAY_MS, Clock
from commerce.kernel.errors import NotReady, OutcomeUnknown, Overloaded, ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.redis_client import REDIS_UNAVAILABLE, check_redis
from commerce.kernel.redis_multiplexer import RedisConnectionLost, RedisMultiplexer
from config.settings import Settings
from gateway.admission import Admission
from gateway.metrics_buffer import MetricsBuffer
from lua import Reservation, ReserveOutcome, ReserveResult, SaleKeys

_logger = logging.getLogger(__name__)
_RETRY_S = 0.05
_MORE_TURNS = 2


OutcomeCallback = Callable[[ReserveResult | ProblemError], None]
"""Is told once what became of an order."""


_QueuedOrder = tuple[Reservation, OutcomeCallback, float]
"""An order on its way: what to send, whom to tell, and until when (event loop's time). A bare tuple: it is made and
dropped for every order."""


class _SaleQueue:
    """The orders of one sale."""

    __slots__ = ("inflight", "keys", "more_turns", "scheduled", "seen", "size", "waiting")

    def __init__(self, sale_id: str) -> None:
        self.keys = SaleKeys(sale_id)
        self.waiting: deque[_QueuedOrder] = deque()
        self.size = 0
        """bytes of the payloads that wait"""
        self.inflight = 0
        self.scheduled = False
        self.more_turns = self.seen = 0
        """turns that may still be waited for, while more orders wait than there were seen"""


class OrderIntake:
    """`sales_with_keys` gives the ids of sales whose keys count: one used in one of them is not free in another."""

    def __init__(
        self,
        redis: Redis,
        link: RedisMultiplexer,
        settings: Settings,
        clock: Clock,
        admission: Admission,
        tally: MetricsBuffer,
        sales_with_keys: Callable[[], list[str]],
    ) -> None:
        self._redis = redis
        self._link = link
        self._settings = settings
        self._limits = settings.limits
        self._clock = clock
        self._admission = admission
        self._tally = tally
        self._sales_with_keys = sales_with_keys
        self._lanes: dict[str, _SaleQueue] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._healthy = True
        self._loop = asyncio.get_running_loop()
        self._order_timeout_s = settings.limits.order_timeout_ms / 1000

    def submit(self, sale_id: str, order: Reservation, tell: OutcomeCallback) -> None:
        """Reserve one order; `tell` gets its outcome, or `Overloaded`, `NotReady` or `OutcomeUnknown`."""
        lane = self._lanes.get(sale_id)
        if lane is None:
            lane = self._lanes[sale_id] = _SaleQueue(sale_id)
        lane.waiting.append((order, tell, self._loop.time() + self._order_timeout_s))
        lane.size += len(order.payload)
        self._admission.waiting += 1
        if not lane.scheduled and lane.inflight < self._limits.concurrent_reserve_calls:
            self._schedule(lane)

    async def place(self, sale_id: str, order: Reservation) -> ReserveResult:
        """The same for who can wait: gives the outcome or raises."""
        reply: asyncio.Future[ReserveResult] = self._loop.create_future()

        def tell(outcome: ReserveResult | ProblemError) -> None:
            if reply.done():
                return
            if isinstance(outcome, ProblemError):
                reply.set_exception(outcome)
            else:
                reply.set_result(outcome)

        self.submit(sale_id, order, tell)
        return await reply

    async def drain(self) -> None:
        """Wait until every order has its answer."""
        while self._calls or any(lane.scheduled for lane in self._lanes.values()):
            if self._calls:
                await asyncio.wait(self._calls)
            else:
                await asyncio.sleep(0)

    def _schedule(self, lane: _SaleQueue) -> None:
        """Send what waits once the loop has read what has arrived."""
        lane.scheduled = True
        self._loop.call_soon(self._gather, lane)

    def _gather(self, lane: _SaleQueue) -> None:
        """A turn is over: send, unless it was one after an answer and has brought more orders."""
        count = len(lane.waiting)
        if lane.more_turns and lane.seen < count < self._limits.batch_orders:
            lane.more_turns, lane.seen = lane.more_turns - 1, count
            self._loop.call_soon(self._gather, lane)
        else:
            lane.more_turns = 0
            self._flush(lane)

    def _flush(self, lane: _SaleQueue) -> None:
        lane.scheduled = False
        while lane.waiting and lane.inflight < self._limits.concurrent_reserve_calls:
            batch = self._take_batch(lane)
            if not batch:
                continue
            lane.inflight += 1
            call = self._loop.create_task(self._run_batch(lane, batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _take_batch(self, lane: _SaleQueue) -> list[_QueuedOrder]:
        """The next orders to send; who has waited too long is told so. All have waited less than those before them."""
        waiting, limits, now = lane.waiting, self._limits, self._loop.time()
        if len(waiting) <= limits.batch_orders and lane.size <= limits.batch_bytes and waiting[0][2] > now:
            batch = list(waiting)
            waiting.clear()
            lane.size = 0
            self._admission.waiting -= len(batch)
            return batch
        batch, size = [], 0
        while waiting and len(batch) < limits.batch_orders:
            order, tell, deadline = waiting[0]
            size += len(order.payload)
            if batch and size > limits.batch_bytes:
                break
            item = waiting.popleft()
            lane.size -= len(order.payload)
            self._admission.waiting -= 1
            if deadline > now:
                batch.append(item)
            else:
                tell(Overloaded("it waited too long for its turn, nothing was taken; repeat with the same key"))
        return batch

    async def _run_batch(self, lane: _SaleQueue, batch: list[_QueuedOrder]) -> None:
        try:
            await self._send_until_clear(lane, batch)
        except Exception as error:
            _logger.exception("a batch failed in a way that was not foreseen", extra={"orders": len(batch)})
            _fail(batch, OutcomeUnknown(f"unexpected {type(error).__name__}; repeat with the same key"))
        finally:
            lane.inflight -= 1
            lane.more_turns, lane.seen = _MORE_TURNS, len(lane.waiting)
            if len(lane.waiting) >= self._limits.batch_orders:
                self._flush(lane)
            elif lane.waiting and not lane.scheduled:
                self._schedule(lane)

    async def _send_until_clear(self, lane: _SaleQueue, batch: list[_QueuedOrder]) -> None:
        """Send until there is an answer or the time of the last order is over."""
        unclear = False
        deadline = batch[-1][2]
        while True:
            if await self._recheck_redis():
                try:
                    await self._reserve(lane, batch)
                    return
                except NotReady as error:  # a new connection was needed, and the server behind it is not what it was
                    self._healthy = False
                    _logger.error("Redis cannot be used", extra={"why": error.detail})
                except RedisConnectionLost as error:
                    self._healthy, unclear = False, unclear or error.sent
                    _logger.warning("Redis went away", extra={"orders": len(batch), "why": str(error)})
                except REDIS_UNAVAILABLE as error:
                    self._healthy, unclear = False, True
                    _logger.warning("Redis went away during a call", extra={"orders": len(batch), "why": str(error)})
                except OutOfMemoryError:
                    no_memory = Overloaded("Redis has no memory left; repeat with the same key later")
                    _fail(batch, _unclear() if unclear else no_memory)
                    return
                except RedisError as error:
                    _logger.error("Redis refused a batch", extra={"orders": len(batch), "why": str(error)})
                    refused = NotReady("Redis does not take orders now; repeat with the same key")
                    _fail(batch, _unclear() if unclear else refused)
                    return
            if self._loop.time() + _RETRY_S >= deadline:
                _fail(batch, _unclear() if unclear else _away())
                return
            await asyncio.sleep(_RETRY_S)

    async def _recheck_redis(self) -> bool:
        """After a failure nothing is sent before the server is there again and still keeps what it should."""
        if self._healthy:
            return True
        try:
            await check_redis(self._redis, self._settings.durability, self._settings.replicas)
        except NotReady as error:
            _logger.warning("Redis cannot be used", extra={"why": error.detail})
            return False
        self._healthy = True
        return True

    async def _reserve(self, lane: _SaleQueue, batch: list[_QueuedOrder]) -> None:
        started = perf_counter()
        day = self._clock.now_ms() // DAY_MS
        fresh = await self._without_used_keys(lane, batch, day)
        if not fresh:
            return
        answers = await lua.reserve(self._link, lane.keys, day, [order for order, _, _ in fresh])
        failpoint("intake.after_reserve")
        if self._settings.durability == "replicated":
            replicas, timeout_ms = self._settings.replicas, self._limits.redis_call_timeout_ms // 2
            if not await lua.wait_for_replicas(self._redis, lane.keys, replicas, timeout_ms):
                _fail(fresh, OutcomeUnknown("the replicas have not confirmed yet; repeat with the same key"))
                return
        self._tally.redis_seconds.observe(perf_counter() - started)
        self._tally.batch_orders.observe(len(fresh))
        for (order, tell, _), answer in zip(fresh, answers, strict=True):
            record = answer.record
            own = record is not None and record.order_id == order.order_id  # taken by a call that seemed to fail
            tell(ReserveResult(ReserveOutcome.ACCEPTED, answer.entry) if own else answer)

    async def _without_used_keys(self, lane: _SaleQueue, batch: list[_QueuedOrder], day: int) -> list[_QueuedOrder]:
        """One key stands for one order over all sales; keys of other sales are in other slots, so they are asked."""
        others = [SaleKeys(sale_id) for sale_id in self._sales_with_keys() if self._lanes.get(sale_id) is not lane]
        if not others:
            return batch
        orders = [(order.user_id, order.idempotency_key) for order, _, _ in batch]
        taken = await lua.used_keys(self._link, others, day, orders)
        for item, is_taken in zip(batch, taken, strict=True):
            if is_taken:
                item[1](ReserveResult(ReserveOutcome.KEY_REUSED))
        return [item for item, is_taken in zip(batch, taken, strict=True) if not is_taken]


def _fail(batch: Sequence[_QueuedOrder], refusal: ProblemError) -> None:
    for _, tell, _ in batch:
        tell(refusal)


def _unclear() -> ProblemError:
    return OutcomeUnknown("it is not known whether the order was taken; repeat with the same key to find out")


def _away() -> ProblemError:
    return NotReady("Redis cannot be reached, nothing was taken; repeat with the same key")
