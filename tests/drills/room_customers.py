"""Customers of a waiting room: they join, learn their places, and order when it is their turn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.drills.client_record import ClientRecord, IntendedOrder, OrderRequest
from tests.drills.retrying_client import Reply

SKU = "phone"
_NOT_YET_S, _PRESS_AGAIN_S = 0.3, 0.01
_OVERLOADED = (429, 503)


@dataclass
class RoomRecord:
    """Answers to the customers of a room: ticket hash, ticket and number by user."""

    orders: ClientRecord
    hashes: dict[str, str] = field(default_factory=dict)
    tickets: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    has_left: set[str] = field(default_factory=set)

    def note_place(self, user: str, place: dict[str, Any]) -> None:
        """Keep an answer to a join; each one must agree with those before."""
        if self.hashes.setdefault(user, place["ticket_hash"]) != place["ticket_hash"]:
            self.orders.add_contradiction(f"{user} has another ticket hash")
        self.tickets[user] = place["ticket"]
        number = place["number"]
        if number is None and user in self.numbers:
            self.orders.add_contradiction(f"{user} had number {self.numbers[user]}, and now none")
        if number is not None and self.numbers.setdefault(user, number) != number:
            self.orders.add_contradiction(f"{user} had number {self.numbers[user]}, and now {number}")


@dataclass
class RoomRequest:
    """A join, with the last ticket of the customer if he has one, or his leaving."""

    record: RoomRecord
    user: str
    method: str = "POST"

    def encode(self) -> bytes:
        orders, ticket = self.record.orders, self.record.tickets.get(self.user)
        line = f"{self.method} /v1/sales/{orders.sale_id}/room HTTP/1.1\r\n"
        more = f"Room-Ticket: {ticket}\r\n" if ticket else ""
        return f"{line}{more}{orders.request_headers(self.user)}0\r\n\r\n".encode()

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        self.record.statuses[f"{self.method} {reply.status}"] += 1
        if reply.status in _OVERLOADED:
            return float(reply.header(b"retry-after") or 1)
        if reply.status == 200:
            self.record.note_place(self.user, orjson.loads(reply.body))
        elif reply.status == 204:
            self.record.has_left.add(self.user)
        else:
            self.record.orders.add_contradiction(f"{self.method} of {self.user}: {reply.body[:300]!r}")
        return None

    def on_connection_lost(self) -> None:
        self.record.statuses[f"{self.method} connection lost"] += 1

    def on_connection_refused(self) -> None:
        self.record.statuses[f"{self.method} connection refused"] += 1

    def on_end(self, is_outcome_known: bool) -> None:
        if not is_outcome_known:
            self.record.orders.add_contradiction(f"{self.method} of {self.user} got no outcome")


class TicketOrderRequest(OrderRequest):
    """Sends an order with its customer's ticket until the outcome is known.

    With `is_in_turn` the gateway that is asked may learn of the turn a moment later; without it the order must be
    refused.
    """

    def __init__(self, record: RoomRecord, intended: IntendedOrder, *, is_in_turn: bool = True) -> None:
        super().__init__(record.orders, intended)
        self._room = record
        self._is_in_turn = is_in_turn

    def encode(self) -> bytes:
        line, rest = super().encode().split(b"\r\n", 1)
        return b"%b\r\nRoom-Ticket: %b\r\n%b" % (line, self._room.tickets[self.intended.user].encode(), rest)

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        code = "" if reply.status < 300 else orjson.loads(reply.body)["code"]
        if code == "not_your_turn":
            self._room.statuses["order not_your_turn"] += 1
            return _NOT_YET_S if self._is_in_turn else None
        if not self._is_in_turn and code == "sold_out":
            return None
        if not self._is_in_turn and reply.status not in _OVERLOADED:
            self._room.orders.add_contradiction(f"{self.intended} was not refused: {reply.status} {reply.body[:300]!r}")
            return None
        return super().on_reply(reply, seconds)


class SurprisedOrderRequest(OrderRequest):
    """Sends an order; a customer refused for a room joins it and orders again with the ticket.

    Refused for overload, the customer presses again at once.
    """

    def __init__(self, record: RoomRecord, intended: IntendedOrder) -> None:
        super().__init__(record.orders, intended)
        self._room = record
        self._join: RoomRequest | None = None

    def encode(self) -> bytes:
        data = super().encode()
        if self._join is not None:
            return self._join.encode()
        ticket = self._room.tickets.get(self.intended.user)
        line, rest = data.split(b"\r\n", 1)
        return b"%b\r\nRoom-Ticket: %b\r\n%b" % (line, ticket.encode(), rest) if ticket else data

    def on_reply(self, reply: Reply, seconds: float) -> float | None:
        code = "" if reply.status < 300 else orjson.loads(reply.body)["code"]
        self._room.statuses[f"{'join' if self._join else 'order'} {code or reply.status}"] += 1
        if reply.status in _OVERLOADED:
            self.intended.may_exist = self.intended.may_exist or code == "outcome_unknown"
            return _PRESS_AGAIN_S
        if self._join is not None:
            join, self._join = self._join, None
            return _NOT_YET_S if code == "room_not_open" else join.on_reply(reply, seconds) or _PRESS_AGAIN_S
        if code in ("not_your_turn", "turn_missed"):
            if code == "turn_missed":
                self._room.numbers.pop(self.intended.user, None)
            if code == "turn_missed" or self.intended.user not in self._room.numbers:
                self._join = RoomRequest(self._room, self.intended.user)
                return _PRESS_AGAIN_S
            return _NOT_YET_S
        return super().on_reply(reply, seconds)
