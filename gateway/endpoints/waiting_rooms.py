"""Waiting rooms: everybody's page, joining, leaving, and the file of the draw."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from aiohttp import web

from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.errors import NotReady
from commerce.waiting_rooms.errors import AccountTooNew, RoomEnded, RoomFull, RoomNotOpen
from commerce.waiting_rooms.model import PublicRoom, Room, RoomPlace
from commerce.waiting_rooms.tickets import hash_of
from gateway import metrics
from gateway.auth import Identity
from gateway.cached_content import content_response
from gateway.endpoints.parameters import IF_NONE_MATCH, ROOM_TICKET, SALE
from gateway.operations import Call, Operation, json_response
from gateway.room_status import expected_wait_s
from lua import JoinOutcome

_TICKET_LIFETIME = timedelta(days=1)
_DRAW_MAX_AGE_S, _DOWNLOAD_TIMEOUT_S = 5, 300


async def get_room(call: Call) -> web.Response:
    """Read the state of a sale's waiting room, the same for everybody.

    With the number of your ticket it says how many are before you and how long you will wait: see PublicRoom.
    """
    return content_response(
        call.parameters[IF_NONE_MATCH.name], call.services.room_status.page(call.parameters["sale_id"])
    )


async def join_room(call: Call) -> web.Response:
    """Join the waiting room of a sale: any device and any repeat gets the same place.

    Who joins before the list closes gets a number in the draw; join again then to learn it. Who joins later stands at
    the end. Send your last ticket along, if you have one: it proves your place.
    """
    services, user_id = call.services, call.identity.subject
    room = services.room_status.find(call.parameters["sale_id"])
    now_ms = services.clock.now_ms()
    _check_may_join(room, call.identity, now_ms)
    tickets, ticket = services.room_status.tickets, call.parameters[ROOM_TICKET.name]
    shown = tickets.verify(room.sale_id, user_id, ticket, now_ms / 1000) if ticket else None
    ticket_hash, nonce = hash_of(room.salt, room.sale_id, user_id)
    outcome, number = await services.room_joins.join(room, ticket_hash, shown or 0)
    metrics.ROOM_JOINS.labels(outcome.name.lower()).inc()
    if outcome is JoinOutcome.FULL:
        raise RoomFull(f"the room takes {room.max_waiting} people and is full; try again later")
    if outcome is JoinOutcome.NOT_READY:
        raise NotReady("the room is being prepared; repeat the request")
    expires_ms = max(now_ms, to_ms(room.opens_at)) + _TICKET_LIFETIME // timedelta(milliseconds=1)
    place = RoomPlace(
        sale_id=room.sale_id,
        state=room.state,
        ticket=tickets.sign(room.sale_id, user_id, number, expires_ms // 1000),
        number=number or None,
        ahead=max(0, number - room.served - 1) if number else None,
        expected_wait_s=expected_wait_s(room, number),
        ticket_hash=ticket_hash.hex(),
        nonce=nonce.hex(),
    )
    return json_response(place, headers={"Cache-Control": "no-store"})


async def leave_room(call: Call) -> web.Response:
    """Leave the waiting room: your place is given up. A repeat changes nothing."""
    room = call.services.room_status.find(call.parameters["sale_id"])
    ticket_hash, _ = hash_of(room.salt, room.sale_id, call.identity.subject)
    if await call.services.room_joins.leave(room, ticket_hash):
        metrics.ROOM_JOINS.labels("left").inc()
    return web.Response(status=204)


async def read_draw(call: Call) -> web.StreamResponse:
    """Download the closed list of ticket hashes, after the draw in the order of the places.

    `floodgate draw verify FILE` or `python draw.py FILE` checks it.
    """
    parts = call.services.rooms.draw_file(call.parameters["sale_id"])
    with call.services.room_status.draw_download():
        first = await anext(parts)  # before the answer begins: this may be refused
        headers = {"Cache-Control": f"public, max-age={_DRAW_MAX_AGE_S}", "Content-Type": "text/plain; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        async with asyncio.timeout(_DOWNLOAD_TIMEOUT_S):
            await response.write(first)
            async for part in parts:
                await response.write(part)
            await response.write_eof()
        return response


def _check_may_join(room: Room, identity: Identity, now_ms: int) -> None:
    if room.state == "ended":
        raise RoomEnded("everything is sold, or the sale is over: nobody waits any more")
    if now_ms < to_ms(room.join_opens_at):
        text = room.join_opens_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        raise RoomNotOpen(f"the waiting room opens at {text}", opens_at=text)
    if room.min_account_age_s:
        if identity.account_created_s is None:
            raise AccountTooNew("this sale asks for the age of the account: the token needs `account_created_at`")
        newest = from_ms(to_ms(room.list_closes_at) - room.min_account_age_s * 1000)
        if identity.account_created_s > to_ms(newest) // 1000:
            raise AccountTooNew(f"only accounts created before {newest:%Y-%m-%dT%H:%M:%SZ} take part")


_PATH = "/v1/sales/{sale_id}/room"
_operation = partial(Operation, tag="waiting rooms")

OPERATIONS = [
    _operation(
        method="GET",
        path=_PATH,
        handler=get_room,
        summary="Read the waiting room",
        access="anyone",
        answers={200: ("current content", PublicRoom), 304: ("unchanged since the ETag of the client", None)},
        problems=(404,),
        parameters=(SALE, IF_NONE_MATCH),
    ),
    _operation(
        method="POST",
        path=_PATH,
        handler=join_room,
        summary="Join the waiting room",
        access="customer",
        answers={200: ("the customer's place", RoomPlace)},
        problems=(401, 403, 404, 410, 429, 503),
        parameters=(SALE, ROOM_TICKET),
        admit=True,
    ),
    _operation(
        method="DELETE",
        path=_PATH,
        handler=leave_room,
        summary="Leave the waiting room",
        access="customer",
        answers={204: ("the customer is not in the room", None)},
        problems=(401, 404, 429, 503),
        parameters=(SALE,),
        admit=True,
    ),
    _operation(
        method="GET",
        path=f"{_PATH}/draw",
        handler=read_draw,
        summary="Download the draw",
        access="anyone",
        answers={200: ("a line of JSON, then a ticket hash per line", None)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        content_type="text/plain",
    ),
]
