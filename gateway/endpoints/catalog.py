"""Products and sales as shoppers see them. Answers carry an ETag, so that what has not changed is not sent again."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from aiohttp import web

from commerce.catalog.model import Product, Sku
from commerce.kernel.paging import Page
from commerce.sales.model import Offer, PublicSale, SaleId
from commerce.sales.service import public
from gateway.operations import Call, Operation, Parameter


def cursor_parameter(type_: Any) -> Parameter:
    """Where a list goes on."""
    return Parameter("cursor", "query", type_, "`next` of the page before")


LIMIT = Parameter("limit", "query", Annotated[int, msgspec.Meta(ge=1, le=1000)], "items a page, at most")
SKU = Parameter("sku", "path", Sku, "the product's SKU")
SALE = Parameter("sale_id", "path", SaleId, "the sale's id")
_IF_NONE_MATCH = Parameter("If-None-Match", "header", str, "the ETag of what the client has")


def page_size(call: Call) -> int:
    """What the caller wants, within what the settings allow."""
    most = call.services.settings.limits.page_items
    return min(call.parameters["limit"] or most, most)


def _tagged(call: Call, body: Any, max_age_s: int) -> web.Response:
    data = msgspec.json.encode(body)
    tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": f"public, max-age={max_age_s}"}
    known = call.parameters["If-None-Match"] or ""
    if known == "*" or tag in (part.strip().removeprefix("W/") for part in known.split(",")):
        return web.Response(status=304, headers=headers)
    return web.Response(body=data, content_type="application/json", headers=headers)


async def list_products(call: Call) -> web.Response:
    """All products in the order of their SKUs, with their list prices."""
    return _tagged(call, await call.services.catalog.page(call.parameters["cursor"], page_size(call)), 5)


async def get_product(call: Call) -> web.Response:
    """One product with its list price."""
    return _tagged(call, await call.services.catalog.get(call.parameters["sku"]), 5)


async def list_sales(call: Call) -> web.Response:
    """All sales that were opened, with their state and times."""
    found = await call.services.sales.page(call.parameters["cursor"], page_size(call))
    return _tagged(call, Page([public(sale) for sale in found.items], found.next), 1)


async def get_sale(call: Call) -> web.Response:
    """One sale with its state and times."""
    return _tagged(call, await call.services.sales.get_public(call.parameters["sale_id"]), 1)


async def list_offers(call: Call) -> web.Response:
    """What a sale offers: price, limit a user, and how much is free at this moment."""
    sales = call.services.sales
    return _tagged(call, await sales.offers(call.parameters["sale_id"], call.parameters["cursor"], page_size(call)), 1)


def _read(
    path: str, handler: Any, summary: str, type_: Any, *parameters: Parameter, missing: bool = False
) -> Operation:
    return Operation(
        "GET",
        path,
        handler,
        summary,
        "catalogue",
        "anyone",
        {200: ("as it is now", type_), 304: ("the client has it", None)},
        (404, 503) if missing else (503,),
        (*parameters, _IF_NONE_MATCH),
    )


OPERATIONS = [
    _read("/v1/products", list_products, "List products", Page[Product], cursor_parameter(Sku), LIMIT),
    _read("/v1/products/{sku}", get_product, "Read a product", Product, SKU, missing=True),
    _read("/v1/sales", list_sales, "List sales", Page[PublicSale], cursor_parameter(SaleId), LIMIT),
    _read("/v1/sales/{sale_id}", get_sale, "Read a sale", PublicSale, SALE, missing=True),
    _read(
        "/v1/sales/{sale_id}/offers",
        list_offers,
        "List a sale's offers",
        Page[Offer],
        SALE,
        cursor_parameter(Sku),
        LIMIT,
        missing=True,
    ),
]
