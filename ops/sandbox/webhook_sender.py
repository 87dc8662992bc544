"""Sender of webhooks: retries with growing waits until a webhook is accepted, to allowed hosts only."""

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
_MAX_PAUSE_S = 1.0
MAX_ATTEMPTS = 15
_RETRY_WAITS_S = (15, 15, 30, 180, 600, 1_200, 1_800, 1_800, 1_800, 3_600, 10_800, 10_800, 10_800, 21_600)


@dataclass(frozen=True)
class SenderSettings:
    """Settings for sending webhooks. Only `hosts` receive any, so nothing leaves the machine by mistake."""

    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    timeout_s: float = 5.0
    concurrency: int = 32
    max_retry_wait_s: float = 60.0
    """Upper limit of the growing waits between attempts."""


class OutgoingWebhook(NamedTuple):
    """URL, headers and body of a webhook."""

    url: str
    headers: dict[str, str]
    body: bytes


class DueWebhook(Protocol):
    """A webhook that is due, and the number of attempts so far."""

    @property
    def webhook_id(self) -> str: ...
    @property
    def attempts(self) -> int: ...


W = TypeVar("W", bound=DueWebhook)


class WebhookQueue(Protocol[W]):
    """Source of due webhooks, with work of its own that is done between the attempts."""

    @property
    def wake(self) -> asyncio.Event:
        """Event that is set when there is new work."""
        ...

    def process_due(self) -> None:
        """Do due work other than sending, in limited portions."""
        ...

    def find_next_due_ms(self, now_ms: int) -> int | None:
        """Return the earliest time after `now_ms` of a webhook, or at which `process_due` has more to do."""
        ...

    def list_due_webhooks(self, now_ms: int, limit: int) -> Sequence[W]: ...

    def build_webhook(self, due_webhook: W) -> OutgoingWebhook: ...

    def is_accepted(self, due_webhook: W, status: int, body: bytes) -> bool: ...

    def mark_attempted(self, due_webhook: W, *, done: bool, retry_ms: int) -> None:
        """Record an attempt: the webhook is done, or due again at `retry_ms`."""
        ...


class WebhookSender(Generic[W]):
    """Sends the webhooks of one queue concurrently."""

    def __init__(self, queue: WebhookQueue[W], clock: Clock, settings: SenderSettings) -> None:
        self._queue = queue
        self._clock = clock
        self._settings = settings
        self._in_flight: dict[str, asyncio.Task[bool]] = {}

    async def run(self) -> None:
        """Send webhooks until cancelled. Attempts in flight at that moment are repeated after the next start."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._settings.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as client:
            try:
                while True:
                    self._queue.wake.clear()
                    self._queue.process_due()
                    self._start_due(client)
                    await self._pause()
            finally:
                await asyncio.gather(*(cancel_and_wait(task) for task in self._in_flight.values()))

    async def _pause(self) -> None:
        now_ms = self._clock.now_ms()
        next_ms = self._queue.find_next_due_ms(now_ms)
        wait_s = _MAX_PAUSE_S if next_ms is None else min((next_ms - now_ms) / 1_000, _MAX_PAUSE_S)
        if wait_s <= 0:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._queue.wake.wait()

    def _start_due(self, client: aiohttp.ClientSession) -> None:
        for due_webhook in self._queue.list_due_webhooks(self._clock.now_ms(), self._settings.concurrency * 2):
            if len(self._in_flight) >= self._settings.concurrency:
                return
            if due_webhook.webhook_id not in self._in_flight:
                task = asyncio.create_task(self._send(client, due_webhook))
                self._in_flight[due_webhook.webhook_id] = task
                task.add_done_callback(
                    lambda task, due_webhook=due_webhook: self._record_attempt(due_webhook, task)  # type: ignore[misc]
                )

    async def _send(self, client: aiohttp.ClientSession, due_webhook: W) -> bool:
        """Return True if the shop accepted the webhook. Raises the errors of the HTTP client."""
        webhook = self._queue.build_webhook(due_webhook)
        if urlsplit(webhook.url).hostname not in self._settings.hosts:
            raise aiohttp.InvalidURL(urlsplit(webhook.url).netloc, "the host is not allowed; see --webhook-host")
        async with client.post(
            webhook.url, data=webhook.body, headers=webhook.headers, allow_redirects=False
        ) as response:
            return self._queue.is_accepted(due_webhook, response.status, await response.content.read(65_536))

    def _record_attempt(self, due_webhook: W, task: asyncio.Task[bool]) -> None:
        del self._in_flight[due_webhook.webhook_id]
        if task.cancelled():
            return
        error = task.exception()
        is_accepted = error is None and task.result()
        attempts = due_webhook.attempts + 1
        if not is_accepted:
            is_expected = error is None or isinstance(error, aiohttp.ClientError | TimeoutError | ValueError)
            _logger.log(
                logging.INFO if is_expected else logging.ERROR,
                "webhook not accepted",
                exc_info=None if is_expected else error,
                extra={"webhook_id": due_webhook.webhook_id, "attempts": attempts, "reason": repr(error)},
            )
        wait_s = min(
            _RETRY_WAITS_S[min(due_webhook.attempts, len(_RETRY_WAITS_S) - 1)], self._settings.max_retry_wait_s
        )
        retry_ms = self._clock.now_ms() + int(wait_s * 1_000)
        self._queue.mark_attempted(due_webhook, done=is_accepted or attempts >= MAX_ATTEMPTS, retry_ms=retry_ms)
        self._queue.wake.set()
