"""Batches of the orders of one iteration of the event loop, one Redis call per sale: the hot path.

Orders leave at the end of the iteration in which they arrived or, while calls are in flight, of the iteration after the
next reply; full batches leave beside others in flight, so that a long iteration does not end with one of them. After a
reply the intake waits for two more iterations as long as each brings more orders: clients that have just been answered
send again, and a call shared by more orders is cheaper for each. A full batch does not wait for that, and no timer is
used. Each order succeeds or fails alone.

After a lost connection or a timeout it is unknown what Redis did. The intake sends the undecided orders again with the
same ids and keys: an order that was accepted comes back as a replay of itself. If that does not succeed in time, the
answer is `outcome_unknown`, never 'failed'.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from time import perf_counter

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

import lua
from commerce.kernel.clock import DAY_MS, Clock
from commerce.kernel.errors import NotReady, OutcomeUnknown, Overloaded, ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.redis_client import REDIS_NOT_NOW, REDIS_UNAVAILABLE, check_redis
from commerce.kernel.redis_multiplexer import RedisConnectionLost, RedisMultiplexer
from config.settings import Settings
from gateway.admission import Admission
from gateway.metrics_buffer import MetricsBuffer
from gateway.pending_order import Outcome, PendingOrder
from lua import EntryId, Reservation, ReserveOutcome, ReserveResult, SaleKeys

_logger = logging.getLogger(__name__)
_RETRY_INTERVAL_S = 0.05
_MAX_EXTRA_ITERATIONS = 2
_FINAL = (ReserveOutcome.ACCEPTED, ReserveOutcome.REPLAYED, ReserveOutcome.KEY_REUSED)
"""outcomes that are the truth also after an unclear call"""


class _SaleQueue:
    """The waiting orders of one sale, by deadline."""

    __slots__ = ("extra_iterations", "inflight", "keys", "newest", "previous_length", "scheduled", "size", "waiting")

    def __init__(self, sale_id: str) -> None:
        self.keys = SaleKeys(sale_id)
        self.waiting: deque[PendingOrder] = deque()
        self.size = 0
        """bytes of the waiting payloads"""
        self.inflight = 0
        self.newest = EntryId(0, 0)
        """the newest entry that this process knows of"""
        self.scheduled = False
        self.extra_iterations = self.previous_length = 0
        """iterations that may still be awaited while more orders wait than `previous_length`"""


class OrderIntake:
    """Sends submitted orders to Redis in batches and resolves each with its outcome.

    `sales_with_keys` lists the sales whose idempotency keys count: a key used in one is not free in another.
    """

    def __init__(
        self,
        redis: Redis,
        link: RedisMultiplexer,
        settings: Settings,
        clock: Clock,
        admission: Admission,
        metrics_buffer: MetricsBuffer,
        sales_with_keys: Callable[[], list[str]],
    ) -> None:
        self._redis = redis
        self._link = link
        self._settings = settings
        self._limits = settings.limits
        self._clock = clock
        self._admission = admission
        self._metrics_buffer = metrics_buffer
        self._sales_with_keys = sales_with_keys
        self._queues: dict[str, _SaleQueue] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._healthy = True
        self.trouble = asyncio.Event()
        """set when Redis was lost or does not have a sale; whoever waits for it clears it"""
        self._loop = asyncio.get_running_loop()
        self._order_timeout_s = settings.limits.order_timeout_ms / 1000

    def submit(self, sale_id: str, order: PendingOrder) -> None:
        """Queue an order for Redis; it is resolved once, by its deadline or soon after."""
        queue = self._queues.get(sale_id)
        if queue is None:
            queue = self._queues[sale_id] = _SaleQueue(sale_id)
        now = self._loop.time()
        order.deadline = now + self._order_timeout_s
        queue.waiting.append(order)
        payload_bytes = len(order.reservation.payload)
        queue.size += payload_bytes
        admission = self._admission
        admission.waiting_bytes += payload_bytes
        if admission.waiting == 0:
            admission.waiting_since = now
        admission.waiting += 1
        if not queue.scheduled and self._may_send(queue):
            self._schedule(queue)

    async def place(self, sale_id: str, reservation: Reservation) -> ReserveResult:
        """Submit an order and wait for its outcome. Raises the problem if there is no decision of Redis."""
        future: asyncio.Future[Outcome] = self._loop.create_future()

        def set_result(outcome: Outcome) -> None:
            if not future.done():  # done: the caller was cancelled
                future.set_result(outcome)

        self.submit(sale_id, PendingOrder(reservation, set_result))
        outcome = await future
        if isinstance(outcome, ProblemError):
            raise outcome
        return outcome

    def newest_entries(self) -> dict[str, EntryId]:
        """Return the newest entry that this process has seen of each sale."""
        return {sale_id: queue.newest for sale_id, queue in self._queues.items() if queue.newest.ms}

    async def drain(self) -> None:
        """Wait until every order is resolved."""
        while self._calls or any(queue.scheduled for queue in self._queues.values()):
            if self._calls:
                await asyncio.wait(self._calls)
            else:
                await asyncio.sleep(0)

    def _may_send(self, queue: _SaleQueue) -> bool:
        """Tell whether a call may leave: the only one, or a full batch beside others."""
        inflight, limits = queue.inflight, self._limits
        return not inflight or (
            len(queue.waiting) >= limits.batch_orders and inflight < limits.concurrent_reserve_calls
        )

    def _schedule(self, queue: _SaleQueue) -> None:
        """Send the waiting orders once the loop has read what has arrived."""
        queue.scheduled = True
        self._loop.call_soon(self._gather, queue)

    def _gather(self, queue: _SaleQueue) -> None:
        """Send at the end of an iteration, unless it follows a reply and has brought more orders."""
        count = len(queue.waiting)
        if queue.extra_iterations and queue.previous_length < count < self._limits.batch_orders:
            queue.extra_iterations, queue.previous_length = queue.extra_iterations - 1, count
            self._loop.call_soon(self._gather, queue)
        else:
            queue.extra_iterations = 0
            self._flush(queue)

    def _flush(self, queue: _SaleQueue) -> None:
        queue.scheduled = False
        while queue.waiting and self._may_send(queue):
            batch = self._take_batch(queue)
            self._admission.waiting_since = self._find_oldest_arrival()
            if not batch:
                continue
            queue.inflight += 1
            self._metrics_buffer.intake_wait_seconds.observe(
                self._loop.time() - (batch[0].deadline - self._order_timeout_s)
            )
            call = self._loop.create_task(self._run_batch(queue, batch))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _find_oldest_arrival(self) -> float:
        deadlines = [queue.waiting[0].deadline for queue in self._queues.values() if queue.waiting]
        return min(deadlines, default=inf) - self._order_timeout_s

    def _take_batch(self, queue: _SaleQueue) -> list[PendingOrder]:
        """Remove the next batch from the queue and return it.

        Orders past their deadline are resolved with `Overloaded` and left out. A batch holds at most
        `limits.batch_orders` orders and `limits.batch_bytes` of payload, but always one order.
        """
        waiting, limits, now = queue.waiting, self._limits, self._loop.time()
        if len(waiting) <= limits.batch_orders and queue.size <= limits.batch_bytes and waiting[0].deadline > now:
            batch = list(waiting)
            waiting.clear()
            self._admission.waiting_bytes -= queue.size
            queue.size = 0
            self._admission.waiting -= len(batch)
            return batch
        batch, size = [], 0
        while waiting and len(batch) < limits.batch_orders:
            payload_bytes = len(waiting[0].reservation.payload)
            size += payload_bytes
            if batch and size > limits.batch_bytes:
                break
            order = waiting.popleft()
            queue.size -= payload_bytes
            self._admission.waiting_bytes -= payload_bytes
            self._admission.waiting -= 1
            if order.deadline > now:
                batch.append(order)
            else:
                order.resolve(Overloaded("the order waited too long, nothing was reserved; repeat with the same key"))
        return batch

    async def _run_batch(self, queue: _SaleQueue, batch: list[PendingOrder]) -> None:
        try:
            await self._send_until_clear(queue, batch)
        except Exception as error:
            _logger.exception("a batch failed unexpectedly", extra={"orders": len(batch)})
            _fail(batch, OutcomeUnknown(f"unexpected {type(error).__name__}; repeat with the same key"))
        finally:
            queue.inflight -= 1
            queue.extra_iterations, queue.previous_length = _MAX_EXTRA_ITERATIONS, len(queue.waiting)
            if len(queue.waiting) >= self._limits.batch_orders:
                self._flush(queue)
            elif queue.waiting and not queue.scheduled and not queue.inflight:
                self._schedule(queue)

    async def _send_until_clear(self, queue: _SaleQueue, batch: list[PendingOrder]) -> None:
        """Send until every order of the batch is resolved or the last order's deadline is over.

        `unclear` is true once a call may have reserved something without an answer.
        """
        unclear, deadline = False, batch[-1].deadline
        while True:
            if await self._recheck_redis():
                unclear = await self._attempt(queue, batch, unclear)
                batch = _list_undecided(batch)
                if not batch:
                    return
            if self._loop.time() + _RETRY_INTERVAL_S >= deadline:
                _fail(batch, _outcome_unknown() if unclear else redis_unreachable())
                return
            await asyncio.sleep(_RETRY_INTERVAL_S)

    async def _attempt(self, queue: _SaleQueue, batch: list[PendingOrder], unclear: bool) -> bool:
        """Send a batch once. Returns whether it is unclear now what Redis did; undecided orders may go on."""
        sent = False
        try:
            day = self._clock.now_ms() // DAY_MS
            if not unclear:  # a repeat asks its own sale only: its key may be its own by now
                batch = await self._refuse_used_keys(queue, batch, day)
            sent = bool(batch)
            await self._reserve(queue, batch, day, unclear)
        except NotReady as error:  # the link has reconnected to a server that breaks a promise
            self._report_trouble("Redis cannot be used", batch, error)
        except REDIS_UNAVAILABLE as error:
            self._report_trouble("lost the Redis connection", batch, error)
            return unclear or (sent and _may_have_arrived(error))
        except RedisError as error:
            _logger.error("Redis refused a batch", extra={"orders": len(batch), "reason": str(error)})
            _fail(batch, _outcome_unknown() if unclear else _refusal(error))
        return unclear

    def _report_trouble(self, text: str, batch: Sequence[PendingOrder], error: Exception) -> None:
        self._healthy = False
        self.trouble.set()
        _logger.warning(text, extra={"orders": len(batch), "reason": str(error)})

    async def _recheck_redis(self) -> bool:
        """After a failure, check that Redis is reachable and still keeps its promises. Returns False if not."""
        if self._healthy:
            return True
        try:
            await check_redis(self._redis, self._settings.durability, self._settings.replicas)
        except NotReady as error:
            _logger.warning("Redis cannot be used", extra={"reason": error.detail})
            return False
        self._healthy = True
        return True

    async def _reserve(self, queue: _SaleQueue, batch: list[PendingOrder], day: int, unclear: bool) -> None:
        """Send a batch and resolve its orders.

        If an earlier call is unclear, NOT_READY leaves an order undecided: this server cannot tell what that call did.
        """
        if not batch:
            return
        started = perf_counter()
        connection = await self._link.pin() if self._settings.durability == "replicated" else self._link
        results = await lua.reserve(connection, queue.keys, day, [order.reservation for order in batch])
        failpoint("intake.after_reserve")
        if self._settings.durability == "replicated" and not await self._is_replicated(connection, queue, batch):
            _fail(batch, OutcomeUnknown("the replicas have not confirmed yet; repeat with the same key"))
            return
        self._metrics_buffer.reserve_seconds.observe(perf_counter() - started)
        self._metrics_buffer.reserve_batch_orders.observe(len(batch))
        entries = (result.entry for result in results if result.entry is not None)
        queue.newest = max(queue.newest, max(entries, default=queue.newest))
        for order, result in zip(batch, results, strict=True):
            if result.outcome is ReserveOutcome.NOT_READY:
                self.trouble.set()
                if unclear:
                    continue
            order.resolve(_outcome_of(order, result, unclear))

    async def _is_replicated(self, connection: lua.Commands, queue: _SaleQueue, batch: list[PendingOrder]) -> bool:
        """Wait until the replicas of the very server that took the orders have them.

        An error says nothing about the orders, which are taken.
        """
        try:
            timeout_ms = self._limits.redis_call_timeout_ms // 2
            return await lua.wait_for_replicas(connection, queue.keys, self._settings.replicas, timeout_ms)
        except (RedisError, OSError) as error:
            self._report_trouble("the replicas cannot confirm", batch, error)
            return False

    async def _refuse_used_keys(self, queue: _SaleQueue, batch: list[PendingOrder], day: int) -> list[PendingOrder]:
        """Refuse orders whose key is used in another sale, and return the others.

        A key names one order over all sales. Keys of other sales are in other cluster slots, so `reserve.lua` cannot
        check them.
        """
        others = [SaleKeys(sale_id) for sale_id in self._sales_with_keys() if self._queues.get(sale_id) is not queue]
        if not others:
            return batch
        orders = [(order.reservation.user_id, order.reservation.idempotency_key) for order in batch]
        used = await lua.read_used_keys(self._link, others, day, orders)
        for order, is_used in zip(batch, used, strict=True):
            if is_used:
                order.resolve(ReserveResult(ReserveOutcome.KEY_REUSED))
        return _list_undecided(batch)


def _list_undecided(batch: Sequence[PendingOrder]) -> list[PendingOrder]:
    return [order for order in batch if not order.is_resolved]


def _fail(batch: Sequence[PendingOrder], problem: ProblemError) -> None:
    """Resolve every undecided order of the batch with a problem."""
    for order in batch:
        order.resolve(problem)


def _outcome_of(order: PendingOrder, result: ReserveResult, unclear: bool) -> Outcome:
    """Return the outcome of an order.

    A replay of itself was accepted by an unclear call. After such a call a refusal is no proof: this server may be one
    that lacks the order.
    """
    if result.record is not None and result.record.order_id == order.reservation.order_id:
        return ReserveResult(ReserveOutcome.ACCEPTED, result.entry)
    return _outcome_unknown() if unclear and result.outcome not in _FINAL else result


def _may_have_arrived(error: Exception) -> bool:
    """Tell whether the command of a failed call may have been executed."""
    if isinstance(error, RedisConnectionLost):
        return error.sent
    return not isinstance(error, REDIS_NOT_NOW)


def _refusal(error: RedisError) -> ProblemError:
    if isinstance(error, OutOfMemoryError):
        return Overloaded("Redis has no memory left; repeat with the same key later")
    return NotReady("Redis refuses orders at the moment; repeat with the same key")


def _outcome_unknown() -> ProblemError:
    return OutcomeUnknown("it is unknown whether the order was accepted; repeat with the same key to find out")


def redis_unreachable() -> ProblemError:
    """Build the answer to an order that was not sent."""
    return NotReady("Redis cannot be reached, nothing was reserved; repeat with the same key")
