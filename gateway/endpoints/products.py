"""Products as customers read them, each in one language, and as staff change them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web

from commerce.catalog.model import (
    Product,
    ProductChange,
    ProductId,
    ProductInput,
    ProductPatch,
    ProductStatus,
    ProductStep,
    ProductSummary,
    ProductVariantInput,
    PublishStep,
    RetiredProduct,
    Variant,
)
from commerce.catalog.products import Products, to_listed
from commerce.categories.model import CategoryId
from commerce.kernel.languages import read_accept_language
from commerce.kernel.paging import Page
from gateway.cached_content import content_response, encode_content
from gateway.endpoints.parameters import ACCEPT_LANGUAGE, IF_NONE_MATCH, LIMIT, SKU, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.pictured_products import CoveredProduct, PicturedProduct, add_covers
from gateway.public_pages import VARIANT_CACHE_CONTROL


def _products(call: Call) -> Products:
    return call.services.product_services.products


async def list_products(call: Call) -> web.Response:
    """List the products on sale by id, with covers and the range of their list prices.

    Names are in the best language for `Accept-Language`, else in English, else in any.
    """
    parameters = call.parameters
    page = await _products(call).list_products(
        parameters["cursor"], page_size(call), "on_sale", parameters["category_id"]
    )
    wanted = read_accept_language(parameters["Accept-Language"])
    listed = [product for summary in page.items if (product := to_listed(summary, wanted)) is not None]
    covers = await call.services.public_pages.read_covers([product.product_id for product in listed])
    content = encode_content(Page(add_covers(listed, covers, wanted), page.next), VARIANT_CACHE_CONTROL)
    response = content_response(parameters["If-None-Match"], content)
    response.headers["Vary"] = "Accept-Language"
    return response


async def get_product(call: Call) -> web.Response:
    """Read a product on sale with its variants and pictures, at most about a second old.

    Texts are in the best language for `Accept-Language`, else in English, else in any; `Content-Language` says which.
    """
    parameters = call.parameters
    wanted = read_accept_language(parameters["Accept-Language"])
    language, content = await call.services.public_pages.get_product(parameters["product_id"], wanted)
    response = content_response(parameters["If-None-Match"], content)
    response.headers["Vary"], response.headers["Content-Language"] = "Accept-Language", language
    return response


async def list_all_products(call: Call) -> web.Response:
    """List products of any status, of a status or of a category, by id."""
    parameters = call.parameters
    page = await _products(call).list_products(
        parameters["cursor"], page_size(call), parameters["status"], parameters["category_id"]
    )
    return json_response(page)


async def read_product(call: Call) -> web.Response:
    """Read a product of any status with its texts in all languages and its variants."""
    return json_response(await _products(call).get(call.parameters["product_id"]))


async def put_product(call: Call) -> web.Response:
    """Create a draft, or with the version that was read replace all but its status and variants."""
    return json_response(await _products(call).put(call.parameters["product_id"], call.body, call.staff_actor))


async def change_product(call: Call) -> web.Response:
    """Change what is named, in the version that was read."""
    return json_response(await _products(call).change(call.parameters["product_id"], call.body, call.staff_actor))


async def publish_product(call: Call) -> web.Response:
    """Put a product on sale that has a variant and the attributes that its category requires.

    One of a lower grade than `quality.publish_from` is refused, and `findings` of the problem say what to fix. With the
    reason `anyway` it is published all the same, and the change of the product keeps that reason.
    """
    return json_response(await _products(call).publish(call.parameters["product_id"], call.body, call.staff_actor))


async def retire_product(call: Call) -> web.Response:
    """Hide a product from customers.

    Sales that offer it go on, and `open_sales` names them; no sale may add it.
    """
    product = await _products(call).retire(call.parameters["product_id"], call.body, call.staff_actor)
    open_sales = await call.services.sales.list_open_of_product(product.product_id)
    return json_response(RetiredProduct(**msgspec.structs.asdict(product), open_sales=open_sales))


async def put_product_variant(call: Call) -> web.Response:
    """Add a variant to a product, replace it, or with `moved_from` move it here from another product."""
    product_id, sku = call.parameters["product_id"], call.parameters["sku"]
    return json_response(
        await call.services.product_services.variants.put(product_id, sku, call.body, call.staff_actor)
    )


async def list_product_changes(call: Call) -> web.Response:
    """List the changes of a product and of its variants, newest first."""
    parameters = call.parameters
    return json_response(
        await _products(call).list_changes(parameters["product_id"], parameters["cursor"], page_size(call))
    )


_PRODUCT = Parameter(name="product_id", location="path", type=ProductId, description="the product's id")
_CATEGORY = Parameter(
    name="category_id", location="query", type=CategoryId, description="only those of this very category"
)
_STATUS = Parameter(name="status", location="query", type=ProductStatus, description="only those of this status")
_VERSION_CURSOR = cursor_parameter(Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)])
_UNCHANGED = {304: ("unchanged since the ETag of the client", None)}
_PATH, _ADMIN_PATH = "/v1/products", "/v1/admin/products"
_ONE_PATH = f"{_ADMIN_PATH}/{{product_id}}"
_ANSWER = {200: ("the product", Product)}
_public = partial(Operation, method="GET", tag="catalog", access="anyone")
_staff = partial(Operation, tag="staff: catalog", access="catalog")
_step = partial(
    _staff,
    method="POST",
    problems=(404, 409, 503),
    parameters=(_PRODUCT,),
    is_one_transaction=True,
)

OPERATIONS = [
    _public(
        path=_PATH,
        handler=list_products,
        summary="List products",
        answers={200: ("a page", Page[CoveredProduct]), **_UNCHANGED},
        problems=(503,),
        parameters=(_CATEGORY, cursor_parameter(ProductId), LIMIT, ACCEPT_LANGUAGE, IF_NONE_MATCH),
    ),
    _public(
        path=f"{_PATH}/{{product_id}}",
        handler=get_product,
        summary="Read a product",
        answers={200: ("the product", PicturedProduct), **_UNCHANGED},
        problems=(404, 503),
        parameters=(_PRODUCT, ACCEPT_LANGUAGE, IF_NONE_MATCH),
    ),
]
ADMIN = [
    _staff(
        method="GET",
        path=_ADMIN_PATH,
        handler=list_all_products,
        summary="List all products",
        answers={200: ("a page", Page[ProductSummary])},
        problems=(503,),
        parameters=(_STATUS, _CATEGORY, cursor_parameter(ProductId), LIMIT),
    ),
    _staff(
        method="GET",
        path=_ONE_PATH,
        handler=read_product,
        summary="Read a product whole",
        answers=_ANSWER,
        problems=(404, 503),
        parameters=(_PRODUCT,),
    ),
    _staff(
        method="PUT",
        path=_ONE_PATH,
        handler=put_product,
        summary="Put a product",
        answers=_ANSWER,
        problems=(404, 409, 503),
        parameters=(_PRODUCT,),
        body=ProductInput,
    ),
    _staff(
        method="PATCH",
        path=_ONE_PATH,
        handler=change_product,
        summary="Change a product",
        answers=_ANSWER,
        problems=(404, 409, 503),
        parameters=(_PRODUCT,),
        body=ProductPatch,
    ),
    _step(
        path=f"{_ONE_PATH}/publish",
        handler=publish_product,
        summary="Publish a product",
        answers=_ANSWER,
        body=PublishStep,
    ),
    _step(
        path=f"{_ONE_PATH}/retire",
        handler=retire_product,
        summary="Retire a product",
        answers={200: ("the product, and sales that go on selling it", RetiredProduct)},
        body=ProductStep,
    ),
    _staff(
        method="PUT",
        path=f"{_ONE_PATH}/variants/{{sku}}",
        handler=put_product_variant,
        summary="Put a variant of a product",
        answers={200: ("the variant", Variant)},
        problems=(404, 409, 503),
        parameters=(_PRODUCT, SKU),
        body=ProductVariantInput,
    ),
    _staff(
        method="GET",
        path=f"{_ONE_PATH}/changes",
        handler=list_product_changes,
        summary="List the changes of a product",
        answers={200: ("a page", Page[ProductChange])},
        problems=(404, 503),
        parameters=(_PRODUCT, _VERSION_CURSOR, LIMIT),
    ),
]
