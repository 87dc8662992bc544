"""Errors of waiting rooms, for customers and staff."""

from __future__ import annotations

from typing import Any

from commerce.kernel.errors import Conflict, NotFound, NotReady, Overloaded, ProblemError


class NoRoom(NotFound):
    title = "The sale has no waiting room"


class RoomNotOpen(ProblemError):
    code = "room_not_open"
    status = 403
    title = "The waiting room is not open yet"


class RoomEnded(ProblemError):
    code = "room_ended"
    status = 410
    title = "The waiting room has ended"


class RoomFull(Overloaded):
    title = "The waiting room takes no more people"
    retry_after_s = 30


class RoomTicketsUnavailable(NotReady):
    title = "The shop cannot sign tickets of waiting rooms"


class AccountTooNew(ProblemError):
    code = "account_too_new"
    status = 403
    title = "The account is too new to take part"


class TicketInvalid(ProblemError):
    code = "ticket_invalid"
    status = 403
    title = "The ticket of the waiting room is not valid here"


class NotYourTurn(ProblemError):
    """The customer has to wait, or to join first."""

    code = "not_your_turn"
    status = 403
    title = "It is not your turn yet"

    def __init__(self, detail: str, retry_after_s: int, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.headers = (("Retry-After", str(retry_after_s)),)


class TurnMissed(ProblemError):
    code = "turn_missed"
    status = 403
    title = "Your turn is over"


class InvalidRoomState(Conflict):
    code = "invalid_room_state"
    title = "The waiting room's state does not allow this"
