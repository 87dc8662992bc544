"""Wait-lists: everybody's page, joining, one's own place, leaving; and staff's settings."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.wait_lists.model import (
    ChangedWaitListSettings,
    PublicWaitList,
    WaitList,
    WaitListJoin,
    WaitListPlace,
    WaitListSettings,
)
from gateway.cached_content import content_response
from gateway.endpoints.parameters import IF_NONE_MATCH, SALE, SKU
from gateway.operations import Call, Operation, json_response

_NO_STORE = {"Cache-Control": "no-store"}


async def get_wait_list(call: Call) -> web.Response:
    """Read the state of a sale's wait-list, the same for everybody.

    With your number it says how many are before you: see PublicWaitList.
    """
    content = call.services.wait_lists.status.page(call.parameters["sale_id"])
    return content_response(call.parameters[IF_NONE_MATCH.name], content)


async def join_wait_list(call: Call) -> web.Response:
    """Wait for a SKU that is sold out: any device and any repeat gets the same number.

    Returned units are offered in order of the numbers. Nobody waits while a unit is free (`still_available`).
    """
    services, sale_id, user_id = call.services, call.parameters["sale_id"], call.identity.subject
    if (refusal := services.screening_actions.check_order(sale_id, user_id)) is not None:
        raise refusal  # his order would be refused, and the offer would lapse
    place = await services.wait_lists.join(sale_id, user_id, call.body)
    return json_response(place, headers=_NO_STORE)


async def get_wait_list_place(call: Call) -> web.Response:
    """Read your last place for a SKU: your number, or what is offered to you and until when."""
    entrance = call.services.wait_lists
    place = await entrance.get_place(call.parameters["sale_id"], call.parameters["sku"], call.identity.subject)
    return json_response(place, headers=_NO_STORE)


async def leave_wait_list(call: Call) -> web.Response:
    """Give up your place for a SKU, or what is offered to you. A repeat changes nothing."""
    entrance = call.services.wait_lists
    await entrance.leave(call.parameters["sale_id"], call.parameters["sku"], call.identity.subject)
    return web.Response(status=204)


async def put_wait_list(call: Call) -> web.Response:
    """Set up the wait-list of a sale, or replace its settings.

    Members that are left out get their defaults. Off, it ends all places, and what is offered or held back goes on
    sale.
    """
    return json_response(
        await call.services.wait_lists.service.put(call.parameters["sale_id"], call.body, call.staff_actor)
    )


async def change_wait_list(call: Call) -> web.Response:
    """Change settings of the wait-list of a sale; what is left out stays.

    Off, it ends all places, and what is offered or held back goes on sale.
    """
    return json_response(
        await call.services.wait_lists.service.change(call.parameters["sale_id"], call.body, call.staff_actor)
    )


async def show_wait_list(call: Call) -> web.Response:
    """Read the settings of a wait-list and its counts by SKU."""
    return json_response(await call.services.wait_lists.service.get(call.parameters["sale_id"]))


_PATH = "/v1/sales/{sale_id}/wait-list"
_PLACE_PATH = f"{_PATH}/{{sku}}"
_ADMIN_PATH = "/v1/admin/sales/{sale_id}/wait-list"
_operation = partial(Operation, tag="wait-lists")
_sales = partial(Operation, tag="staff: sales", access="sales")

OPERATIONS = [
    _operation(
        method="GET",
        path=_PATH,
        handler=get_wait_list,
        summary="Read the wait-list",
        access="anyone",
        answers={200: ("current content", PublicWaitList), 304: ("unchanged since the ETag of the client", None)},
        problems=(404,),
        parameters=(SALE, IF_NONE_MATCH),
    ),
    _operation(
        method="POST",
        path=_PATH,
        handler=join_wait_list,
        summary="Join the wait-list",
        access="customer",
        answers={200: ("the customer's place", WaitListPlace)},
        problems=(401, 403, 404, 409, 410, 429, 503),
        parameters=(SALE,),
        body=WaitListJoin,
        admit=True,
    ),
    _operation(
        method="GET",
        path=_PLACE_PATH,
        handler=get_wait_list_place,
        summary="Read your place",
        access="customer",
        answers={200: ("the customer's place", WaitListPlace)},
        problems=(401, 404, 503),
        parameters=(SALE, SKU),
    ),
    _operation(
        method="DELETE",
        path=_PLACE_PATH,
        handler=leave_wait_list,
        summary="Leave the wait-list",
        access="customer",
        answers={204: ("the customer does not wait for the SKU", None)},
        problems=(401, 404, 429, 503),
        parameters=(SALE, SKU),
        admit=True,
    ),
]

ADMIN = [
    _sales(
        method="GET",
        path=_ADMIN_PATH,
        handler=show_wait_list,
        summary="Show the wait-list",
        answers={200: ("the wait-list", WaitList)},
        problems=(404, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="PUT",
        path=_ADMIN_PATH,
        handler=put_wait_list,
        summary="Set up the wait-list",
        answers={200: ("the wait-list", WaitList)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=WaitListSettings,
    ),
    _sales(
        method="PATCH",
        path=_ADMIN_PATH,
        handler=change_wait_list,
        summary="Change the wait-list",
        answers={200: ("the wait-list", WaitList)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=ChangedWaitListSettings,
    ),
]
