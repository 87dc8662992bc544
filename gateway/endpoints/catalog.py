"""Variants and sales as customers see them: those that everybody looks at come from memory.

Answers carry an ETag, so unchanged content is not sent again.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from commerce.catalog.model import Sku, Variant
from commerce.kernel.paging import Page
from commerce.sales.model import OfferPage, PublicSale, SaleId
from gateway.cached_content import Content, content_response, encode_content
from gateway.endpoints.parameters import IF_NONE_MATCH, LIMIT, SALE, SKU, cursor_parameter, page_size
from gateway.operations import Call, Handler, Operation, Parameter
from gateway.public_pages import VARIANT_CACHE_CONTROL


def _response(call: Call, content: Content) -> web.Response:
    return content_response(call.parameters["If-None-Match"], content)


async def list_variants(call: Call) -> web.Response:
    """List all variants in the order of their SKUs, with their list prices."""
    page = await call.services.catalog.list_variants(call.parameters["cursor"], page_size(call))
    return _response(call, encode_content(page, VARIANT_CACHE_CONTROL))


async def get_variant(call: Call) -> web.Response:
    """Read one variant with its list price, at most about a second old."""
    pages, sku = call.services.public_pages, call.parameters["sku"]
    content = await pages.get_variant(sku)
    pages.visits.note_variant(sku)
    return _response(call, content)


async def list_sales(call: Call) -> web.Response:
    """List all sales that were opened, with their state and times."""
    return _response(call, await call.services.public_pages.list_sales(call.parameters["cursor"], page_size(call)))


async def get_sale(call: Call) -> web.Response:
    """Read one sale with its state and times."""
    return _response(call, await call.services.public_pages.get_sale(call.parameters["sale_id"]))


async def list_offers(call: Call) -> web.Response:
    """List the items of a sale: price, limit per user, and the units that were free at `as_of`.

    Stock is at most a second old. The ETag follows everything but `as_of`.
    """
    pages, sale_id, cursor = call.services.public_pages, call.parameters["sale_id"], call.parameters["cursor"]
    content = await pages.list_offers(sale_id, cursor, page_size(call))
    if cursor is None:
        pages.visits.note_offers(sale_id)
    return _response(call, content)


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
        parameters=(*parameters, IF_NONE_MATCH),
    )


OPERATIONS = [
    _operation(
        path="/v1/variants",
        handler=list_variants,
        summary="List variants",
        type_=Page[Variant],
        parameters=(cursor_parameter(Sku), LIMIT),
        problems=(503,),
    ),
    _operation(
        path="/v1/variants/{sku}",
        handler=get_variant,
        summary="Read a variant",
        type_=Variant,
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
        type_=OfferPage,
        parameters=(SALE, cursor_parameter(Sku), LIMIT),
        problems=(404, 503),
    ),
]
