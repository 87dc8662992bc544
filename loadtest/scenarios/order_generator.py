"""Random orders: single items, or mixed baskets for several addresses with several payments."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import get_args

from commerce.kernel.address import Address
from commerce.orders.model import LineSplit, Method, OrderLineInput, PlaceOrder, Tender
from commerce.sales.model import Offer

DEMO_SALE, DEMO_SKU = "midnight", "PHONE-X1"
"""of the shop that `floodgate up` creates"""
chance = Random()  # noqa: S311  # nothing secret
ADDRESSES = (
    Address("张三", "13800000000", "CN", "杭州", "文一西路 969 号", "浙江", "西湖", "310000"),
    Address("Li Si", "+86 139 0000 0001", "CN", "Shanghai", "Century Avenue 100", "Shanghai", "Pudong", "200120"),
    Address("Wang Wu", "13700000002", "CN", "Chengdu", "Chunxi Road 8", "Sichuan", "Jinjiang", "610000"),
    Address("Zhao Liu", "13600000003", "CN", "Harbin", "Central Street 88", "Heilongjiang", "Daoli", "150000"),
)
_METHODS: tuple[Method, ...] = get_args(Method)
_MAX_SKUS, _MAX_UNITS, _MAX_ADDRESSES = 5, 3, 3


def single_item_order(sale_id: str, sku: str) -> PlaceOrder:
    """Return an order of one unit to one address, without payments."""
    return PlaceOrder(sale_id, [OrderLineInput(sku, 1)], [ADDRESSES[0]])


def paid_order(sale_id: str, offer: Offer, method: Method) -> PlaceOrder:
    """Return an order of one unit to one address, paid by one method."""
    return PlaceOrder(sale_id, [OrderLineInput(offer.sku, 1)], [ADDRESSES[0]], [Tender(method, offer.price)])


def mixed_order(sale_id: str, offers: Mapping[str, Offer]) -> PlaceOrder:
    """Return an order of one to five SKUs.

    One order in four has several addresses, and most name their payments.
    """
    skus = chance.sample(sorted(offers), chance.randint(1, min(_MAX_SKUS, len(offers))))
    addresses = chance.randint(2, _MAX_ADDRESSES) if chance.random() < 0.25 else 1
    lines, total = [], 0
    for sku in skus:
        offer = offers[sku]
        quantity = chance.randint(1, min(_MAX_UNITS, offer.limit_per_user or _MAX_UNITS))
        lines.append(OrderLineInput(sku, quantity, _choose_addresses(quantity, addresses)))
        total += quantity * offer.price
    return PlaceOrder(sale_id, lines, chance.sample(ADDRESSES, addresses), _choose_tenders(total))


def _choose_addresses(quantity: int, addresses: int) -> int | list[LineSplit]:
    """Return one of the addresses, or the quantity split over two of them."""
    if addresses == 1 or quantity == 1 or chance.random() < 0.5:
        return chance.randrange(addresses)
    first, second = chance.sample(range(addresses), 2)
    part = chance.randint(1, quantity - 1)
    return [LineSplit(first, part), LineSplit(second, quantity - part)]


def _choose_tenders(total: int) -> list[Tender]:
    """Return no tender, one, or two that add up to the total."""
    count = chance.choice((0, 1, 1, 2))
    if count == 0 or total < count:
        return []
    methods = chance.sample(_METHODS, count)
    if count == 1:
        return [Tender(methods[0], total)]
    part = chance.randint(1, total - 1)
    return [Tender(methods[0], part), Tender(methods[1], total - part)]
