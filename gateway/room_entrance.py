"""The entrance of waiting rooms: it decides who may join, and says which place he has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import NotReady, Overloaded, ProblemError
from commerce.kernel.outages import log_failure
from commerce.waiting_rooms.errors import AccountTooNew, RoomEnded, RoomFull, RoomNotOpen
from commerce.waiting_rooms.model import Room, RoomPlace
from commerce.waiting_rooms.tickets import hash_of
from gateway import metrics
from gateway.auth import Identity
from gateway.proof_of_work import ProofOfWork, SolvedProof
from gateway.request_origin import RequestOrigin
from gateway.room_joins import RoomJoins
from gateway.room_status import RoomStatus, expected_wait_s
from gateway.screening_actions import ScreeningActions
from gateway.screening_signals import ScreeningSignals
from lua import JoinOutcome, JoinResult

_logger = logging.getLogger(__name__)
_MAX_SPENDING = 1_000
_TICKET_LIFETIME_S = timedelta(days=1) // timedelta(seconds=1)
PlaceOrProblem = RoomPlace | ProblemError


class JoinRequest(NamedTuple):
    """A request to join, with the customer's last ticket and a proof of work if he sends them."""

    identity: Identity
    ticket: str | None
    proof: str | None
    origin: RequestOrigin


class RoomEntrance:
    """Lets customers join and leave the rooms of this process's memory."""

    def __init__(
        self,
        status: RoomStatus,
        joins: RoomJoins,
        signals: ScreeningSignals,
        actions: ScreeningActions,
        proofs: ProofOfWork,
        clock: Clock,
    ) -> None:
        self._status = status
        self._joins = joins
        self._signals = signals
        self._actions = actions
        self._proofs = proofs
        self._clock = clock
        self._spending: set[asyncio.Task[None]] = set()

    async def join(self, sale_id: str, request: JoinRequest) -> RoomPlace:
        """Join the room of a sale. Raises the refusal."""
        future: asyncio.Future[PlaceOrProblem] = asyncio.get_running_loop().create_future()

        def set_result(outcome: PlaceOrProblem) -> None:
            if not future.done():  # done: the caller was cancelled
                future.set_result(outcome)

        self.submit(sale_id, request, set_result)
        outcome = await future
        if isinstance(outcome, ProblemError):
            raise outcome
        return outcome

    def submit(self, sale_id: str, request: JoinRequest, resolve: Callable[[PlaceOrProblem], None]) -> None:
        """Join as `join` does, and call `resolve` once with the outcome. Raises a refusal that memory decides."""
        identity = request.identity
        room, user_id, now_ms = self._status.find(sale_id), identity.subject, self._clock.now_ms()
        _check_may_join(room, identity, now_ms)
        tickets = self._status.tickets
        shown = tickets.verify(sale_id, user_id, request.ticket, now_ms / 1000) if request.ticket else None
        solution: SolvedProof | None = None
        if self._signals.is_on:
            self._signals.note_join(sale_id, user_id, request.origin, to_ms(room.join_opens_at))
            has_number = shown is not None and shown > room.expired
            if self._actions.check_join(sale_id, user_id, to_ms(room.opens_at), has_number):
                solution = self._proofs.verify(sale_id, user_id, request.proof)
        ticket_hash, nonce = hash_of(room.salt, sale_id, user_id)

        def build_place(result: JoinResult | ProblemError) -> None:
            resolve(
                result if isinstance(result, ProblemError) else self._place(room, user_id, ticket_hash, nonce, result)
            )

        join = partial(self._joins.submit, room, ticket_hash, shown or 0, build_place)
        if solution is None:
            join()
        else:
            self._join_with_proof(self._proofs.spend(sale_id, user_id, solution), join, resolve)

    def _join_with_proof(
        self, spending: Coroutine[Any, Any, None], join: Callable[[], None], resolve: Callable[[ProblemError], None]
    ) -> None:
        """Join once the solution has counted. Raises `Overloaded` if too many solutions wait for Redis."""

        async def spend_and_join() -> None:
            try:
                await spending
                join()
            except ProblemError as refusal:
                resolve(refusal)
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot take a proof of work", error)
                resolve(NotReady("cannot join at the moment; repeat the request"))

        if len(self._spending) >= _MAX_SPENDING:
            spending.close()
            raise Overloaded("too many people are joining at this moment; repeat the request")
        task = asyncio.create_task(spend_and_join())
        self._spending.add(task)
        task.add_done_callback(self._spending.discard)

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
