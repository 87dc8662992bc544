"""What staff do: products, sales, stock, orders, dead letters. On the admin port, by role."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.catalog.model import Product, ProductInput, Sku
from commerce.dead_letters.model import DeadLetter
from commerce.kernel.money import Minor
from commerce.kernel.paging import Page
from commerce.kernel.types import Reason
from commerce.orders.model import OrderDetails
from commerce.orders.service import Actor
from commerce.sales.model import ItemInput, Limit, Sale, SaleId, SaleInput, SaleItem, StockChange, StockChangeInput
from gateway.endpoints.catalog import LIMIT, SALE, SKU, cursor_parameter, page_size
from gateway.endpoints.orders import CANCEL_WAIT_S
from gateway.operations import Call, Operation, Parameter, json_response

_ORDER = Parameter("order_id", "path", UUID, "the order's id")
_CHANGE = Parameter(
    "Idempotency-Key", "header", UUID, "a UUIDv7 of the change; a repeat with it changes nothing more", required=True
)


class NewSale(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sale and what it offers, by SKU."""

    sale: SaleInput
    items: dict[Sku, ItemInput] = {}


class NewItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items by SKU."""

    items: Annotated[dict[Sku, ItemInput], msgspec.Meta(min_length=1, max_length=10_000)]


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item's price in minor units, and its limit a user."""

    price: Minor
    limit: Limit | None = None


class CancelInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why staff cancel an order; the customer sees it among the order's events."""

    reason: Reason


class StockChangeList(msgspec.Struct, frozen=True):
    """The latest first."""

    items: list[StockChange]


def _actor(call: Call) -> str:
    return f"staff {call.identity.subject}"


async def put_product(call: Call) -> web.Response:
    """Make or change a product. Prices in running sales stay as they are."""
    return json_response(await call.services.catalog.put(call.parameters["sku"], call.body))


async def create_sale(call: Call) -> web.Response:
    """Make a draft of a sale."""
    made: NewSale = call.body
    sale = await call.services.sales.create(made.sale, list(made.items.items()), _actor(call))
    return json_response(sale, 201, {"Location": f"/v1/admin/sales/{sale.sale_id}"})


async def list_all_sales(call: Call) -> web.Response:
    """All sales, drafts too."""
    return json_response(await call.services.sales.page(call.parameters["cursor"], page_size(call), drafts=True))


async def get_any_sale(call: Call) -> web.Response:
    """One sale, a draft too."""
    return json_response(await call.services.sales.get(call.parameters["sale_id"]))


async def put_items(call: Call) -> web.Response:
    """Set items of a draft, or add new ones to a running sale (with 0 units; stock comes by a stock change)."""
    await call.services.sales.put_items(call.parameters["sale_id"], list(call.body.items.items()), _actor(call))
    return json_response(await call.services.sales.get(call.parameters["sale_id"]))


async def change_terms(call: Call) -> web.Response:
    """Change an item's price and limit. No order is accepted on the old terms once this has answered."""
    terms: Terms = call.body
    sale_id, sku = call.parameters["sale_id"], call.parameters["sku"]
    return json_response(await call.services.sales.change_item(sale_id, sku, terms.price, terms.limit, _actor(call)))


async def open_sale(call: Call) -> web.Response:
    """Load the stock of a draft and take orders from its opening time on; or go on with a paused sale."""
    return json_response(await call.services.sales.open(call.parameters["sale_id"], _actor(call)))


async def pause_sale(call: Call) -> web.Response:
    """Take no orders until it is opened again."""
    return json_response(await call.services.sales.pause(call.parameters["sale_id"], _actor(call)))


async def close_sale(call: Call) -> web.Response:
    """End a sale for good."""
    return json_response(await call.services.sales.close(call.parameters["sale_id"], _actor(call)))


async def change_stock(call: Call) -> web.Response:
    """Add units to a running sale or take free ones away, atomically; recorded with who and why."""
    sale_id, change_id = call.parameters["sale_id"], call.parameters["Idempotency-Key"]
    return json_response(await call.services.stock.change(sale_id, change_id, call.body, _actor(call)))


async def list_stock_changes(call: Call) -> web.Response:
    """The latest stock changes of a sale."""
    await call.services.sales.get(call.parameters["sale_id"])
    changes = await call.services.stock.changes(call.parameters["sale_id"], page_size(call))
    return json_response(StockChangeList(changes))


async def list_dead_letters(call: Call) -> web.Response:
    """Accepted orders that could not be written and wait for a decision."""
    found = await call.services.dead_letters.page(call.parameters["cursor"], page_size(call))
    return json_response(found)


async def show_dead_letter(call: Call) -> web.Response:
    """One of them with the order it holds."""
    return json_response(await call.services.dead_letters.show(call.parameters["order_id"]))


async def retry_dead_letter(call: Call) -> web.Response:
    """Write the order now."""
    return json_response(await call.services.dead_letters.retry(call.parameters["order_id"], _actor(call)))


async def discard_dead_letter(call: Call) -> web.Response:
    """Give the order up; its goods go back."""
    return json_response(await call.services.dead_letters.discard(call.parameters["order_id"], _actor(call)))


async def show_any_order(call: Call) -> web.Response:
    """Anybody's order, with its customer, the address and all that happened to it."""
    services = call.services
    return json_response(await services.orders.show(call.parameters["order_id"], services.snapshots.loaded()))


async def cancel_any_order(call: Call) -> web.Response:
    """Cancel an order that is not paid; its customer gets to see the reason. A repeat gives the same answer."""
    services, order_id = call.services, call.parameters["order_id"]
    sales, wanted = services.snapshots.loaded(), call.body
    await services.orders.cancel(order_id, Actor(None, _actor(call)), sales, CANCEL_WAIT_S, wanted.reason)
    return json_response(await services.orders.show(order_id, sales))


_SALES_ANSWER = {200: ("a page", Page[Sale])}
_SALE_ANSWER = {200: ("the sale", Sale)}
_LETTER = {200: ("the dead letter", DeadLetter)}
_FILE = {200: ("the order, its customer and its events", OrderDetails)}

OPERATIONS = [
    Operation(
        "PUT",
        "/v1/admin/products/{sku}",
        put_product,
        "Put a product",
        "staff: catalogue",
        "catalog",
        {200: ("the product", Product)},
        (503,),
        (SKU,),
        ProductInput,
    ),
    *(
        Operation(method, path, handler, summary, "staff: sales", "sales", answers, problems, parameters, body)  # type: ignore[arg-type]
        for method, path, handler, summary, answers, problems, parameters, body in (
            ("POST", "", create_sale, "Create a sale", {201: ("the draft", Sale)}, (409, 503), (), NewSale),
            (
                "GET",
                "",
                list_all_sales,
                "List all sales",
                {200: ("a page", Page[Sale])},
                (503,),
                (cursor_parameter(SaleId), LIMIT),
                None,
            ),
            ("GET", "/{sale_id}", get_any_sale, "Read any sale", _SALE_ANSWER, (404, 503), (SALE,), None),
            ("PUT", "/{sale_id}/items", put_items, "Put items", _SALE_ANSWER, (404, 409, 503), (SALE,), NewItems),
            (
                "PUT",
                "/{sale_id}/items/{sku}",
                change_terms,
                "Change an item's terms",
                {200: ("the item", SaleItem)},
                (404, 409, 503),
                (SALE, SKU),
                Terms,
            ),
            ("POST", "/{sale_id}/open", open_sale, "Open a sale", _SALE_ANSWER, (404, 409, 503), (SALE,), None),
            ("POST", "/{sale_id}/pause", pause_sale, "Pause a sale", _SALE_ANSWER, (404, 409, 503), (SALE,), None),
            ("POST", "/{sale_id}/close", close_sale, "Close a sale", _SALE_ANSWER, (404, 409, 503), (SALE,), None),
            (
                "POST",
                "/{sale_id}/stock-changes",
                change_stock,
                "Change stock",
                {200: ("the recorded change", StockChange)},
                (404, 409, 503),
                (SALE, _CHANGE),
                StockChangeInput,
            ),
            (
                "GET",
                "/{sale_id}/stock-changes",
                list_stock_changes,
                "List stock changes",
                {200: ("the latest", StockChangeList)},
                (404, 503),
                (SALE, LIMIT),
                None,
            ),
        )
        for path in [f"/v1/admin/sales{path}"]
    ),
    *(
        Operation(method, path, handler, summary, "staff: support", "support", answers, problems, parameters)  # type: ignore[arg-type]
        for method, path, handler, summary, answers, problems, parameters in (
            (
                "GET",
                "",
                list_dead_letters,
                "List dead letters",
                {200: ("a page", Page[DeadLetter])},
                (503,),
                (cursor_parameter(UUID), LIMIT),
            ),
            ("GET", "/{order_id}", show_dead_letter, "Show a dead letter", _LETTER, (404, 503), (_ORDER,)),
            ("POST", "/{order_id}/retry", retry_dead_letter, "Retry one", _LETTER, (404, 409, 503), (_ORDER,)),
            ("POST", "/{order_id}/discard", discard_dead_letter, "Discard one", _LETTER, (404, 409, 503), (_ORDER,)),
        )
        for path in [f"/v1/admin/dead-letters{path}"]
    ),
    Operation(
        "GET",
        "/v1/admin/orders/{order_id}",
        show_any_order,
        "Read any order",
        "staff: support",
        "support",
        _FILE,
        (404, 503),
        (_ORDER,),
    ),
    Operation(
        "POST",
        "/v1/admin/orders/{order_id}/cancel",
        cancel_any_order,
        "Cancel any order",
        "staff: support",
        "support",
        _FILE,
        (404, 409, 503),
        (_ORDER,),
        CancelInput,
    ),
]
