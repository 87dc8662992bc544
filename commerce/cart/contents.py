"""Shows stored carts with the prices, units and warnings of this moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from commerce.cart.model import (
    Cart,
    CartLine,
    CartSale,
    CartWarning,
    OfferedSale,
    ShopView,
    StoredCart,
    StoredLine,
    WarningCode,
)
from commerce.kernel.money import Money
from commerce.sales.model import SaleState


def show_cart(
    stored: StoredCart, shop: ShopView, guest_id: str | None, more_warnings: Sequence[CartWarning] = ()
) -> Cart:
    """Show a cart; `more_warnings` come first.

    Sales stand in the order in which their first line was added.
    """
    by_sale: dict[str, list[StoredLine]] = {}
    for line in stored.lines:
        by_sale.setdefault(line.sale_id, []).append(line)
    sales = [_show_sale(sale_id, lines, shop) for sale_id, lines in by_sale.items()]
    warnings = chain.from_iterable(list_warnings(line, shop) for line in stored.lines)
    totals: dict[str, int] = {}
    for sale in sales:
        if sale.total is not None:
            totals[sale.total.currency] = totals.get(sale.total.currency, 0) + sale.total.amount
    return Cart(
        cart_id=guest_id,
        version=stored.version,
        sales=sales,
        totals=[Money(amount, currency) for currency, amount in sorted(totals.items())],
        warnings=[*more_warnings, *warnings],
        checkout=stored.checkout,
    )


def _show_sale(sale_id: str, lines: Sequence[StoredLine], shop: ShopView) -> CartSale:
    terms = shop.sales.get(sale_id)
    shown = [_show_line(line, terms, shop) for line in lines]
    if terms is None:
        return CartSale(sale_id, None, None, None, None, None, shown, None, None, [])
    priced = shop.prices.get(sale_id)
    return CartSale(
        sale_id,
        terms.title,
        terms.state,
        terms.opens_at,
        terms.closes_at,
        terms.currency,
        shown,
        priced.price if priced else None,
        Money(priced.total if priced else 0, terms.currency),
        priced.promotions if priced else [],
    )


def _show_line(line: StoredLine, terms: OfferedSale | None, shop: ShopView) -> CartLine:
    item = None if terms is None else terms.items.get(line.sku)
    return CartLine(
        sku=line.sku,
        name=shop.names.get(line.sku),
        quantity=line.quantity,
        selected=line.selected,
        saved=line.saved,
        price=item.price if item else None,
        accepted_price=line.accepted_price_minor,
        limit_per_user=(item.limit or None) if item else None,
        available=shop.units.get(line.key) if item else None,
        added_at=line.added_at,
    )


def list_warnings(line: StoredLine, shop: ShopView) -> Iterator[CartWarning]:
    """Yield what the customer should know about a line."""
    terms = shop.sales.get(line.sale_id)
    item = None if terms is None else terms.items.get(line.sku)
    if terms is None or item is None:
        yield CartWarning("gone", *line.key)
        return
    price, limit = item.price, item.limit
    if price != line.accepted_price_minor:
        yield CartWarning("price_changed", *line.key, old_price=line.accepted_price_minor, new_price=price)
    if (code := _find_sale_warning(terms, shop)) is not None:
        yield CartWarning(code, *line.key)
    if code != "sale_closed":
        available = shop.units.get(line.key)
        if available is not None and available < line.quantity:
            yield CartWarning("too_few_units" if available else "sold_out", *line.key, available=available)
        if limit and line.quantity > limit:
            yield CartWarning("over_limit", *line.key, limit=limit)


def _find_sale_warning(terms: OfferedSale, shop: ShopView) -> WarningCode | None:
    if terms.state is SaleState.CLOSED or (terms.closes_at is not None and terms.closes_at <= shop.now):
        return "sale_closed"
    if terms.state is SaleState.PAUSED:
        return "sale_paused"
    return "sale_not_open" if shop.now < terms.opens_at else None
