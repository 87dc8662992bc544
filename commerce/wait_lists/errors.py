"""Errors of wait-lists, for customers and staff."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, Overloaded, ProblemError


class NoWaitList(NotFound):
    title = "The sale has no wait-list"


class NotOnWaitList(NotFound):
    title = "You do not wait for this"


class StillAvailable(Conflict):
    code = "still_available"
    title = "There are units to order, so nobody waits for them"


class WaitListFull(Overloaded):
    title = "The wait-list takes no more people"
    retry_after_s = 30


class WaitListEnded(ProblemError):
    code = "wait_list_ended"
    status = 410
    title = "The wait-list has ended"


class InvalidWaitListState(Conflict):
    code = "invalid_wait_list_state"
    title = "The wait-list's state does not allow this"
