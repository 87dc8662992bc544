"""Certificates as rights need them."""

from __future__ import annotations

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Connection
from commerce.training import store


class QuizCertificates:
    """Certificates of passed quizzes, by the quiz's code.

    Nothing is kept in memory: a new one counts at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def has_certificate(self, connection: Connection, actor: str, code: str) -> bool:
        """Tell whether a person, such as `staff anna`, has a certificate that is valid now."""
        person = actor.removeprefix("staff ")
        now = from_ms(self._clock.now_ms())
        return bool(await store.list_certificates(connection, now, 1, person=person, codes=[code], only_valid=True))
