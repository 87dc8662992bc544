"""Pictures of products: their files for everybody, changes for staff."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.catalog.model import Sku
from commerce.pictures.model import (
    MEDIA_TYPE,
    AltTextInput,
    Digest,
    PictureImport,
    PictureOrder,
    PicturesOfProduct,
    PictureSource,
)
from gateway.cached_content import has_content
from gateway.endpoints.parameters import IF_NONE_MATCH
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.uploads import read_upload

_OF_PRODUCT = "/v1/admin/products/{product_id}"
_PRODUCT_PICTURES = f"{_OF_PRODUCT}/pictures"
_IMPORTS = "/v1/admin/picture-imports"
_FILE_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",  # pages of the shop may be on another host
}
_PRODUCT = Parameter(name="product_id", location="path", type=Sku, description="the product's id")
_DIGEST = Parameter(name="digest", location="path", type=Digest, description="the picture's digest")
_FILE = Parameter(
    name="file",
    location="path",
    type=Annotated[str, msgspec.Meta(pattern=r"^(256|512|1024|2048)\.webp\Z", examples=["512.webp"])],
    description="largest width and height in pixels: 256.webp, 512.webp, 1024.webp or 2048.webp",
)
_IMPORT = Parameter(name="import_id", location="path", type=UUID, description="the import's id")


async def read_picture(call: Call) -> web.Response:
    """Read a picture in one size, as WebP.

    Content under a URL never changes, so it may be kept for a year. Its height and width are at most the size; a
    smaller picture is not enlarged.
    """
    size = int(call.parameters["file"].partition(".")[0])
    served = await call.services.pictures.served.read(call.parameters["digest"], size)
    headers = {"ETag": served.tag, **_FILE_HEADERS}
    if has_content(call.parameters["If-None-Match"], served.tag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=served.content, content_type=MEDIA_TYPE, headers=headers)


async def upload_picture(call: Call) -> web.Response:
    """Upload a picture for a product: JPEG, PNG or WebP, judged by its content.

    A job renders it in several sizes, upright and without metadata; the product has it after that. 200 if the same file
    was there already. Anything else is 422 `not_a_picture` with a `reason`, or a refused import.
    """
    product_id, pictures, settings = (
        call.parameters["product_id"],
        call.services.pictures,
        call.services.settings.pictures,
    )
    await pictures.products.check_upload(product_id)
    with pictures.uploads.take(settings.concurrent_uploads):
        content = await read_upload(call.request, settings.max_bytes, settings.upload_timeout_s)
        return _import_response(await pictures.products.upload(product_id, content, call.staff_actor))


async def import_picture(call: Call) -> web.Response:
    """Have a picture fetched for a product. Hosts that are not on the public internet are refused."""
    body: PictureSource = call.body
    products = call.services.pictures.products
    return _import_response(await products.add_by_url(call.parameters["product_id"], body, call.staff_actor))


async def read_picture_import(call: Call) -> web.Response:
    """Read what became of an upload or a URL."""
    return json_response(await call.services.pictures.products.get_import(call.parameters["import_id"]))


async def list_product_pictures(call: Call) -> web.Response:
    """List all pictures of a product, the cover first, and imports that have not ended or were refused."""
    return await _answer(call)


async def order_product_pictures(call: Call) -> web.Response:
    """Put the pictures of a product into another sequence, which names each once.

    The first one is the cover.
    """
    body: PictureOrder = call.body
    await call.services.pictures.products.reorder(call.parameters["product_id"], body.digests)
    return await _answer(call)


async def put_alt_texts(call: Call) -> web.Response:
    """Say in several languages what a picture of a product shows, for those who do not see it."""
    body: AltTextInput = call.body
    product_id, digest = call.parameters["product_id"], call.parameters["digest"]
    await call.services.pictures.products.set_alt_texts(product_id, digest, body.alt_texts)
    return await _answer(call)


async def delete_product_picture(call: Call) -> web.Response:
    """Take a picture from a product. Its files are deleted some days later if no other product has it."""
    await call.services.pictures.products.remove(call.parameters["product_id"], call.parameters["digest"])
    return web.Response(status=204)


async def _answer(call: Call) -> web.Response:
    return json_response(await call.services.pictures.products.list_of_product(call.parameters["product_id"]))


def _import_response(item: PictureImport) -> web.Response:
    status = 200 if item.status == "stored" else 202
    return json_response(item, status, {"Location": f"{_IMPORTS}/{item.import_id}"})


_staff = partial(Operation, tag="staff: catalog", access="catalog")
_IMPORT_ANSWERS = {
    200: ("the product has the picture", PictureImport),
    202: ("a job stores the picture, or refuses it", PictureImport),
}
_LIST_ANSWER = {200: ("the pictures", PicturesOfProduct)}

OPERATIONS = [
    Operation(
        method="GET",
        path="/v1/pictures/{digest}/{file}",
        handler=read_picture,
        summary="Read a picture of a product",
        tag="catalog",
        access="anyone",
        answers={200: ("the picture", None), 304: ("unchanged since the ETag of the client", None)},
        problems=(404, 503),
        parameters=(_DIGEST, _FILE, IF_NONE_MATCH),
        content_type=MEDIA_TYPE,
    )
]
ADMIN = [
    _staff(
        method="POST",
        path=_PRODUCT_PICTURES,
        handler=upload_picture,
        summary="Upload a picture of a product",
        answers=_IMPORT_ANSWERS,
        problems=(404, 408, 409, 413, 415, 422, 503),
        parameters=(_PRODUCT,),
        has_upload=True,
    ),
    _staff(
        method="POST",
        path=f"{_OF_PRODUCT}/picture-imports",
        handler=import_picture,
        summary="Import a picture of a product by its URL",
        is_one_transaction=True,
        answers={202: _IMPORT_ANSWERS[202]},
        problems=(404, 409, 503),
        parameters=(_PRODUCT,),
        body=PictureSource,
    ),
    _staff(
        method="GET",
        path=f"{_IMPORTS}/{{import_id}}",
        handler=read_picture_import,
        summary="Read an import of a picture",
        answers={200: ("the import", PictureImport)},
        problems=(404, 503),
        parameters=(_IMPORT,),
    ),
    _staff(
        method="GET",
        path=_PRODUCT_PICTURES,
        handler=list_product_pictures,
        summary="List the pictures of a product",
        answers=_LIST_ANSWER,
        problems=(404, 503),
        parameters=(_PRODUCT,),
    ),
    _staff(
        method="PUT",
        path=f"{_OF_PRODUCT}/picture-order",
        handler=order_product_pictures,
        summary="Order the pictures of a product",
        answers=_LIST_ANSWER,
        problems=(404, 409, 503),
        parameters=(_PRODUCT,),
        body=PictureOrder,
    ),
    _staff(
        method="PUT",
        path=f"{_PRODUCT_PICTURES}/{{digest}}/alt-texts",
        handler=put_alt_texts,
        summary="Put the alt texts of a picture",
        answers=_LIST_ANSWER,
        problems=(404, 503),
        parameters=(_PRODUCT, _DIGEST),
        body=AltTextInput,
    ),
    _staff(
        method="DELETE",
        path=f"{_PRODUCT_PICTURES}/{{digest}}",
        handler=delete_product_picture,
        summary="Delete a picture of a product",
        answers={204: ("deleted", None)},
        problems=(404, 503),
        parameters=(_PRODUCT, _DIGEST),
    ),
]
