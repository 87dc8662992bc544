"""Responses to reads that are answered without aiohttp."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

from commerce.kernel.errors import NotReady, ProblemError
from commerce.kernel.outages import DATABASES_UNAVAILABLE
from commerce.kernel.postgres import safe_error_text
from gateway import problems
from gateway.cached_content import Content, has_content
from gateway.fast_path_responses import ResponseHeads
from gateway.metrics_buffer import MetricsBuffer
from gateway.visit_counts import VisitCounts

_logger = logging.getLogger(__name__)


class PendingRead(NamedTuple):
    """A GET without its answer. `send` takes the response, once."""

    route: str
    path: str
    client_tags: bytes | None
    """value of If-None-Match"""
    request_id: str
    send: Callable[[bytes], None]
    started: float
    """time of perf_counter"""


class ReadResponder:
    """Writes and counts the responses."""

    def __init__(self, heads: ResponseHeads, metrics_buffer: MetricsBuffer, visits: VisitCounts) -> None:
        self._heads = heads
        self._metrics_buffer = metrics_buffer
        self._visits = visits

    def send_content(self, read: PendingRead, content: Content) -> None:
        """Answer with this content, or with 304 if the client has it."""
        now = perf_counter()
        if read.client_tags is not None and has_content(read.client_tags.decode("latin-1"), content.tag):
            status, start, body = 304, self._heads.response_start(304, now), b""
        else:
            status, body = 200, content.body
            start = f"{self._heads.response_head(200, now, 'application/json')}{len(body)}\r\n"
        self._metrics_buffer.count_request(read.route, "GET", status, now - read.started)
        self._visits.note_read(read.route, read.path)
        head = (
            f"{start}ETag: {content.tag}\r\nCache-Control: {content.cache_control}\r\n"
            f"X-Request-Id: {read.request_id}\r\n\r\n"
        )
        read.send(head.encode("latin-1") + body)

    def send_failure(self, read: PendingRead, error: Exception) -> None:
        """Answer with the problem that an error stands for."""
        context = {"request_id": read.request_id, "method": "GET", "path": read.path}
        if isinstance(error, ProblemError):
            response = problems.raw_problem(error, read.request_id)
        elif isinstance(error, DATABASES_UNAVAILABLE):
            _logger.warning("a dependency failed during a read", extra={**context, "reason": safe_error_text(error)})
            response = problems.raw_problem(NotReady(problems.UNAVAILABLE_TO_READ), read.request_id)
        else:
            _logger.error("a read failed", extra=context, exc_info=error)
            response = problems.raw_internal_error(read.request_id)
        now = perf_counter()
        if response.status >= 500:
            _logger.warning("answered with a server error", extra={**context, "status": response.status})
        self._metrics_buffer.count_request(read.route, "GET", response.status, now - read.started)
        headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers)
        head = (
            f"{self._heads.response_head(response.status, now, response.content_type)}{len(response.body)}\r\n"
            f"{headers}X-Request-Id: {read.request_id}\r\n\r\n"
        )
        read.send(head.encode("latin-1") + response.body)
