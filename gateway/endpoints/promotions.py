"""Staff operations on the promotions of sales. On the admin port, by role."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.kernel.paging import Page
from commerce.promotions.model import ChangedPromotion, Promotion, PromotionId, PromotionInput
from gateway.endpoints.parameters import LIMIT, SALE, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response


async def list_promotions(call: Call) -> web.Response:
    """List the promotions of a sale by id, disabled ones too."""
    parameters = call.parameters
    page = await call.services.promotions.list_promotions(parameters["sale_id"], parameters["cursor"], page_size(call))
    return json_response(page)


async def create_promotion(call: Call) -> web.Response:
    """Create a promotion of a sale that is not closed. A repeat changes nothing.

    No order is accepted without it after the answer, once `published_generation` of the sale equals `generation`.
    """
    sale_id = call.parameters["sale_id"]
    promotion = await call.services.promotions.create(sale_id, call.body, call.staff_actor)
    location = f"/v1/admin/sales/{sale_id}/promotions/{promotion.promotion_id}"
    return json_response(promotion, 201, {"Location": location})


async def get_promotion(call: Call) -> web.Response:
    """Read one promotion."""
    parameters = call.parameters
    return json_response(await call.services.promotions.get(parameters["sale_id"], parameters["promotion_id"]))


async def change_promotion(call: Call) -> web.Response:
    """Change a promotion; what is left out stays, and null removes a restriction. Its class stays.

    `{"enabled": false}` disables it. No order is accepted on the old terms after the answer, once
    `published_generation` of the sale equals `generation`.
    """
    parameters = call.parameters
    promotion = await call.services.promotions.change(
        parameters["sale_id"], parameters["promotion_id"], call.body, call.staff_actor
    )
    return json_response(promotion)


async def delete_promotion(call: Call) -> web.Response:
    """Delete a promotion of a draft. That of an opened sale can only be disabled: its orders may name it."""
    parameters = call.parameters
    await call.services.promotions.delete(parameters["sale_id"], parameters["promotion_id"], call.staff_actor)
    return web.Response(status=204)


_PATH = "/v1/admin/sales/{sale_id}/promotions"
_PROMOTION_PATH = f"{_PATH}/{{promotion_id}}"
_PROMOTION = Parameter(name="promotion_id", location="path", type=PromotionId, description="the promotion's id")
_ANSWER = {200: ("the promotion", Promotion)}
_sales = partial(Operation, tag="staff: sales", access="sales")

ADMIN = [
    _sales(
        method="GET",
        path=_PATH,
        handler=list_promotions,
        summary="List promotions",
        answers={200: ("a page", Page[Promotion])},
        problems=(404, 503),
        parameters=(SALE, cursor_parameter(PromotionId), LIMIT),
    ),
    _sales(
        method="POST",
        path=_PATH,
        handler=create_promotion,
        summary="Create a promotion",
        answers={201: ("the promotion", Promotion)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=PromotionInput,
    ),
    _sales(
        method="GET",
        path=_PROMOTION_PATH,
        handler=get_promotion,
        summary="Read a promotion",
        answers=_ANSWER,
        problems=(404, 503),
        parameters=(SALE, _PROMOTION),
    ),
    _sales(
        method="PATCH",
        path=_PROMOTION_PATH,
        handler=change_promotion,
        summary="Change a promotion",
        answers=_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE, _PROMOTION),
        body=ChangedPromotion,
    ),
    _sales(
        method="DELETE",
        path=_PROMOTION_PATH,
        handler=delete_promotion,
        summary="Delete a promotion of a draft",
        answers={204: ("the draft does not have it", None)},
        problems=(404, 409, 503),
        parameters=(SALE, _PROMOTION),
    ),
]
