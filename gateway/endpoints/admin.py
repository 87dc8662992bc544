"""Staff operations on variants, sales, stock and dead letters. On the admin port, by role."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.catalog.model import Sku, Variant, VariantInput
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.paging import Page
from commerce.sale_changes.opening import SaleOpening
from commerce.sale_changes.opening_model import OpeningGaps, OpenSale
from commerce.sales.model import ItemInput, Sale, SaleId, SaleInput, StockChange, StockChangeInput
from gateway.endpoints.parameters import LIMIT, ORDER, SALE, SKU, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_CHANGE = Parameter(
    name="Idempotency-Key",
    location="header",
    type=UUID,
    description="a UUIDv7 of the change; a repeat with it changes nothing more",
    required=True,
)


class NewSale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sale and its items by SKU."""

    sale: SaleInput
    items: dict[Sku, ItemInput] = {}


class NewItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items by SKU."""

    items: Annotated[dict[Sku, ItemInput], msgspec.Meta(min_length=1, max_length=10_000)]


class StockChangeList(msgspec.Struct, frozen=True):
    """Stock changes of a sale, latest first."""

    items: list[StockChange]


async def put_variant(call: Call) -> web.Response:
    """Create a product on sale with one variant, or change name and price of a variant.

    Prices in existing sales stay as they are.
    """
    variant = await call.services.catalog.put(call.parameters["sku"], call.body, call.staff_actor)
    return json_response(variant)


async def create_sale(call: Call) -> web.Response:
    """Create a draft of a sale."""
    new_sale: NewSale = call.body
    sale = await call.services.sales.create(new_sale.sale, list(new_sale.items.items()), call.staff_actor)
    return json_response(sale, 201, {"Location": f"/v1/admin/sales/{sale.sale_id}"})


async def list_all_sales(call: Call) -> web.Response:
    """List all sales, drafts included."""
    return json_response(await call.services.sales.list_sales(call.parameters["cursor"], page_size(call), drafts=True))


async def get_any_sale(call: Call) -> web.Response:
    """Read one sale, which may be a draft."""
    return json_response(await call.services.sales.get(call.parameters["sale_id"]))


async def put_items(call: Call) -> web.Response:
    """Set items of a draft, or add new items to a running sale; items that are not named stay.

    An item is set whole: what is left out of it gets its default. Items added to a running sale have 0 units; a stock
    change adds some.
    """
    await call.services.sales.put_items(call.parameters["sale_id"], list(call.body.items.items()), call.staff_actor)
    return json_response(await call.services.sales.get(call.parameters["sale_id"]))


async def open_sale(call: Call) -> web.Response:
    """Load the stock of a draft, which takes orders from its opening time on; or continue a paused sale.

    A draft that lacks what its orders will need is refused, and `gaps` of the problem list it. With the reason `anyway`
    it is opened all the same.
    """
    services, body = call.services, call.body or OpenSale()
    opening = SaleOpening(services.db, services.sales, services.clock)
    sale, _ = await opening.open(call.parameters["sale_id"], call.staff_actor, body.anyway)
    return json_response(sale)


async def list_opening_gaps(call: Call) -> web.Response:
    """List what a sale lacks for its orders, each with what to do.

    Weight, size, warehouse, rate, price, units in warehouses."""
    services = call.services
    gaps = await SaleOpening(services.db, services.sales, services.clock).list_gaps(call.parameters["sale_id"])
    return json_response(OpeningGaps(gaps))


async def pause_sale(call: Call) -> web.Response:
    """Refuse orders until the sale is opened again."""
    return json_response(await call.services.sales.pause(call.parameters["sale_id"], call.staff_actor))


async def close_sale(call: Call) -> web.Response:
    """End a sale permanently."""
    return json_response(await call.services.sales.close(call.parameters["sale_id"], call.staff_actor))


async def change_stock(call: Call) -> web.Response:
    """Add units to a running sale or take free ones away, atomically; recorded with actor and reason."""
    sale_id, change_id = call.parameters["sale_id"], call.parameters["Idempotency-Key"]
    return json_response(await call.services.stock.changes.change(sale_id, change_id, call.body, call.staff_actor))


async def list_stock_changes(call: Call) -> web.Response:
    """List the latest stock changes of a sale."""
    await call.services.sales.get(call.parameters["sale_id"])
    changes = await call.services.stock.changes.list_changes(call.parameters["sale_id"], page_size(call))
    return json_response(StockChangeList(changes))


async def list_dead_letters(call: Call) -> web.Response:
    """List accepted orders that could not be stored and wait for a decision."""
    return json_response(await call.services.dead_letters.list_letters(call.parameters["cursor"], page_size(call)))


async def show_dead_letter(call: Call) -> web.Response:
    """Read one dead letter with the order that it holds."""
    return json_response(await call.services.dead_letters.get(call.parameters["order_id"]))


async def retry_dead_letter(call: Call) -> web.Response:
    """Store the order now."""
    return json_response(await call.services.dead_letters.retry(call.parameters["order_id"], call.staff_actor))


async def discard_dead_letter(call: Call) -> web.Response:
    """Discard the order and release its stock."""
    return json_response(await call.services.dead_letters.discard(call.parameters["order_id"], call.staff_actor))


_SALES_PATH = "/v1/admin/sales"
_SALE_PATH = f"{_SALES_PATH}/{{sale_id}}"
_DEAD_LETTERS_PATH = "/v1/admin/dead-letters"
_DEAD_LETTER_PATH = f"{_DEAD_LETTERS_PATH}/{{order_id}}"
_SALE_ANSWER = {200: ("the sale", Sale)}
_DEAD_LETTER_ANSWER = {200: ("the dead letter", DeadLetter)}
_sales = partial(Operation, tag="staff: sales", access="sales")
_support = partial(Operation, tag="staff: support", access="support")

OPERATIONS = [
    Operation(
        method="PUT",
        path="/v1/admin/variants/{sku}",
        handler=put_variant,
        summary="Put a variant",
        tag="staff: catalog",
        access="catalog",
        answers={200: ("the variant", Variant)},
        problems=(409, 503),
        parameters=(SKU,),
        body=VariantInput,
    ),
    _sales(
        method="POST",
        is_one_transaction=True,
        path=_SALES_PATH,
        handler=create_sale,
        summary="Create a sale",
        answers={201: ("the draft", Sale)},
        problems=(409, 503),
        body=NewSale,
    ),
    _sales(
        method="GET",
        path=_SALES_PATH,
        handler=list_all_sales,
        summary="List all sales",
        answers={200: ("a page", Page[Sale])},
        problems=(503,),
        parameters=(cursor_parameter(SaleId), LIMIT),
    ),
    _sales(
        method="GET",
        path=_SALE_PATH,
        handler=get_any_sale,
        summary="Read any sale",
        answers=_SALE_ANSWER,
        problems=(404, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="PUT",
        path=f"{_SALE_PATH}/items",
        handler=put_items,
        summary="Put items",
        answers=_SALE_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=NewItems,
    ),
    _sales(
        method="POST",
        path=f"{_SALE_PATH}/open",
        handler=open_sale,
        summary="Open a sale",
        answers=_SALE_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=OpenSale,
        is_body_optional=True,
    ),
    _sales(
        method="GET",
        path=f"{_SALE_PATH}/gaps",
        handler=list_opening_gaps,
        summary="List what a sale lacks",
        answers={200: ("all that it lacks", OpeningGaps)},
        problems=(404, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="POST",
        path=f"{_SALE_PATH}/pause",
        handler=pause_sale,
        summary="Pause a sale",
        answers=_SALE_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="POST",
        path=f"{_SALE_PATH}/close",
        handler=close_sale,
        summary="Close a sale",
        answers=_SALE_ANSWER,
        problems=(404, 409, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="POST",
        path=f"{_SALE_PATH}/stock-changes",
        handler=change_stock,
        summary="Change stock",
        answers={200: ("the recorded change", StockChange)},
        problems=(404, 409, 503),
        parameters=(SALE, _CHANGE),
        body=StockChangeInput,
    ),
    _sales(
        method="GET",
        path=f"{_SALE_PATH}/stock-changes",
        handler=list_stock_changes,
        summary="List stock changes",
        answers={200: ("the latest changes", StockChangeList)},
        problems=(404, 503),
        parameters=(SALE, LIMIT),
    ),
    _support(
        method="GET",
        access="support_read",
        path=_DEAD_LETTERS_PATH,
        handler=list_dead_letters,
        summary="List dead letters",
        answers={200: ("a page", Page[DeadLetter])},
        problems=(503,),
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _support(
        method="GET",
        access="support_read",
        path=_DEAD_LETTER_PATH,
        handler=show_dead_letter,
        summary="Show a dead letter",
        answers=_DEAD_LETTER_ANSWER,
        problems=(404, 503),
        parameters=(ORDER,),
    ),
    _support(
        method="POST",
        path=f"{_DEAD_LETTER_PATH}/retry",
        handler=retry_dead_letter,
        summary="Retry a dead letter",
        answers=_DEAD_LETTER_ANSWER,
        problems=(404, 409, 503),
        parameters=(ORDER,),
    ),
    _support(
        method="POST",
        path=f"{_DEAD_LETTER_PATH}/discard",
        handler=discard_dead_letter,
        summary="Discard a dead letter",
        answers=_DEAD_LETTER_ANSWER,
        problems=(404, 409, 503),
        parameters=(ORDER,),
    ),
]
