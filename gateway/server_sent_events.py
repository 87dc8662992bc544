"""Server-sent events: what happens to an order or to its parcels, as it happens.

The format is that of the HTML standard, section 9.2: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Annotated, Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from gateway.change_watcher import Topic
from gateway.operations import Call, Parameter

_HEARTBEAT_S = 15.0
LAST_EVENT = "Last-Event-ID"


def last_event_id_parameter(max_seq: int) -> Parameter:
    """Declare the header by which a client continues a stream; `max_seq` is the greatest possible event number."""
    return Parameter(
        name=LAST_EVENT,
        location="header",
        type=Annotated[int, msgspec.Meta(ge=0, le=max_seq)],
        description="the last received event; later events follow",
    )


class Numbered(Protocol):
    """Events count up."""

    @property
    def seq(self) -> int: ...


Event = TypeVar("Event", bound=Numbered)


class EventBatch(NamedTuple, Generic[Event]):
    """Events in their order: whether nothing will come after them, and whether there are more of them already."""

    events: Sequence[Event]
    final: bool
    more: bool = False


class _ClientLeft(Exception):
    """The client closed its event stream; not to be taken for a database that went away."""


async def stream_events(
    call: Call,
    topic: Topic,
    order_id: UUID,
    kind: str,
    fetch: Callable[[int], Awaitable[EventBatch[Event]]],
) -> web.StreamResponse:
    """Send events until there will be no more. `fetch` takes the seq of the last one that was sent (-1: none was), and
    gives those that came after it; it may give earlier ones too. 204 where nothing will come."""
    services = call.services
    last = call.parameters[LAST_EVENT]
    seen = -1 if last is None else last
    with services.watcher.subscribe(topic, order_id) as moved:
        batch = await fetch(seen)
        if batch.final and not any(event.seq > seen for event in batch.events):
            return web.Response(status=204)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(call.request)
        if call.request.method == "HEAD":  # whose answer ends with its headers
            return response
        deadline = services.clock.monotonic() + services.settings.limits.event_stream_max_s
        with suppress(_ClientLeft):  # which is how most streams end
            while True:
                for event in batch.events:
                    if event.seq > seen:
                        data = msgspec.json.encode(event).decode()
                        await _write(response, f"id: {event.seq}\nevent: {kind}\ndata: {data}\n\n".encode())
                        seen = event.seq
                left_s = deadline - services.clock.monotonic()
                if batch.final or services.stopping.is_set() or left_s <= 0:
                    break
                if not batch.more:
                    try:
                        await asyncio.wait_for(moved.wait(), min(_HEARTBEAT_S, left_s))
                    except TimeoutError:
                        await _write(response, b": still here\n\n")
                moved.clear()  # before the look, so that what happens during it is looked for again
                batch = await fetch(seen)
        return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        await response.write(data)
    except ConnectionError:
        raise _ClientLeft from None
