"""Staff operations on freight templates, and the template of a sale."""

from __future__ import annotations

from functools import partial

import msgspec
from aiohttp import web

from commerce.freight.model import FreightName, FreightSummary, FreightTemplate, FreightTerms
from commerce.kernel.paging import Page
from commerce.sales.model import Sale
from gateway.endpoints.parameters import LIMIT, SALE, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response


class SaleFreightTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The template by which customers of a sale pay freight; null: they pay none."""

    name: FreightName | None


async def list_templates(call: Call) -> web.Response:
    """List freight templates, without their zones."""
    return json_response(
        await call.services.sale_freight.templates.list_templates(call.parameters["cursor"], page_size(call))
    )


async def get_template(call: Call) -> web.Response:
    """Read a freight template with its zones."""
    return json_response(await call.services.sale_freight.templates.get(call.parameters["name"]))


async def put_template(call: Call) -> web.Response:
    """Create a freight template, or replace it whole.

    No order of a sale that uses it is accepted with the old freight after the answer, once the sale's
    `published_generation` equals `generation`.
    """
    name = call.parameters["name"]
    await call.services.sale_freight.put_templates({name: call.body}, call.staff_actor)
    return json_response(await call.services.sale_freight.templates.get(name))


async def set_sale_template(call: Call) -> web.Response:
    """Set the freight template of a sale, or take it away with null.

    No order is accepted with the old freight after the answer, once `published_generation` equals `generation`.
    """
    sale_id, name = call.parameters["sale_id"], call.body.name
    return json_response(await call.services.sale_freight.assign(sale_id, name, call.staff_actor))


_PATH = "/v1/admin/freight-templates"
_TEMPLATE_PATH = f"{_PATH}/{{name}}"
_NAME = Parameter(name="name", location="path", type=FreightName, description="the template's name")
_TEMPLATE_ANSWER = {200: ("the template", FreightTemplate)}
_sales = partial(Operation, tag="staff: sales", access="sales")

ADMIN = [
    _sales(
        method="GET",
        path=_PATH,
        handler=list_templates,
        summary="List freight templates",
        answers={200: ("a page", Page[FreightSummary])},
        problems=(503,),
        parameters=(cursor_parameter(FreightName), LIMIT),
    ),
    _sales(
        method="GET",
        path=_TEMPLATE_PATH,
        handler=get_template,
        summary="Read a freight template",
        answers=_TEMPLATE_ANSWER,
        problems=(404, 503),
        parameters=(_NAME,),
    ),
    _sales(
        method="PUT",
        path=_TEMPLATE_PATH,
        handler=put_template,
        summary="Put a freight template",
        answers=_TEMPLATE_ANSWER,
        problems=(503,),
        parameters=(_NAME,),
        body=FreightTerms,
    ),
    _sales(
        method="PUT",
        path="/v1/admin/sales/{sale_id}/freight-template",
        handler=set_sale_template,
        summary="Set a sale's freight template",
        answers={200: ("the sale", Sale)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=SaleFreightTemplate,
    ),
]
