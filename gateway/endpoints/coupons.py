"""Staff operations on coupons of sales. On the admin port."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.coupons.model import (
    ChangedCoupon,
    Coupon,
    CouponCode,
    CouponInput,
    CouponList,
    IssuedCodeList,
    IssueInput,
)
from gateway.endpoints.parameters import SALE
from gateway.operations import Call, Operation, Parameter, json_response

_CODE = Parameter(name="code", location="path", type=CouponCode, description="the coupon's code")


async def create_coupon(call: Call) -> web.Response:
    """Add a coupon to a sale, which may be open. A repeat changes nothing.

    A coupon is a unit of the sale's stock: an order takes it together with its products, all or none.
    """
    sale_id = call.parameters["sale_id"]
    coupon = await call.services.stock.coupons.create(sale_id, call.body, call.staff_actor)
    return json_response(coupon, 201, {"Location": f"/v1/admin/sales/{sale_id}/coupons/{coupon.code}"})


async def list_coupons(call: Call) -> web.Response:
    """List all coupons of a sale with how many are used and left."""
    return json_response(CouponList(await call.services.stock.coupons.list_coupons(call.parameters["sale_id"])))


async def get_coupon(call: Call) -> web.Response:
    """Read a coupon with how many are used and left."""
    return json_response(await call.services.stock.coupons.get(call.parameters["sale_id"], call.parameters["code"]))


async def change_coupon(call: Call) -> web.Response:
    """Change terms and number of a coupon; what is left out stays.

    No order is accepted on the old terms after the answer, once the sale's `published_generation` equals its
    `generation`. Only coupons that are not used can be taken away.
    """
    sale_id, code = call.parameters["sale_id"], call.parameters["code"]
    return json_response(await call.services.stock.coupons.change(sale_id, code, call.body, call.staff_actor))


async def issue_coupon(call: Call) -> web.Response:
    """Issue a coupon: return a code for each customer, with which only he can use it.

    A repeat returns the same codes.
    """
    sale_id, code = call.parameters["sale_id"], call.parameters["code"]
    return json_response(IssuedCodeList(await call.services.stock.coupons.issue(sale_id, code, call.body.users)))


_COUPONS_PATH = "/v1/admin/sales/{sale_id}/coupons"
_COUPON_PATH = f"{_COUPONS_PATH}/{{code}}"
_COUPON_ANSWER = {200: ("the coupon", Coupon)}
_sales = partial(Operation, tag="staff: sales", access="sales")

ADMIN = [
    _sales(
        method="POST",
        path=_COUPONS_PATH,
        handler=create_coupon,
        summary="Create a coupon",
        answers={201: ("the coupon", Coupon)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=CouponInput,
    ),
    _sales(
        method="GET",
        path=_COUPONS_PATH,
        handler=list_coupons,
        summary="List coupons",
        answers={200: ("all coupons of the sale", CouponList)},
        problems=(404, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="GET",
        path=_COUPON_PATH,
        handler=get_coupon,
        summary="Read a coupon",
        answers=_COUPON_ANSWER,
        problems=(404, 503),
        parameters=(SALE, _CODE),
    ),
    _sales(
        method="PATCH",
        path=_COUPON_PATH,
        handler=change_coupon,
        summary="Change a coupon",
        answers=_COUPON_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE, _CODE),
        body=ChangedCoupon,
    ),
    _sales(
        method="POST",
        is_one_transaction=True,
        path=f"{_COUPON_PATH}/issue",
        handler=issue_coupon,
        summary="Issue a coupon",
        answers={200: ("a code for each customer", IssuedCodeList)},
        problems=(404, 503),
        parameters=(SALE, _CODE),
        body=IssueInput,
    ),
]
