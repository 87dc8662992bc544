"""The entrance of waiting rooms: it decides who may join, and says which place he has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import NotReady, ProblemError
from commerce.waiting_rooms.errors import AccountTooNew, RoomEnded, RoomFull, RoomNotOpen
from commerce.waiting_rooms.model import Room, RoomPlace
from commerce.waiting_rooms.tickets import hash_of
from gateway import metrics
from gateway.auth import Identity
from gateway.room_joins import RoomJoins
from gateway.room_status import RoomStatus, expected_wait_s
from lua import JoinOutcome, JoinResult

_TICKET_LIFETIME_S = timedelta(days=1) // timedelta(seconds=1)
PlaceOrProblem = RoomPlace | ProblemError


class RoomEntrance:
    """Lets customers join and leave the rooms of this process's memory."""

    def __init__(self, status: RoomStatus, joins: RoomJoins, clock: Clock) -> None:
        self._status = status
        self._joins = joins
        self._clock = clock

    async def join(self, sale_id: str, identity: Identity, ticket: str | None) -> RoomPlace:
        """Join the room of a sale, with the customer's last ticket if he has one. Raises the refusal."""
        future: asyncio.Future[PlaceOrProblem] = asyncio.get_running_loop().create_future()

        def set_result(outcome: PlaceOrProblem) -> None:
            if not future.done():  # done: the caller was cancelled
                future.set_result(outcome)

        self.submit(sale_id, identity, ticket, set_result)
        outcome = await future
        if isinstance(outcome, ProblemError):
            raise outcome
        return outcome

    def submit(
        self, sale_id: str, identity: Identity, ticket: str | None, resolve: Callable[[PlaceOrProblem], None]
    ) -> None:
        """Join as `join` does, and call `resolve` once with the outcome. Raises a refusal that memory decides."""
        room, user_id, now_ms = self._status.find(sale_id), identity.subject, self._clock.now_ms()
        _check_may_join(room, identity, now_ms)
        tickets = self._status.tickets
        shown = tickets.verify(sale_id, user_id, ticket, now_ms / 1000) if ticket else None
        ticket_hash, nonce = hash_of(room.salt, sale_id, user_id)

        def build_place(result: JoinResult | ProblemError) -> None:
            resolve(
                result if isinstance(result, ProblemError) else self._place(room, user_id, ticket_hash, nonce, result)
            )

        self._joins.submit(room, ticket_hash, shown or 0, build_place)

    async def leave(self, sale_id: str, user_id: str) -> None:
        """Leave the room of a sale. Raises `NoRoom`, or `NotReady` if Redis does not answer."""
        room = self._status.find(sale_id)
        ticket_hash, _ = hash_of(room.salt, sale_id, user_id)
        if await self._joins.leave(room, ticket_hash):
            metrics.ROOM_JOINS.labels("left").inc()

    def _place(self, room: Room, user_id: str, ticket_hash: bytes, nonce: bytes, result: JoinResult) -> PlaceOrProblem:
        outcome, number = result
        _COUNTERS[outcome]()
        if outcome is JoinOutcome.FULL:
            return RoomFull(f"the room takes {room.max_waiting} people and is full; try again later")
        if outcome is JoinOutcome.NOT_READY:
            return NotReady("the room is being prepared; repeat the request")
        expires_s = max(self._clock.now_ms(), to_ms(room.opens_at)) // 1000 + _TICKET_LIFETIME_S
        return RoomPlace(
            sale_id=room.sale_id,
            state=room.state,
            ticket=self._status.tickets.sign(room.sale_id, user_id, number, expires_s),
            number=number or None,
            ahead=max(0, number - room.served - 1) if number else None,
            expected_wait_s=expected_wait_s(room, number),
            ticket_hash=ticket_hash.hex(),
            nonce=nonce.hex(),
        )


def _count(outcome: str) -> None:
    metrics.ROOM_JOINS.labels(outcome).inc()


_COUNTERS = {outcome: partial(_count, outcome.name.lower()) for outcome in JoinOutcome}


def _check_may_join(room: Room, identity: Identity, now_ms: int) -> None:
    if room.state == "ended":
        raise RoomEnded("everything is sold, or the sale is over: nobody waits any more")
    if room.state == "standby":
        raise RoomNotOpen("this room opens only in a rush: order without a ticket")
    if now_ms < to_ms(room.join_opens_at):
        text = room.join_opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        raise RoomNotOpen(f"the waiting room opens at {text}", opens_at=text)
    if room.min_account_age_s:
        if identity.account_created_s is None:
            raise AccountTooNew("this sale asks for the age of the account: the token needs `account_created_at`")
        newest_ms = to_ms(room.list_closes_at) - room.min_account_age_s * 1000
        if identity.account_created_s > newest_ms // 1000:
            text = from_ms(newest_ms).strftime("%Y-%m-%dT%H:%M:%SZ")
            raise AccountTooNew(f"only accounts created before {text} take part")
