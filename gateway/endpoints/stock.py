"""Staff operations on the stock of warehouses. On the admin port, by role."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from aiohttp import web

from commerce.catalog.model import Sku
from commerce.kernel.paging import Page
from commerce.warehouse_stock.model import (
    CountInput,
    ItemAllotment,
    MovementInput,
    StockLevel,
    StockTransferInput,
    WarehouseId,
    WarehouseMovement,
    WarningInput,
)
from commerce.warehouse_stock.service import WarehouseStock
from gateway.endpoints.parameters import LIMIT, SALE, SKU, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_WAREHOUSE = Parameter(name="warehouse_id", location="path", type=WarehouseId, description="the warehouse's id")
_OF_WAREHOUSE = Parameter(
    name="warehouse", location="query", type=WarehouseId | None, description="only of this warehouse"
)
_OF_SKU = Parameter(name="sku", location="query", type=Sku | None, description="only of this SKU")
_LOW = Parameter(name="low", location="query", type=bool | None, description="only stocks below their warning")
_LEVEL_CURSOR = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,64}/[a-z0-9-]{1,32}\Z")]
_MOVEMENT_CURSOR = Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)]


class Transferred(msgspec.Struct, frozen=True):
    """The movements of a transfer: out of a warehouse, into the other."""

    items: list[WarehouseMovement]


def _stock_of(call: Call) -> WarehouseStock:
    return WarehouseStock(call.services.db, call.services.clock, call.services.ids)


async def list_stock(call: Call) -> web.Response:
    """List the stock of warehouses by SKU, all or below its warning."""
    parameters = call.parameters
    return json_response(
        await _stock_of(call).list_levels(
            *(parameters["cursor"], page_size(call), parameters["sku"], parameters["warehouse"]),
            low=bool(parameters["low"]),
        )
    )


async def list_movements(call: Call) -> web.Response:
    """List the movements of a SKU's stock, newest first."""
    parameters = call.parameters
    return json_response(
        await _stock_of(call).list_movements(
            parameters["sku"], parameters["warehouse"], parameters["cursor"], page_size(call)
        )
    )


async def record_movement(call: Call) -> web.Response:
    """Record units that a warehouse received, got back or lost by damage.

    A SKU is kept in warehouses from its first movement on: sales that set its units from then on are allotted theirs.
    """
    sku, warehouse_id = call.parameters["sku"], call.parameters["warehouse_id"]
    return json_response(await _stock_of(call).record(sku, warehouse_id, call.body, call.staff_actor), 201)


async def count_stock(call: Call) -> web.Response:
    """Set the units on hand to those that were counted, allotted ones too. The difference is the movement."""
    sku, warehouse_id = call.parameters["sku"], call.parameters["warehouse_id"]
    return json_response(await _stock_of(call).count(sku, warehouse_id, call.body, call.staff_actor), 201)


async def transfer_stock(call: Call) -> web.Response:
    """Move units that no sale has to another warehouse."""
    sku, warehouse_id = call.parameters["sku"], call.parameters["warehouse_id"]
    moved = await _stock_of(call).transfer(sku, warehouse_id, call.body, call.staff_actor)
    return json_response(Transferred(moved), 201)


async def set_warning(call: Call) -> web.Response:
    """Set the units on hand below which a stock is low, or null for no warning."""
    sku, warehouse_id = call.parameters["sku"], call.parameters["warehouse_id"]
    return json_response(await _stock_of(call).set_warning(sku, warehouse_id, call.body.warn_below))


async def list_allotments(call: Call) -> web.Response:
    """List the items of a sale whose units are allotted from warehouses."""
    sale_id = call.parameters["sale_id"]
    await call.services.sales.get(sale_id)
    return json_response(await _stock_of(call).list_allotments(sale_id, call.parameters["cursor"], page_size(call)))


_PATH = "/v1/admin/stock"
_LEVEL_PATH = f"{_PATH}/{{sku}}/{{warehouse_id}}"
_list = partial(Operation, tag="staff: stock", method="GET", access="warehouse", also_for=("sales",))
_change = partial(
    Operation,
    tag="staff: stock",
    access="warehouse",
    problems=(404, 409, 503),
    parameters=(SKU, _WAREHOUSE),
    is_one_transaction=True,
)

ADMIN = [
    _list(
        path=_PATH,
        handler=list_stock,
        summary="List stock",
        answers={200: ("a page", Page[StockLevel])},
        problems=(503,),
        parameters=(_OF_SKU, _OF_WAREHOUSE, _LOW, cursor_parameter(_LEVEL_CURSOR), LIMIT),
    ),
    _list(
        path=f"{_PATH}/{{sku}}/movements",
        handler=list_movements,
        summary="List movements of stock",
        answers={200: ("a page", Page[WarehouseMovement])},
        problems=(404, 503),
        parameters=(SKU, _OF_WAREHOUSE, cursor_parameter(_MOVEMENT_CURSOR), LIMIT),
    ),
    _change(
        method="POST",
        path=f"{_LEVEL_PATH}/movements",
        handler=record_movement,
        summary="Record a movement of stock",
        answers={201: ("the movement", WarehouseMovement)},
        body=MovementInput,
    ),
    _change(
        method="POST",
        path=f"{_LEVEL_PATH}/counts",
        handler=count_stock,
        summary="Record a count of stock",
        answers={201: ("the movement", WarehouseMovement)},
        body=CountInput,
    ),
    _change(
        method="POST",
        path=f"{_LEVEL_PATH}/transfers",
        handler=transfer_stock,
        summary="Move stock to another warehouse",
        answers={201: ("both movements", Transferred)},
        body=StockTransferInput,
    ),
    _change(
        method="PUT",
        path=f"{_LEVEL_PATH}/warning",
        handler=set_warning,
        summary="Set the warning of a stock",
        answers={200: ("the stock", StockLevel)},
        body=WarningInput,
    ),
    _list(
        path="/v1/admin/sales/{sale_id}/allotments",
        handler=list_allotments,
        summary="List allotments of a sale",
        answers={200: ("a page", Page[ItemAllotment])},
        problems=(404, 503),
        parameters=(SALE, cursor_parameter(Sku), LIMIT),
    ),
]
