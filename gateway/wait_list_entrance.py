"""The entrance of wait-lists: joins in batches, all that wait for a sale share its next transaction."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import timedelta
from typing import NamedTuple

from commerce.kernel.clock import Clock
from commerce.kernel.errors import NotReady, Overloaded, ProblemError
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY
from commerce.sales.errors import NoSuchItem
from commerce.wait_lists.model import WaitList, WaitListEntry, WaitListJoin, WaitListPlace
from commerce.wait_lists.service import WaitListRequest, WaitLists
from commerce.waiting_rooms.tickets import RoomTickets
from config.settings import Settings
from gateway import metrics
from gateway.auth import room_ticket_key
from gateway.sale_snapshots import SaleSnapshots
from gateway.wait_list_status import WaitListStatus

_logger = logging.getLogger(__name__)
_JOINS_PER_BATCH = 500
_TICKET_LIFETIME_S = timedelta(days=30) // timedelta(seconds=1)

JoinResult = tuple[WaitListEntry, int] | ProblemError


class _QueuedJoin(NamedTuple):
    wait_list: WaitList
    request: WaitListRequest
    future: asyncio.Future[JoinResult]


class WaitListEntrance:
    """Lets customers join and leave wait-lists, and read their places."""

    def __init__(
        self,
        wait_lists: WaitLists,
        status: WaitListStatus,
        snapshots: SaleSnapshots,
        clock: Clock,
        tickets: RoomTickets | None,
        max_queued: int,
    ) -> None:
        self.service = wait_lists
        self.status = status
        self._snapshots = snapshots
        self._clock = clock
        self._tickets = tickets
        self._max_queued = max_queued
        self._queues: dict[str, deque[_QueuedJoin]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._queued = 0

    async def join(self, sale_id: str, user_id: str, join: WaitListJoin) -> WaitListPlace:
        """Give a customer his place, the same one however often he joins. Raises the refusal."""
        try:
            place = await self._join(sale_id, user_id, join)
        except ProblemError as refusal:
            metrics.WAIT_LIST_JOINS.labels(refusal.code).inc()
            raise
        metrics.WAIT_LIST_JOINS.labels("placed").inc()
        return place

    async def _join(self, sale_id: str, user_id: str, join: WaitListJoin) -> WaitListPlace:
        wait_list, snapshot = self.status.find_open(sale_id), await self._snapshots.get(sale_id)
        terms = snapshot.items.get(join.sku)
        if terms is None:
            raise NoSuchItem(f"{sale_id} does not offer {join.sku}")
        if self._queued >= self._max_queued:
            raise Overloaded("too many people are joining at this moment; repeat the request")
        queue = self._queues.get(sale_id)
        if queue is None:
            queue = self._queues[sale_id] = deque()
            call = asyncio.create_task(self._send(sale_id, queue))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
        future: asyncio.Future[JoinResult] = asyncio.get_running_loop().create_future()
        queue.append(_QueuedJoin(wait_list, WaitListRequest(user_id, join, terms.limit), future))
        self._queued += 1
        result = await future
        if isinstance(result, ProblemError):
            raise result
        return self._to_place(*result)

    async def get_place(self, sale_id: str, sku: str, user_id: str) -> WaitListPlace:
        """Read a customer's last place. Raises `NoWaitList` or `NotOnWaitList`."""
        awaited = {counts.sku: counts.offered_number for counts in self.status.find(sale_id).skus}
        place = await self.service.get_place(sale_id, sku, user_id)
        # Nobody waited when the state was read: he is the first, or was among them.
        return self._to_place(place, awaited.get(sku, place.number))

    async def leave(self, sale_id: str, sku: str, user_id: str) -> None:
        """Give up a place, or what is offered. Raises `NoWaitList`, or `NotReady` if an offer is being made."""
        self.status.find(sale_id)
        if await self.service.leave(sale_id, sku, user_id):
            metrics.WAIT_LIST_JOINS.labels("left").inc()

    async def _send(self, sale_id: str, queue: deque[_QueuedJoin]) -> None:
        """Send all that wait, batch by batch, until none is left."""
        await asyncio.sleep(0)  # the other joins of this iteration
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), _JOINS_PER_BATCH))]
            results: list[JoinResult]
            try:
                results = [*await self.service.join(batch[-1].wait_list, [join.request for join in batch])]
            except POSTGRES_UNAVAILABLE_OR_BUSY:
                results = [NotReady("the database cannot be reached; repeat the request") for _ in batch]
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot join people to a wait-list", error, sale_id=sale_id, count=len(batch))
                results = [NotReady("cannot join at the moment; repeat the request") for _ in batch]
            self._queued -= len(batch)
            for join, result in zip(batch, results, strict=True):
                if not join.future.done():  # done: the caller was cancelled
                    join.future.set_result(result)
        del self._queues[sale_id]

    def _to_place(self, entry: WaitListEntry, offered_number: int) -> WaitListPlace:
        ticket = None
        if self._tickets is not None:
            expires_s = self._clock.now_ms() // 1000 + _TICKET_LIFETIME_S
            ticket = self._tickets.sign(entry.sale_id, entry.user_id, entry.number, expires_s, entry.sku)
        has_offer = entry.accept_by is not None
        return WaitListPlace(
            sale_id=entry.sale_id,
            sku=entry.sku,
            # An offer that Redis does not have yet cannot be ordered: he still waits.
            state="waiting" if entry.state == "offered" and not has_offer else entry.state,
            number=entry.number,
            ahead=max(0, entry.number - offered_number - 1) if entry.state == "waiting" else None,
            quantity=entry.quantity,
            offered_units=entry.offered_units if has_offer else None,
            accept_by=entry.accept_by if entry.state == "offered" else None,
            ticket=ticket,
        )


async def open_wait_lists(
    settings: Settings, wait_lists: WaitLists, snapshots: SaleSnapshots, clock: Clock
) -> WaitListEntrance:
    """Read the wait-lists and open their entrance, which signs tickets if the settings have a key."""
    status, key = WaitListStatus(wait_lists, clock), room_ticket_key(settings.auth)
    await status.refresh()
    tickets = RoomTickets(key) if key else None
    return WaitListEntrance(wait_lists, status, snapshots, clock, tickets, settings.limits.waiting_joins)
