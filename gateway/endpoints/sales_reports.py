"""Reports on sales, for staff."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from aiohttp import web

from commerce.catalog.model import Sku
from commerce.kernel.moments import Moment
from commerce.sales.model import SaleId
from commerce.sales_figures.model import SalesGroup, SalesReport
from commerce.sales_figures.service import SalesQuery, SalesReports
from gateway.operations import Call, Operation, Parameter, json_response

_SALE = Parameter(name="sale_id", location="query", type=SaleId, description="the sale; all of them when left out")
_SKU = Parameter(name="sku", location="query", type=Sku, description="the SKU; whole orders when left out")
_FROM = Parameter(
    name="from",
    location="query",
    type=Moment,
    description="start of the period; when left out, the opening of the sale, or 30 days before the end",
)
_TO = Parameter(name="to", location="query", type=Moment, description="end of the period; now when left out")
_BY = Parameter(name="by", location="query", type=SalesGroup, description="groups of the rows; `total` when left out")


async def report_sales(call: Call) -> web.Response:
    """Report on a sale, or on all, in a period of at most 366 days, or by minute of at most 2,880 minutes.

    Views, cart lines, orders, what was paid, cancelled, delivered, returned and refunded, by SKU, day, minute or
    reason. By SKU of one sale also its stock: sell-through, and how many days the free units last.
    """
    services, parameters = call.services, call.parameters
    zone = ZoneInfo(services.settings.shop.time_zone)
    reports = SalesReports(services.db, services.clock, zone, services.sales)
    query = SalesQuery(
        by=parameters["by"] or "total",
        sale_id=parameters["sale_id"],
        sku=parameters["sku"],
        start=parameters["from"],
        end=parameters["to"],
    )
    return json_response(await reports.report(query))


ADMIN = [
    Operation(
        tag="staff: reports",
        access="sales",
        also_for=("catalog",),
        method="GET",
        path="/v1/admin/reports/sales",
        handler=report_sales,
        summary="Report on sales",
        answers={200: ("the figures", SalesReport)},
        problems=(404, 503),
        parameters=(_SALE, _SKU, _FROM, _TO, _BY),
    ),
]
