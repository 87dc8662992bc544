"""List prices of variants: set now or for a time, with their history. For staff."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.catalog.model import PlanEnd, PlannedPrice, PriceChange, PriceInput, Variant
from commerce.catalog.prices import Prices
from commerce.kernel.paging import Page
from gateway.endpoints.parameters import LIMIT, SKU, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response


def _prices(call: Call) -> Prices:
    return call.services.product_services.prices


async def set_price(call: Call) -> web.Response:
    """Set a list price now (200: the variant), or plan it for `starts_at` (201: the plan).

    Prices in existing sales stay as they are.
    """
    result = await _prices(call).set_price(call.parameters["sku"], call.body, call.staff_actor)
    return json_response(result, 200 if isinstance(result, Variant) else 201)


async def list_prices(call: Call) -> web.Response:
    """List the list prices that a variant has had, newest first."""
    return json_response(
        await _prices(call).list_changes(call.parameters["sku"], call.parameters["cursor"], page_size(call))
    )


async def list_planned_prices(call: Call) -> web.Response:
    """List the prices that were planned for a variant, also ended ones, newest first."""
    return json_response(
        await _prices(call).list_plans(call.parameters["sku"], call.parameters["cursor"], page_size(call))
    )


async def cancel_planned_price(call: Call) -> web.Response:
    """Cancel a planned price before its time."""
    return json_response(
        await _prices(call).cancel_plan(call.parameters["plan_id"], call.body.reason, call.staff_actor)
    )


_PLAN = Parameter(name="plan_id", location="path", type=UUID, description="the id of the planned price")
_NUMBER_CURSOR = cursor_parameter(Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)])
_PATH = "/v1/admin/variants/{sku}"
_staff = partial(Operation, tag="staff: catalog", access="catalog")

ADMIN = [
    _staff(
        method="POST",
        is_one_transaction=True,
        path=f"{_PATH}/prices",
        handler=set_price,
        summary="Set or plan a list price",
        answers={200: ("the variant with its new price", Variant), 201: ("the planned price", PlannedPrice)},
        problems=(404, 409, 503),
        parameters=(SKU,),
        body=PriceInput,
    ),
    _staff(
        method="GET",
        path=f"{_PATH}/prices",
        handler=list_prices,
        summary="List the list prices of a variant",
        answers={200: ("a page", Page[PriceChange])},
        problems=(404, 503),
        parameters=(SKU, _NUMBER_CURSOR, LIMIT),
    ),
    _staff(
        method="GET",
        path=f"{_PATH}/planned-prices",
        handler=list_planned_prices,
        summary="List planned prices of a variant",
        answers={200: ("a page", Page[PlannedPrice])},
        problems=(404, 503),
        parameters=(SKU, cursor_parameter(UUID), LIMIT),
    ),
    _staff(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/planned-prices/{plan_id}/cancel",
        handler=cancel_planned_price,
        summary="Cancel a planned price",
        answers={200: ("the cancelled price", PlannedPrice)},
        problems=(404, 409, 503),
        parameters=(_PLAN,),
        body=PlanEnd,
    ),
]
