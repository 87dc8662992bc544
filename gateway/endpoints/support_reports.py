"""Reports on support, for staff."""

from __future__ import annotations

from datetime import timedelta

from aiohttp import web

from commerce.kernel.clock import from_ms
from commerce.kernel.moments import Moment
from commerce.support_figures.model import AftersalesReport, GroupedBy
from commerce.support_figures.service import SupportFigures
from gateway.operations import Call, Operation, Parameter, json_response

_DEFAULT_DAYS = 30
_FROM = Parameter(
    name="from", location="query", type=Moment, description="its start; 30 days before the end when left out"
)
_TO = Parameter(name="to", location="query", type=Moment, description="the end of the period; now when left out")
_BY = Parameter(name="by", location="query", type=GroupedBy, description="groups of the figures; `total` when left out")


async def report_aftersales(call: Call) -> web.Response:
    """Measure support in a period of at most 92 days.

    Times to the first response, the decision and the money, shares within their deadlines, the backlog of now,
    satisfaction, decisions of rules and those that were overturned, and rates of returns by SKU, reason and carrier.
    """
    figures = SupportFigures(call.services.db, call.services.clock)
    end = call.parameters["to"] or from_ms(call.services.clock.now_ms())
    start = call.parameters["from"] or end - timedelta(days=_DEFAULT_DAYS)
    return json_response(await figures.report(start, end, call.parameters["by"] or "total"))


ADMIN = [
    Operation(
        tag="staff: reports",
        access="support_read",
        method="GET",
        path="/v1/admin/reports/aftersales",
        handler=report_aftersales,
        summary="Report on support",
        answers={200: ("the figures", AftersalesReport)},
        problems=(503,),
        parameters=(_FROM, _TO, _BY),
    ),
]
