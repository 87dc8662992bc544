"""Staff operations that change or delete a sale and its items. On the admin port, for the role sales."""

from __future__ import annotations

from functools import partial

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from commerce.kernel.money import Price, check_price
from commerce.sale_changes.model import ChangedSale
from commerce.sale_changes.service import SaleChanges
from commerce.sales.model import Limit, Sale, SaleItem, Units
from gateway.endpoints.parameters import SALE, SKU
from gateway.operations import Call, Operation, json_response


class ChangedTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changed terms of an item: an absent member leaves its value, and null removes the limit.

    `units`, the stock at opening, is only for drafts.
    """

    price: Price | UnsetType = UNSET
    limit_per_user: Limit | UnsetType | None = UNSET
    units: Units | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.price is not UNSET:
            check_price(self.price)


def _changes_of(call: Call) -> SaleChanges:
    services = call.services
    return SaleChanges(services.db, services.redis, services.sales, services.clock)


async def change_sale(call: Call) -> web.Response:
    """Change a draft; of an opened sale the title, the end and the time to pay. What is left out stays.

    Redis is the judge of the end: a new one holds once `published_generation` equals `generation`.
    """
    return json_response(await _changes_of(call).change(call.parameters["sale_id"], call.body, call.staff_actor))


async def delete_sale(call: Call) -> web.Response:
    """Delete a draft with its items, its wait-list and its waiting room, which must be off.

    A repeat answers 404.
    """
    await _changes_of(call).delete(call.parameters["sale_id"], call.staff_actor)
    return web.Response(status=204)


async def change_terms(call: Call) -> web.Response:
    """Change an item; what is left out stays, and null removes the limit. Units only of a draft.

    No order is accepted on the old terms after the answer, once `published_generation` equals `generation`.
    """
    terms: ChangedTerms = call.body
    sale_id, sku = call.parameters["sale_id"], call.parameters["sku"]
    return json_response(
        await call.services.sales.change_item(
            sale_id, sku, terms.price, terms.limit_per_user, call.staff_actor, terms.units
        )
    )


async def remove_item(call: Call) -> web.Response:
    """Remove an item of a draft. A repeat answers 404."""
    await _changes_of(call).remove_item(call.parameters["sale_id"], call.parameters["sku"], call.staff_actor)
    return web.Response(status=204)


_SALE_PATH = "/v1/admin/sales/{sale_id}"
_ITEM_PATH = f"{_SALE_PATH}/items/{{sku}}"
_sales = partial(Operation, tag="staff: sales", access="sales")

ADMIN = [
    _sales(
        method="PATCH",
        path=_SALE_PATH,
        handler=change_sale,
        summary="Change a sale",
        answers={200: ("the sale", Sale)},
        problems=(404, 409, 503),
        parameters=(SALE,),
        body=ChangedSale,
    ),
    _sales(
        method="DELETE",
        path=_SALE_PATH,
        handler=delete_sale,
        summary="Delete a draft",
        answers={204: ("the draft is deleted", None)},
        problems=(404, 409, 503),
        parameters=(SALE,),
    ),
    _sales(
        method="PATCH",
        path=_ITEM_PATH,
        handler=change_terms,
        summary="Change an item's terms",
        answers={200: ("the item", SaleItem)},
        problems=(404, 409, 503),
        parameters=(SALE, SKU),
        body=ChangedTerms,
    ),
    _sales(
        method="DELETE",
        path=_ITEM_PATH,
        handler=remove_item,
        summary="Remove an item",
        answers={204: ("the item is removed", None)},
        problems=(404, 409, 503),
        parameters=(SALE, SKU),
    ),
]
