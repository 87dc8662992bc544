"""Sends what providers and carriers have to tell the shop, until it is accepted: to allowed hosts only, with growing
waits between the attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp

from commerce.kernel.clock import Clock
from commerce.kernel.tasks import cancel_and_wait

_logger = logging.getLogger(__name__)
_LONGEST_WAIT_S = 1.0
ATTEMPTS = 15
_WAITS_S = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600)


@dataclass(frozen=True)
class Sending:
    """How callbacks are sent. They go to these hosts only: nothing of a sandbox leaves the machine by mistake."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    timeout_s: float = 5.0
    concurrency: int = 32
    longest_wait_s: float = 60.0
    """Caps the growing waits between the attempts."""


class OutgoingWebhook(NamedTuple):
    """A callback as it goes over the wire."""

    url: str
    headers: dict[str, str]
    body: bytes


class Due(Protocol):
    """Something that is to be sent, and how often that was tried."""

    @property
    def notice_id(self) -> str: ...
    @property
    def attempts(self) -> int: ...


D = TypeVar("D", bound=Due)


class WebhookQueue(Protocol[D]):
    """What there is to send, and to do between."""

    @property
    def wake(self) -> asyncio.Event:
        """Set when there is something new to do."""
        ...

    def turn(self) -> None:
        """Do what is due and is no sending; not too much at a time."""
        ...

    def next_ms(self, now_ms: int) -> int | None:
        """When something will be due that is not due yet, or `turn` has more to do."""
        ...

    def due(self, now_ms: int, limit: int) -> Sequence[D]: ...

    def letter(self, due: D) -> OutgoingWebhook: ...

    def is_accepted(self, due: D, status: int, body: bytes) -> bool: ...

    def noted(self, due: D, *, done: bool, again_ms: int) -> None:
        """It was tried: it is done with, or due again."""
        ...


class WebhookSender(Generic[D]):
    """Does one kind of work."""

    def __init__(self, work: WebhookQueue[D], clock: Clock, sending: Sending) -> None:
        self._work = work
        self._clock = clock
        self._sending = sending
        self._in_flight: dict[str, asyncio.Task[bool]] = {}

    async def run(self) -> None:
        """Until it is cancelled; callbacks that are under way then are sent again after the next start."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._sending.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._sending.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as client:
            try:
                while True:
                    self._work.wake.clear()
                    self._work.turn()
                    self._send_due(client)
                    await self._pause()
            finally:
                await asyncio.gather(*(cancel_and_wait(task) for task in self._in_flight.values()))

    async def _pause(self) -> None:
        now_ms = self._clock.now_ms()
        next_ms = self._work.next_ms(now_ms)
        wait_s = _LONGEST_WAIT_S if next_ms is None else min((next_ms - now_ms) / 1_000, _LONGEST_WAIT_S)
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._work.wake.wait()

    def _send_due(self, client: aiohttp.ClientSession) -> None:
        for due in self._work.due(self._clock.now_ms(), self._sending.concurrency * 2):
            if len(self._in_flight) >= self._sending.concurrency:
                return
            if due.notice_id not in self._in_flight:
                task = asyncio.create_task(self._send(client, due))
                self._in_flight[due.notice_id] = task
                task.add_done_callback(lambda task, due=due: self._over(due, task))  # type: ignore[misc]

    async def _send(self, client: aiohttp.ClientSession, due: D) -> bool:
        """Whether the shop accepted it. Raises what an HTTP client raises."""
        letter = self._work.letter(due)
        if urlsplit(letter.url).hostname not in self._sending.hosts:
            raise aiohttp.InvalidURL(urlsplit(letter.url).netloc, "callbacks may not be sent to this host")
        async with client.post(letter.url, data=letter.body, headers=letter.headers, allow_redirects=False) as answer:
            return self._work.is_accepted(due, answer.status, await answer.content.read(65_536))

    def _over(self, due: D, task: asyncio.Task[bool]) -> None:
        del self._in_flight[due.notice_id]
        if task.cancelled():
            return
        error = task.exception()
        accepted = error is None and task.result()
        attempts = due.attempts + 1
        if not accepted:
            expected = error is None or isinstance(error, aiohttp.ClientError | TimeoutError | ValueError)
            _logger.log(
                logging.INFO if expected else logging.ERROR,
                "a callback was not accepted",
                exc_info=None if expected else error,
                extra={"notice_id": due.notice_id, "attempts": attempts, "why": repr(error)},
            )
        wait_s = min(_WAITS_S[min(due.attempts, len(_WAITS_S) - 1)], self._sending.longest_wait_s)
        again_ms = self._clock.now_ms() + int(wait_s * 1_000)
        self._work.noted(due, done=accepted or attempts >= ATTEMPTS, again_ms=again_ms)
        self._work.wake.set()
