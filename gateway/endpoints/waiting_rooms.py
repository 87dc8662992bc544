"""Waiting rooms: everybody's page, joining, leaving, and the file of the draw."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial

from aiohttp import web

from commerce.kernel.postgres import POSTGRES_UNAVAILABLE_OR_BUSY
from commerce.waiting_rooms.errors import InvalidRoomState
from commerce.waiting_rooms.model import PublicRoom, RoomPlace
from gateway.cached_content import content_response
from gateway.endpoints.parameters import IF_NONE_MATCH, PROOF_OF_WORK, ROOM_TICKET, SALE
from gateway.operations import Call, Operation, json_response
from gateway.request_origin import origin_of_request
from gateway.room_entrance import JoinRequest

_TICKET_LIFETIME = timedelta(days=1)
_DRAW_MAX_AGE_S = 5
# A part has up to 266 KB: a client that takes less than 27 KB/s makes room for another.
_DOWNLOAD_TIMEOUT_S, _PART_TIMEOUT_S = 300, 10


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
    the end. Send your last ticket along, if you have one: it proves your place. A `proof_required` has a `challenge`:
    solve it and join again.
    """
    services, parameters = call.services, call.parameters
    origin = origin_of_request(call.request, services.client_addresses)
    request = JoinRequest(call.identity, parameters[ROOM_TICKET.name], parameters[PROOF_OF_WORK.name], origin)
    place = await services.room_entrance.join(parameters["sale_id"], request)
    return json_response(place, headers={"Cache-Control": "no-store"})


async def leave_room(call: Call) -> web.Response:
    """Leave the waiting room: the next person is let in for you. A repeat changes nothing.

    Joining again takes your number back until its turn is over.
    """
    await call.services.room_entrance.leave(call.parameters["sale_id"], call.identity.subject)
    return web.Response(status=204)


async def read_draw(call: Call) -> web.StreamResponse:
    """Download the closed list of ticket hashes, after the draw in the order of the places.

    `floodgate draw verify FILE` or `python draw.py FILE` checks it.
    """
    parts = call.services.rooms.draw_file(call.parameters["sale_id"])
    address = call.services.client_addresses.find(call.request).address
    with call.services.room_status.draw_download(address):
        first = await anext(parts)  # before the answer begins: this may be refused
        headers = {"Cache-Control": f"public, max-age={_DRAW_MAX_AGE_S}", "Content-Type": "text/plain; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(call.request)
        try:
            async with asyncio.timeout(_DOWNLOAD_TIMEOUT_S):
                await _write(response, first)
                async for part in parts:
                    await _write(response, part)
                await response.write_eof()
        except (TimeoutError, InvalidRoomState, *POSTGRES_UNAVAILABLE_OR_BUSY):
            # The answer has begun, so it cannot become a problem. It breaks off, which no client takes for a file.
            if call.request.transport is not None:
                call.request.transport.abort()
        return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(_PART_TIMEOUT_S):
        await response.write(data)


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
        parameters=(SALE, ROOM_TICKET, PROOF_OF_WORK),
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
        problems=(404, 409, 429, 503),
        parameters=(SALE,),
        content_type="text/plain",
    ),
]
