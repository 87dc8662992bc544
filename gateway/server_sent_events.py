"""Server-sent events of an order or of its shipments, as they happen.

The format is that of the HTML standard, section 9.2: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Annotated, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY, safe_error_text
from gateway.change_watcher import Topic
from gateway.operations import Call, Parameter

_logger = logging.getLogger(__name__)
_HEARTBEAT_S = 15.0
_RETRY_MS = 2_000
# A comment and no empty line: after an empty line httpx-sse reports an event, with nothing in it.
_HEARTBEAT = b": heartbeat\n"
LAST_EVENT = "Last-Event-ID"


def last_event_id_parameter(max_seq: int) -> Parameter:
    """Declare the header by which a client continues a stream; `max_seq` is the last possible number."""
    return Parameter(
        name=LAST_EVENT,
        location="header",
        type=Annotated[int, msgspec.Meta(ge=0, le=max_seq)],
        description="the last received event; later events follow",
    )


class Numbered(Protocol):
    """An event with a number that rises within its stream."""

    @property
    def seq(self) -> int: ...


Event = TypeVar("Event", bound=Numbered)


class EventBatch(NamedTuple, Generic[Event]):
    """Events by number. `final`: no event follows; `more`: others are stored already."""

    events: Sequence[Event]
    final: bool
    more: bool = False


class _ClientLeft(Exception):
    """The client closed its event stream; a type of its own, so that it is not taken for a lost database."""


async def stream_events(
    call: Call,
    topic: Topic,
    order_id: UUID,
    kind: str,
    fetch: Callable[[int], Awaitable[EventBatch[Event]]],
) -> web.StreamResponse:
    """Send events until no more will follow, or answer 204 if none will.

    `fetch` takes the seq of the last event sent (-1: none) and returns the later ones; earlier ones are ignored.
    """
    services = call.services
    last_event_id = call.parameters[LAST_EVENT]
    last_seq = -1 if last_event_id is None else last_event_id
    address = services.client_addresses.find(call.request).address
    with services.watcher.subscribe(topic, order_id, user_id=call.identity.subject, address=address) as changed:
        batch = await fetch(last_seq)
        if batch.final and not any(event.seq > last_seq for event in batch.events):
            return web.Response(status=204)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(call.request)
        if call.request.method == "HEAD":  # its answer ends with the headers
            return response
        deadline = services.clock.monotonic() + services.settings.limits.event_stream_max_s
        with suppress(_ClientLeft):  # most streams end so
            await _write(response, f"retry: {_RETRY_MS}\n".encode())  # part of the first event, for the same reason
            while True:
                for event in batch.events:
                    if event.seq > last_seq:
                        data = msgspec.json.encode(event).decode()
                        await _write(response, f"id: {event.seq}\nevent: {kind}\ndata: {data}\n\n".encode())
                        last_seq = event.seq
                left_s = deadline - services.clock.monotonic()
                if batch.final or services.stopping.is_set() or left_s <= 0:
                    break
                if not batch.more:
                    try:
                        await asyncio.wait_for(changed.wait(), min(_HEARTBEAT_S, left_s))
                    except TimeoutError:
                        await _write(response, _HEARTBEAT)
                changed.clear()  # before the read, so that a change during it causes another read
                try:
                    batch = await fetch(last_seq)
                except POSTGRES_UNAVAILABLE_OR_BUSY as error:
                    _logger.warning("ended an event stream", extra={"topic": topic, "reason": safe_error_text(error)})
                    break  # an answer has begun, so it cannot become a problem; the client continues the stream later
        return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        await response.write(data)
    except ConnectionError:
        raise _ClientLeft from None
