"""What shoppers want: one thing, or a mixed basket for several addresses that is paid in several ways."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from commerce.kernel.address import Address
from commerce.orders.model import LineSplit, Method, OrderLineInput, PlaceOrder, Tender
from commerce.sales.model import Offer

DEMO_SALE, DEMO_SKU = "midnight", "PHONE-X1"
"""of the shop that `floodgate up` makes"""
chance = Random()  # noqa: S311  # nothing secret
ADDRESSES = (
    Address("张三", "13800000000", "CN", "杭州", "文一西路 969 号", "浙江", "西湖", "310000"),
    Address("Li Si", "+86 139 0000 0001", "CN", "Shanghai", "Century Avenue 100", "Shanghai", "Pudong", "200120"),
    Address("Wang Wu", "13700000002", "CN", "Chengdu", "Chunxi Road 8", "Sichuan", "Jinjiang", "610000"),
    Address("Zhao Liu", "13600000003", "CN", "Harbin", "Central Street 88", "Heilongjiang", "Daoli", "150000"),
)
_METHODS: tuple[Method, ...] = ("alipay", "wechatpay", "balance", "cod")
_MOST_SKUS, _MOST_UNITS, _MOST_ADDRESSES = 5, 3, 3


def single_item_order(sale_id: str, sku: str) -> PlaceOrder:
    """One unit to one address; how it is paid is chosen later."""
    return PlaceOrder(sale_id, [OrderLineInput(sku, 1)], [ADDRESSES[0]])


def mixed_order(sale_id: str, offers: Mapping[str, Offer]) -> PlaceOrder:
    """One to five SKUs; one order in four goes to several addresses, and most say how they are paid."""
    skus = chance.sample(sorted(offers), chance.randint(1, min(_MOST_SKUS, len(offers))))
    addresses = chance.randint(2, _MOST_ADDRESSES) if chance.random() < 0.25 else 1
    lines, total = [], 0
    for sku in skus:
        offer = offers[sku]
        quantity = chance.randint(1, min(_MOST_UNITS, offer.limit_per_user or _MOST_UNITS))
        lines.append(OrderLineInput(sku, quantity, _ship_to(quantity, addresses)))
        total += quantity * offer.price
    return PlaceOrder(sale_id, lines, chance.sample(ADDRESSES, addresses), _payments(total))


def _ship_to(quantity: int, addresses: int) -> int | list[LineSplit]:
    """One of the addresses, or the quantity split over two of them."""
    if addresses == 1 or quantity == 1 or chance.random() < 0.5:
        return chance.randrange(addresses)
    first, second = chance.sample(range(addresses), 2)
    part = chance.randint(1, quantity - 1)
    return [LineSplit(first, part), LineSplit(second, quantity - part)]


def _payments(total: int) -> list[Tender]:
    """None yet, or one, or two that add up to the total."""
    ways = chance.choice((0, 1, 1, 2))
    if ways == 0 or total < ways:
        return []
    methods = chance.sample(_METHODS, ways)
    if ways == 1:
        return [Tender(methods[0], total)]
    part = chance.randint(1, total - 1)
    return [Tender(methods[0], part), Tender(methods[1], total - part)]
