"""The report of screening for staff, and clearings. On the admin port."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web

from commerce.kernel.paging import Page
from commerce.screening.model import (
    ClearInput,
    Cursor,
    RevokeInput,
    ScreenedUser,
    ScreenedUserDetails,
    Signal,
    UserId,
)
from gateway.endpoints.parameters import LIMIT, SALE, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_PATH = "/v1/admin/sales/{sale_id}/screening"
_USER = Parameter(
    name="user_id",
    location="path",
    type=UserId,
    description="the customer",
)
_MIN_SCORE = Parameter(
    name="min_score",
    location="query",
    type=Annotated[int, msgspec.Meta(ge=1, le=100)],
    description="only customers with this score or more",
)
_SIGNAL = Parameter(name="signal", location="query", type=Signal, description="only customers with this signal")
_CLEARED = Parameter(
    name="cleared", location="query", type=bool, description="only customers who are cleared now, or only the others"
)


async def list_screened_users(call: Call) -> web.Response:
    """List the scored customers of a sale with the reasons, highest score first."""
    parameters = call.parameters
    page = await call.services.screening.list_users(
        parameters["sale_id"],
        parameters["cursor"],
        page_size(call),
        min_score=parameters["min_score"] or 1,
        signal=parameters["signal"],
        is_cleared=parameters["cleared"],
    )
    return json_response(page)


async def get_screened_user(call: Call) -> web.Response:
    """Read a customer's score in a sale with its reasons, and all decisions of staff."""
    return json_response(await call.services.screening.get(call.parameters["sale_id"], call.parameters["user_id"]))


async def clear_screened_user(call: Call) -> web.Response:
    """Clear a customer: until the given moment his score leads to nothing.

    Gateways follow within two seconds. The reason and you are recorded. A customer may be cleared before he comes.
    """
    body: ClearInput = call.body
    sale_id, user_id = call.parameters["sale_id"], call.parameters["user_id"]
    return json_response(
        await call.services.screening.clear(sale_id, user_id, body.reason, body.until, call.staff_actor)
    )


async def revoke_clearing(call: Call) -> web.Response:
    """Revoke a clearing: the score counts again. The reason and you are recorded."""
    sale_id, user_id = call.parameters["sale_id"], call.parameters["user_id"]
    return json_response(await call.services.screening.revoke(sale_id, user_id, call.body.reason, call.staff_actor))


_operation = partial(Operation, tag="screening", access="support")
_USER_PATH = f"{_PATH}/{{user_id}}"
_DETAILS = {200: ("the customer with all decisions", ScreenedUserDetails)}

ADMIN = [
    _operation(
        method="GET",
        access="support_read",
        path=_PATH,
        handler=list_screened_users,
        summary="List scored customers",
        answers={200: ("a page", Page[ScreenedUser])},
        problems=(503,),
        also_for=("sales",),
        parameters=(SALE, _MIN_SCORE, _SIGNAL, _CLEARED, cursor_parameter(Cursor), LIMIT),
    ),
    _operation(
        method="GET",
        access="support_read",
        path=_USER_PATH,
        handler=get_screened_user,
        summary="Read a scored customer",
        answers=_DETAILS,
        problems=(404, 503),
        also_for=("sales",),
        parameters=(SALE, _USER),
    ),
    _operation(
        method="POST",
        path=f"{_USER_PATH}/clear",
        handler=clear_screened_user,
        summary="Clear a customer",
        answers=_DETAILS,
        problems=(404, 503),
        parameters=(SALE, _USER),
        body=ClearInput,
        is_one_transaction=True,
    ),
    _operation(
        method="POST",
        path=f"{_USER_PATH}/revoke",
        handler=revoke_clearing,
        summary="Revoke a clearing",
        answers=_DETAILS,
        problems=(404, 409, 503),
        parameters=(SALE, _USER),
        body=RevokeInput,
        is_one_transaction=True,
    ),
]
