"""Imports and exports of products, for staff."""

from __future__ import annotations

from functools import partial
from tempfile import TemporaryFile
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.categories.model import CategoryId
from commerce.kernel.errors import Invalid
from commerce.kernel.paging import Page
from commerce.product_imports.export import ProductExport
from commerce.product_imports.model import ApplyInput, FileName, ImportFormat, LineOutcome, ProductImport, ReportLine
from commerce.product_imports.service import ProductImports
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response
from gateway.uploads import receive_upload

_IMPORTS = "/v1/admin/product-imports"
_FILE_TYPE = "application/octet-stream"
_FORMAT = Parameter(
    name="format", location="query", type=ImportFormat, description="`csv`, or `jsonl` (JSON Lines)", required=True
)
_FILE_NAME = Parameter(name="file_name", location="query", type=FileName, description="the file's name, for the list")
_CATEGORY = Parameter(
    name="category_id", location="query", type=CategoryId, description="only products of this category and those below"
)
_IMPORT = Parameter(name="import_id", location="path", type=UUID, description="the import's id")
_OUTCOME = Parameter(name="outcome", location="query", type=LineOutcome, description="only lines with this outcome")
_LINE_CURSOR = cursor_parameter(Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)])


async def upload_products(call: Call) -> web.Response:
    """Upload a file of products, in CSV or JSON Lines, to be checked line by line.

    Nothing changes yet. A job writes a report of all lines; the import is `checked` after that, or `refused` if the
    file cannot be read. The same file may be uploaded again.
    """
    services, settings = call.services, call.services.settings.product_imports
    file_format: ImportFormat = call.parameters["format"]
    name = call.parameters["file_name"] or f"products.{file_format}"
    with services.product_files.uploads.take(settings.concurrent_uploads), TemporaryFile() as file:
        await receive_upload(call.request, file, settings.max_bytes, settings.upload_timeout_s, "file")
        if not file.tell():
            raise Invalid("the body is empty: send the file as the body")
        file.seek(0)
        added = await _imports(call).add(file, name, file_format, call.staff_actor)
    return json_response(added, 202, {"Location": f"{_IMPORTS}/{added.import_id}"})


async def list_product_imports(call: Call) -> web.Response:
    """List imports of products with their counts, newest first."""
    return json_response(await _imports(call).list_imports(call.parameters["cursor"], page_size(call)))


async def read_product_import(call: Call) -> web.Response:
    """Read an import: its counts, and how far it is.

    `checked_lines` and `applied_lines` of `lines` are done. The counts of the report add up to the lines of the file.
    """
    return json_response(await _imports(call).get(call.parameters["import_id"]))


async def list_import_lines(call: Call) -> web.Response:
    """List the lines of a report: what becomes of each, which columns change, or why it is refused."""
    parameters = call.parameters
    return json_response(
        await _imports(call).list_lines(
            parameters["import_id"], parameters["cursor"] or 0, page_size(call), parameters["outcome"]
        )
    )


async def apply_product_import(call: Call) -> web.Response:
    """Have a checked import applied: a job creates and changes its products, one after the other.

    A product that somebody has changed since the report is left as it is, and reported. One that would go on sale with
    a lower grade than `quality.publish_from` is refused whole; with the reason `anyway` it goes on sale all the same,
    and its change keeps that reason. A repeat changes nothing.
    """
    body = call.body or ApplyInput()
    return json_response(await _imports(call).apply(call.parameters["import_id"], call.staff_actor, body.anyway), 202)


async def export_products(call: Call) -> web.StreamResponse:
    """Export products with their variants in a file that an import takes.

    Imported again it changes nothing. Each product is as it was at one time.
    """
    services, file_format = call.services, call.parameters["format"]
    exported = ProductExport(services.db).export(file_format, call.parameters["category_id"])
    with services.product_files.exports.take(services.settings.product_imports.concurrent_exports):
        first = await anext(exported, b"")  # what is refused is refused before the answer begins
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = _FILE_TYPE
        response.headers["Content-Disposition"] = f'attachment; filename="products.{file_format}"'
        await response.prepare(call.request)
        await response.write(first)
        async for piece in exported:
            await response.write(piece)
        await response.write_eof()
    return response


def _imports(call: Call) -> ProductImports:
    return call.services.product_services.imports


_staff = partial(Operation, tag="staff: catalog", access="catalog")

ADMIN = [
    _staff(
        method="POST",
        path=_IMPORTS,
        handler=upload_products,
        summary="Upload a file of products to be checked",
        answers={202: ("a job checks the file", ProductImport)},
        problems=(408, 413, 415, 422, 503),
        parameters=(_FORMAT, _FILE_NAME),
        has_upload=True,
        upload_type="*/*",
    ),
    _staff(
        method="GET",
        path=_IMPORTS,
        handler=list_product_imports,
        summary="List imports of products",
        answers={200: ("the imports", Page[ProductImport])},
        problems=(503,),
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _staff(
        method="GET",
        path=f"{_IMPORTS}/{{import_id}}",
        handler=read_product_import,
        summary="Read an import of products",
        answers={200: ("the import", ProductImport)},
        problems=(404, 503),
        parameters=(_IMPORT,),
    ),
    _staff(
        method="GET",
        path=f"{_IMPORTS}/{{import_id}}/lines",
        handler=list_import_lines,
        summary="List the lines of an import's report",
        answers={200: ("the lines", Page[ReportLine])},
        problems=(404, 503),
        parameters=(_IMPORT, _OUTCOME, _LINE_CURSOR, LIMIT),
    ),
    _staff(
        method="POST",
        path=f"{_IMPORTS}/{{import_id}}/apply",
        handler=apply_product_import,
        summary="Apply an import of products",
        is_one_transaction=True,
        answers={202: ("a job applies the import", ProductImport)},
        problems=(404, 409, 503),
        parameters=(_IMPORT,),
        body=ApplyInput,
        is_body_optional=True,
    ),
    _staff(
        method="GET",
        path="/v1/admin/product-exports",
        handler=export_products,
        summary="Export products",
        answers={200: ("the file, in CSV or JSON Lines", None)},
        problems=(404, 409, 503),
        parameters=(_FORMAT, _CATEGORY),
        content_type=_FILE_TYPE,
    ),
]
