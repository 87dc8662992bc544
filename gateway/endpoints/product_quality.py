"""Quality of products, for staff: what to fix, and how it goes over time."""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from commerce.catalog.model import ProductId
from commerce.categories.model import CategoryId
from commerce.kernel.paging import Page
from commerce.product_quality.model import (
    CURSOR_PATTERN,
    Grade,
    GradedProduct,
    HistoryGroup,
    HistoryStep,
    QualityFilter,
    QualityHistory,
    QualityReason,
)
from commerce.product_quality.quality_history import HistoryQuery, QualityRecords
from commerce.product_quality.service import ProductQuality
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_query = partial(Parameter, location="query")
_GRADE = _query(name="grade", type=Grade, description="only products of this grade")
_REASON = _query(name="reason", type=QualityReason, description="only products with this fault")
_CATEGORY = _query(name="category_id", type=CategoryId, description="only those of this category and below it")
_ON_SALE = _query(name="on_sale", type=bool, description="only products on sale, or only drafts; both when left out")
_PRODUCT = Parameter(name="product_id", location="path", type=ProductId, description="the product's id")
_FROM = _query(name="from", type=date, description="first day, by default the 30th up to the last")
_TO = _query(name="to", type=date, description="last day; today when left out")
_BY = _query(name="by", type=HistoryGroup, description="`category`: a row for each topmost category, too")
_STEP = _query(name="step", type=HistoryStep, description="by default days, of a span over 93 days weeks, then months")
_ROOT = _query(name="category_id", type=CategoryId, description="only this topmost category")
_ONLY_ON_SALE = _query(name="on_sale", type=bool, description="false: drafts; products on sale when left out")
_CURSOR = cursor_parameter(Annotated[str, msgspec.Meta(pattern=CURSOR_PATTERN)])


async def list_product_quality(call: Call) -> web.Response:
    """List drafts and products on sale with their grade and what to fix, the worst first.

    A change of a product, its pictures or the rules of its category shows after some seconds.
    """
    parameters = call.parameters
    wanted = QualityFilter(parameters["grade"], parameters["reason"], parameters["category_id"], parameters["on_sale"])
    page = await ProductQuality(call.services.db).list_products(wanted, parameters["cursor"], page_size(call))
    return json_response(page)


async def read_product_quality(call: Call) -> web.Response:
    """Read the grade of a product, with what to fix."""
    return json_response(await ProductQuality(call.services.db).get(call.parameters["product_id"]))


async def report_quality(call: Call) -> web.Response:
    """Report how many products had each grade at the end of each day, of a span of at most 3,700 days."""
    services, parameters = call.services, call.parameters
    records = QualityRecords(services.db, services.clock, ZoneInfo(services.settings.shop.time_zone))
    query = HistoryQuery(
        start=parameters["from"],
        end=parameters["to"],
        by=parameters["by"] or "total",
        step=parameters["step"],
        category_id=parameters["category_id"],
        is_on_sale=parameters["on_sale"] is not False,
    )
    return json_response(await records.report(query))


_staff = partial(Operation, access="catalog", method="GET")
ADMIN = [
    _staff(
        tag="staff: catalog",
        path="/v1/admin/product-quality",
        handler=list_product_quality,
        summary="List what to fix in products",
        answers={200: ("a page", Page[GradedProduct])},
        problems=(503,),
        parameters=(_GRADE, _REASON, _CATEGORY, _ON_SALE, _CURSOR, LIMIT),
    ),
    _staff(
        tag="staff: catalog",
        path="/v1/admin/products/{product_id}/quality",
        handler=read_product_quality,
        summary="Read the quality of a product",
        answers={200: ("the quality", GradedProduct)},
        problems=(404, 503),
        parameters=(_PRODUCT,),
    ),
    _staff(
        tag="staff: reports",
        path="/v1/admin/reports/quality",
        handler=report_quality,
        summary="Report on the quality of products",
        answers={200: ("the figures", QualityHistory)},
        problems=(503,),
        parameters=(_FROM, _TO, _BY, _STEP, _ROOT, _ONLY_ON_SALE),
    ),
]
