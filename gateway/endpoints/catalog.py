"""Products and sales as customers see them.

Answers carry an ETag, so unchanged content is not sent again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from aiohttp import web

from commerce.catalog.model import Product, Sku
from commerce.kernel.paging import Page
from commerce.sales.model import Offer, PublicSale, SaleId
from commerce.sales.service import to_public_sale
from gateway.endpoints.parameters import LIMIT, SALE, SKU, cursor_parameter, page_size
from gateway.operations import Call, Handler, Operation, Parameter

_IF_NONE_MATCH = Parameter(
    name="If-None-Match", location="header", type=str, description="the ETag of the client's stored answer"
)
_PRODUCT_MAX_AGE_S, _SALE_MAX_AGE_S = 5, 1


def _cacheable_response(call: Call, body: Any, max_age_s: int) -> web.Response:
    """Build a public answer with an ETag, or 304 if the client has this content."""
    data = msgspec.json.encode(body)
    tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={max_age_s}"}
    client_tags = call.parameters["If-None-Match"] or ""
    if client_tags == "*" or tag in (part.strip().removeprefix("W/") for part in client_tags.split(",")):
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type="application/json", headers=headers)


async def list_products(call: Call) -> web.Response:
    """List all products in the order of their SKUs, with their list prices."""
    page = await call.services.catalog.list_products(call.parameters["cursor"], page_size(call))
    return _cacheable_response(call, page, _PRODUCT_MAX_AGE_S)


async def get_product(call: Call) -> web.Response:
    """Read one product with its list price."""
    return _cacheable_response(call, await call.services.catalog.get(call.parameters["sku"]), _PRODUCT_MAX_AGE_S)


async def list_sales(call: Call) -> web.Response:
    """List all sales that were opened, with their state and times."""
    page = await call.services.sales.list_sales(call.parameters["cursor"], page_size(call))
    return _cacheable_response(call, Page([to_public_sale(sale) for sale in page.items], page.next), _SALE_MAX_AGE_S)


async def get_sale(call: Call) -> web.Response:
    """Read one sale with its state and times."""
    sale = await call.services.sales.get_public(call.parameters["sale_id"])
    return _cacheable_response(call, sale, _SALE_MAX_AGE_S)


async def list_offers(call: Call) -> web.Response:
    """List the items of a sale: price, limit per user, and the units that are free at this moment."""
    page = await call.services.sales.list_offers(call.parameters["sale_id"], call.parameters["cursor"], page_size(call))
    return _cacheable_response(call, page, _SALE_MAX_AGE_S)


def _operation(
    *,
    path: str,
    handler: Handler,
    summary: str,
    type_: Any,
    parameters: tuple[Parameter, ...],
    problems: tuple[int, ...],
) -> Operation:
    return Operation(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag="catalog",
        access="anyone",
        answers={200: ("current content", type_), 304: ("unchanged since the ETag of the client", None)},
        problems=problems,
        parameters=(*parameters, _IF_NONE_MATCH),
    )


OPERATIONS = [
    _operation(
        path="/v1/products",
        handler=list_products,
        summary="List products",
        type_=Page[Product],
        parameters=(cursor_parameter(Sku), LIMIT),
        problems=(503,),
    ),
    _operation(
        path="/v1/products/{sku}",
        handler=get_product,
        summary="Read a product",
        type_=Product,
        parameters=(SKU,),
        problems=(404, 503),
    ),
    _operation(
        path="/v1/sales",
        handler=list_sales,
        summary="List sales",
        type_=Page[PublicSale],
        parameters=(cursor_parameter(SaleId), LIMIT),
        problems=(503,),
    ),
    _operation(
        path="/v1/sales/{sale_id}",
        handler=get_sale,
        summary="Read a sale",
        type_=PublicSale,
        parameters=(SALE,),
        problems=(404, 503),
    ),
    _operation(
        path="/v1/sales/{sale_id}/offers",
        handler=list_offers,
        summary="List a sale's offers",
        type_=Page[Offer],
        parameters=(SALE, cursor_parameter(Sku), LIMIT),
        problems=(404, 503),
    ),
]
