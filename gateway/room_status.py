"""The waiting rooms in this process's memory: their public pages, and whose turn it is.

The rooms are polled four times a second while one of them is on, else once. While Postgres is unavailable the last
state is used: nobody is let in who was not, and nobody who was is sent away.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.errors import Overloaded, ProblemError
from commerce.kernel.outages import log_failure
from commerce.waiting_rooms.errors import NoRoom, NotYourTurn, RoomTicketsUnavailable, TicketInvalid, TurnMissed
from commerce.waiting_rooms.model import Room
from commerce.waiting_rooms.service import WaitingRooms, to_public_room
from commerce.waiting_rooms.tickets import RoomTickets
from gateway import metrics
from gateway.cached_content import Content, encode_content
from gateway.problems import TooManyRequests
from gateway.refused_orders import RefusedOrders

_logger = logging.getLogger(__name__)
_POLL_INTERVAL_S, _IDLE_INTERVAL_S = 0.25, 1.0
_CACHE_CONTROL = "public, max-age=1"
_MIN_RETRY_AFTER_S, _MAX_RETRY_AFTER_S = 2, 60
_STALLED_AFTER_MS = 10_000
_DOWNLOADS_PER_ADDRESS = 2
_GAUGES = (metrics.ROOM_OPEN, metrics.ROOM_WAITING, metrics.ROOM_SERVED, metrics.ROOM_PACE, metrics.ROOM_STALLED)
_MAX_ROOMS_OF_TICKET = 8  # a ticket does not say of which sale it is, and each costs an HMAC


class RoomStatus:
    """The rooms that are on, automatic ones too."""

    def __init__(
        self,
        rooms: WaitingRooms,
        clock: Clock,
        tickets: RoomTickets | None,
        refused_orders: RefusedOrders,
        max_downloads: int,
    ) -> None:
        self._waiting_rooms = rooms
        self._clock = clock
        self._tickets = tickets
        self._refused_orders = refused_orders
        self._downloads_left = max_downloads
        self._downloads_by_address: Counter[str] = Counter()
        self._rooms: dict[str, Room] = {}
        self.guarded: dict[str, Room] = {}
        """the rooms that are open: orders of their sales need a ticket"""
        self.pages: dict[bytes, Content] = {}
        """public pages by the target of a GET request"""

    def find(self, sale_id: str) -> Room:
        """Return the room of a sale. Raises `NoRoom`."""
        room = self._rooms.get(sale_id)
        if room is None:
            raise NoRoom(f"the sale {sale_id!r} has no waiting room")
        return room

    def page(self, sale_id: str) -> Content:
        """Return the public page of a room. Raises `NoRoom`."""
        content = self.pages.get(_target(sale_id))
        if content is None:
            raise NoRoom(f"the sale {sale_id!r} has no waiting room")
        return content

    @property
    def tickets(self) -> RoomTickets:
        """The signer of tickets. Raises `RoomTicketsUnavailable` if the settings have no key."""
        if self._tickets is None:
            raise RoomTicketsUnavailable("cannot sign tickets: set FLOODGATE_AUTH__ROOM_TICKET_KEY")
        return self._tickets

    def check_turn(self, sale_id: str, user_id: str, ticket: str | bytes | None) -> None:
        """Check that a customer may order now. Raises `NotYourTurn`, `TurnMissed` or `TicketInvalid` if not.

        Sales without a room are open to everybody.
        """
        room = self.guarded.get(sale_id)
        if room is None:
            return
        try:
            self._check_ticket(room, user_id, ticket)
        except ProblemError:
            self._refused_orders.count(sale_id)
            raise

    def _check_ticket(self, room: Room, user_id: str, ticket: str | bytes | None) -> None:
        sale_id = room.sale_id
        if ticket is None:
            raise NotYourTurn(
                f"this sale has a waiting room: POST /v1/sales/{sale_id}/room, and send its ticket as Room-Ticket",
                _MIN_RETRY_AFTER_S,
                served=room.served,
            )
        text = ticket.decode("latin-1") if isinstance(ticket, bytes) else ticket
        number = self.tickets.verify(sale_id, user_id, text, self._clock.now_ms() / 1000)
        if number is None:
            raise TicketInvalid("this ticket is not yours for this sale, or has expired; join again for a new one")
        if number == 0 and room.drawn_at is not None:
            raise NotYourTurn("the places are drawn: join again to learn yours", _MIN_RETRY_AFTER_S, served=room.served)
        if number == 0 or number > room.served:
            wait_s = expected_wait_s(room, number)
            retry_after_s = _MAX_RETRY_AFTER_S if wait_s is None else min(wait_s, _MAX_RETRY_AFTER_S)
            raise NotYourTurn(
                "wait for your turn", max(_MIN_RETRY_AFTER_S, retry_after_s), number=number or None, served=room.served
            )
        if number <= room.expired:
            raise TurnMissed(
                f"your turn of {room.served_valid_s} s is over; join again to stand at the end",
                number=number,
                served=room.served,
            )

    def has_turn(self, user_id: str, ticket: str | bytes) -> bool:
        """Tell whether it is the customer's turn in any room; False with many rooms or no key."""
        tickets = self._tickets
        if tickets is None or len(self.guarded) > _MAX_ROOMS_OF_TICKET:
            return False
        text, now_s = ticket.decode("latin-1") if isinstance(ticket, bytes) else ticket, self._clock.now_ms() / 1000
        return any(
            (number := tickets.verify(sale_id, user_id, text, now_s)) is not None
            and room.expired < number <= room.served
            for sale_id, room in self.guarded.items()
        )

    @contextmanager
    def draw_download(self, address: str | None) -> Iterator[None]:
        """Take part in the downloads of draws.

        Raises `Overloaded` if too many run, and `TooManyRequests` if the address, if it is counted, has too many.
        """
        if self._downloads_left <= 0:
            raise Overloaded("too many download the draw at this moment; repeat the request")
        by_address = self._downloads_by_address
        if address is not None and by_address[address] >= _DOWNLOADS_PER_ADDRESS:
            raise TooManyRequests(f"this address has {_DOWNLOADS_PER_ADDRESS} downloads of draws; wait for their end")
        holders = Counter([address] if address is not None else [])
        self._downloads_left -= 1
        by_address += holders
        try:
            yield
        finally:
            self._downloads_left += 1
            by_address -= holders  # drops those that have none left

    async def refresh(self) -> None:
        """Read the rooms now."""
        rooms = {room.sale_id: room for room in await self._waiting_rooms.list_shown()}
        now_ms = self._clock.now_ms()
        now = from_ms(now_ms)
        self.pages = {
            _target(sale_id): encode_content(to_public_room(room, now), _CACHE_CONTROL)
            for sale_id, room in rooms.items()
        }
        for sale_id in self._rooms.keys() - rooms.keys():
            _clear_gauges(sale_id)
        self._rooms = rooms
        self.guarded = {sale_id: room for sale_id, room in rooms.items() if room.is_open}
        self._refused_orders.sales = {
            sale_id for sale_id, room in rooms.items() if room.mode == "automatic" and room.state != "ended"
        }
        for room in rooms.values():
            _set_gauges(room, now_ms)

    async def refresh_forever(self) -> None:
        """Refresh until cancelled, also through outages of the database."""
        while True:
            try:
                await self.refresh()
            except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
                log_failure(_logger, "cannot read the waiting rooms", error)
            is_idle = not self.guarded and not self._refused_orders.sales
            await self._clock.sleep(_IDLE_INTERVAL_S if is_idle else _POLL_INTERVAL_S)


def expected_wait_s(room: Room, number: int) -> int | None:
    """Return how long the holder of a number has to wait at the present pace; None if nobody can tell yet."""
    if number == 0 or room.pace_per_s <= 0:
        return None
    return int(max(0, number - room.served) / room.pace_per_s)


def _target(sale_id: str) -> bytes:
    return f"/v1/sales/{sale_id}/room".encode()


def _set_gauges(room: Room, now_ms: int) -> None:
    waits = room.state == "serving" and room.last_number > room.served
    since_ms = room.steps[-1].end_ms(room.served_valid_s) if room.steps else to_ms(room.opens_at)
    is_stalled = waits and room.sale_state == "open" and now_ms > since_ms + _STALLED_AFTER_MS
    metrics.ROOM_WAITING.labels(room.sale_id).set(room.last_number - room.served if room.is_open else 0)
    metrics.ROOM_OPEN.labels(room.sale_id).set(int(room.is_open))
    metrics.ROOM_SERVED.labels(room.sale_id).set(room.served)
    metrics.ROOM_PACE.labels(room.sale_id).set(room.pace_per_s if waits else 0)
    metrics.ROOM_STALLED.labels(room.sale_id).set(int(is_stalled))


def _clear_gauges(sale_id: str) -> None:
    for gauge in _GAUGES:
        gauge.labels(sale_id).set(0)
