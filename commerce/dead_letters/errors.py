"""Errors of dead letters."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchDeadLetter(NotFound):
    title = "There is no such dead letter"


class DeadLetterResolved(Conflict):
    code = "dead_letter_resolved"
    title = "The dead letter was retried or discarded before"
