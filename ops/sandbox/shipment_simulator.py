"""Moves the parcels of the sandbox's carriers along their roads by the clock, and settles what is pushed of that.

Nothing is lost in a kill: when a parcel moves next follows from its row, and what happened meanwhile is entered with
the time at which it was due.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import replace

from commerce.kernel.clock import Clock
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.journey import due_ms, place_of, plan_journey, road_to, state_after
from ops.sandbox.protocol import CarrierProtocol
from ops.sandbox.shipment_store import DuePush, Event, NewPush, ShipmentStore, ShipmentStoreRefusal, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook

_TURN = 200
"""How many steps are taken before requests get their turn."""
_MOMENT_MS = 300


class ShipmentSimulator:
    """Decides by the switches what becomes of parcels and pushes. Never waits. `speed` is that of carriers whose
    switches say nothing of it."""

    def __init__(self, depot: ShipmentStore, clock: Clock, board: FaultRegistry[CarrierFaults], speed: int) -> None:
        self.wake = asyncio.Event()
        """Set when there is something new to do."""
        self._depot = depot
        self._clock = clock
        self._board = board
        self._speed = speed
        self._plans: dict[str, list[tuple[int, str, int]]] = {}
        """By carrier: when a parcel moves, its number, and how many steps it has taken before."""

    def receive(
        self,
        carrier: str,
        number: str,
        *,
        order_no: str = "",
        company: str = "",
        phones: str = "",
        origin: str,
        destination: str,
        notify_url: str = "",
        refused: bool = False,
    ) -> SimulatedShipment:
        """A parcel comes into being, or a booking that is refused. Raises `DepotRefusal` as `Depot.enter` does."""
        now_ms = self._clock.now_ms()
        parcel = SimulatedShipment(
            carrier=carrier,
            number=number,
            order_no=order_no,
            company=company,
            phones=phones,
            origin=origin,
            destination=destination,
            notify_url=notify_url,
            salt="",
            detail="",
            state="refused" if refused else "booked",
            road=plan_journey(self._board, carrier, number),
            step=0,
            since_ms=now_ms,
            created_ms=now_ms,
        )
        self._depot.enter(parcel)
        self._plan(parcel)
        return parcel

    def follow(self, parcel: SimulatedShipment, notify_url: str, salt: str, detail: str) -> None:
        """Its news are pushed from now on, and what has happened already."""
        followed = replace(parcel, notify_url=notify_url, salt=salt, detail=detail)
        pushes = [NewPush("first", parcel.step - 1, self._clock.now_ms())] if parcel.step else []
        self._depot.change(followed, pushes=pushes)
        self.wake.set()

    def switch(self, carrier: str, switches: CarrierFaults) -> None:
        """From now on; parcels on the move go on at the new speed from where they are."""
        self.move_due()
        before, now_ms = self._speed_of(carrier), self._clock.now_ms()
        self._board.set(carrier, switches)
        after = self._speed_of(carrier)
        if before != after:
            for parcel in self._depot.open_parcels(carrier):
                since_ms = now_ms - (now_ms - parcel.since_ms) * before // after
                self._depot.change(replace(parcel, since_ms=since_ms))
        self.restart(carrier)

    def restart(self, carrier: str) -> None:
        """Plan afresh, after a start or with another speed."""
        self._plans[carrier] = []
        for parcel in self._depot.open_parcels(carrier):
            self._plan(parcel)
        self.wake.set()

    def move_due(self) -> None:
        """Parcels take the steps that are due, not too many at a time."""
        now_ms = self._clock.now_ms()
        for carrier, plans in self._plans.items():
            for _ in range(_TURN):
                if not plans or plans[0][0] > now_ms:
                    break
                at_ms, number, step = heapq.heappop(plans)
                parcel = self._depot.parcel(carrier, number)
                if parcel is not None and parcel.open and parcel.step == step:  # not moved by hand, nor cancelled
                    self._plan(self._take_step(parcel, at_ms))

    def move(self, number: str, target: str | None) -> SimulatedShipment:
        """Now, by hand: its next step, or all steps to the target. Raises no_parcel or too_late."""
        parcel = self._depot.find(number)
        if not parcel.open:
            raise ShipmentStoreRefusal("too_late", f"the parcel is {parcel.state}")
        if target is not None:
            parcel = replace(parcel, road=road_to(parcel, target))
        steps = 1 if target is None else parcel.road.index(target, parcel.step) + 1 - parcel.step
        for _ in range(steps):
            parcel = self._take_step(parcel, self._clock.now_ms())
        self._plan(parcel)
        return parcel

    def next_ms(self) -> int | None:
        """When the next parcel moves."""
        return min((plans[0][0] for plans in self._plans.values() if plans), default=None)

    def _speed_of(self, carrier: str) -> int:
        return self._board.of(carrier).speed or self._speed

    def _plan(self, parcel: SimulatedShipment) -> None:
        if not parcel.open:
            return
        plan = (due_ms(self._board, parcel, self._speed_of(parcel.carrier)), parcel.number, parcel.step)
        plans = self._plans.setdefault(parcel.carrier, [])
        heapq.heappush(plans, plan)
        if plans[0] == plan:
            self.wake.set()

    def _take_step(self, parcel: SimulatedShipment, at_ms: int) -> SimulatedShipment:
        step = parcel.road[parcel.step]
        event = Event(parcel.carrier, parcel.number, parcel.step, step, at_ms, place_of(parcel))
        moved = replace(parcel, state=state_after(step), step=parcel.step + 1, since_ms=at_ms)
        self._depot.change(moved, event, self._pushes(parcel, event))
        self.wake.set()
        return moved

    def _pushes(self, parcel: SimulatedShipment, event: Event) -> list[NewPush]:
        if not parcel.notify_url:
            return []
        switches, hits = self._board.of(parcel.carrier), self._board.hits
        about = f"{parcel.number}/{event.n}"
        shuffled = hits(switches.shuffled_share, "shuffled", parcel.number) and event.n % 2 == 0
        late = shuffled or hits(switches.late_share, "late", about)
        at_ms = event.at_ms + switches.push_ms + (switches.late_ms if late else 0)
        push = NewPush("first", event.n, at_ms, hits(switches.wrong_signature_share, "wrong_signature", about))
        if hits(switches.never_share, "never", about):
            return [replace(push, done=True)]
        if hits(switches.twice_share, "twice", about):
            return [push, replace(push, which="second"), replace(push, which="third", due_ms=at_ms + _MOMENT_MS)]
        return [push]


class Pushes:
    """What a sender does for the carriers; `protocols` by the carriers' names."""

    def __init__(
        self, depot: ShipmentStore, courier: ShipmentSimulator, protocols: Mapping[str, CarrierProtocol]
    ) -> None:
        self._depot = depot
        self._courier = courier
        self._protocols = protocols

    @property
    def wake(self) -> asyncio.Event:
        return self._courier.wake

    def turn(self) -> None:
        self._courier.move_due()

    def next_ms(self, now_ms: int) -> int | None:
        times = (self._courier.next_ms(), self._depot.next_due_ms(now_ms))
        return min((time for time in times if time is not None), default=None)

    def due(self, now_ms: int, limit: int) -> list[DuePush]:
        return self._depot.due(now_ms, limit)

    def letter(self, due: DuePush) -> OutgoingWebhook:
        parcel = self._depot.parcel(due.carrier, due.number)
        assert parcel is not None, "a push is about a parcel in the books"
        events = self._depot.events(due.carrier, due.number, due.n)
        return self._protocols[due.carrier].push(parcel, events, wrong=due.wrong)

    def is_accepted(self, due: DuePush, status: int, body: bytes) -> bool:
        return self._protocols[due.carrier].is_accepted(status, body)

    def noted(self, due: DuePush, *, done: bool, again_ms: int) -> None:
        self._depot.noted(due.notice_id, done=done, again_ms=again_ms)
