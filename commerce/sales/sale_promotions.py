"""Staff's changes of a sale's promotions, which are terms of the sale, and trying them with an order."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

import msgspec

from commerce.kernel.clock import Clock, from_ms, to_ms
from commerce.kernel.coupon_skus import coupon_sku, first_order_code
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.stream_payload import AcceptedLine
from commerce.promotions.errors import NoSuchPromotion
from commerce.promotions.explanation import explain
from commerce.promotions.model import (
    ChangedPromotion,
    PricedLine,
    Promotion,
    PromotionInput,
    PromotionTrial,
    TrialOrder,
)
from commerce.promotions.promotion_checks import check_promotion
from commerce.promotions.service import Promotions, apply_changes, to_promotion
from commerce.promotions.sharing import share_to_lines
from commerce.sales import store, term_store
from commerce.sales.errors import InvalidSaleState, NoSuchSale
from commerce.sales.model import MAX_UNITS, Sale, SaleState, StockChangeInput
from commerce.sales.service import Sales
from commerce.sales.stock_changes import RecordedChange, StockChanges

_MAX_LOGGED_SKUS = 100
_FIRST_ORDERS = MAX_UNITS


class SalePromotions:
    """The promotions of sales.

    A change raises the sale's generation in its transaction and is published then, as a change of a price is: once
    Redis has it, no order is accepted on the terms before.
    """

    def __init__(
        self, db: Database, sales: Sales, stock: StockChanges, clock: Clock, ids: IdGenerator, max_per_sale: int
    ) -> None:
        self._db = db
        self._sales = sales
        self._stock = stock
        self._clock = clock
        self._ids = ids
        self._promotions = Promotions(max_per_sale)

    async def create(self, sale_id: str, new: PromotionInput, actor: str) -> Promotion:
        """Create a promotion. To repeat it changes nothing.

        Raises `NoSuchSale`, `InvalidSaleState` if the sale is closed, `Invalid` with JSON pointers, `Conflict` if the
        id is taken, or `TooManyPromotions`.
        """
        promotion, recorded = to_promotion(sale_id, new), None
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            if not await self._promotions.is_repeat(connection, promotion):
                await _check(connection, sale, promotion)
                generation = await store.increase_generation(connection, sale_id)
                await self._promotions.add(connection, promotion, generation, self._now())
                recorded = await self._count_first_orders(connection, sale, promotion, generation, actor)
                await self._log(connection, promotion, actor, "create_promotion", _logged(promotion))
        await self._publish(sale_id, recorded)
        return promotion

    async def change(self, sale_id: str, promotion_id: str, changes: ChangedPromotion, actor: str) -> Promotion:
        """Change terms of a promotion; what is absent stays, and null removes a restriction.

        Raises as `create` does, or `NoSuchPromotion`.
        """
        recorded = None
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            current = await self._promotions.get(connection, sale_id, promotion_id)
            promotion = apply_changes(current, changes)
            if promotion != current:
                if promotion != msgspec.structs.replace(current, enabled=False):  # to disable is never refused
                    await _check(connection, sale, promotion)
                generation = await store.increase_generation(connection, sale_id)
                await self._promotions.replace(connection, promotion, generation, self._now())
                recorded = await self._count_first_orders(connection, sale, promotion, generation, actor)
                detail = {"from": _logged(current), "to": _logged(promotion)}
                await self._log(connection, promotion, actor, "change_promotion", detail)
        await self._publish(sale_id, recorded)
        return promotion

    async def _publish(self, sale_id: str, recorded: RecordedChange | None) -> None:
        """Publish the new terms after their commit, with the units of first orders if they are new."""
        failpoint("sale.after_promotion")
        await self._sales.sync_to_redis(sale_id)
        if recorded is not None:
            await self._stock.apply_recorded(recorded)

    async def _count_first_orders(
        self, connection: Connection, sale: Sale, promotion: Promotion, generation: int, actor: str
    ) -> RecordedChange | None:
        """Give a promotion for new customers an item of its own, of which each user may have one.

        In a sale that was opened its units are a stock change, which is to be applied after the commit.
        """
        if not promotion.new_customers_only:
            return None
        code, is_draft = first_order_code(promotion.promotion_id), sale.state is SaleState.DRAFT
        units = _FIRST_ORDERS if is_draft else 0
        is_new = await term_store.insert_first_order_item(connection, sale.sale_id, code, units, generation)
        if not is_new or is_draft:
            return None
        change = StockChangeInput(coupon_sku(code), _FIRST_ORDERS, f"first orders with {promotion.promotion_id}")
        return await self._stock.record(connection, sale.sale_id, self._ids.new(), change, actor)

    async def disable(self, sale_id: str, promotion_id: str, actor: str) -> Promotion:
        """Disable a promotion. To repeat it changes nothing."""
        return await self.change(sale_id, promotion_id, ChangedPromotion(enabled=False), actor)

    async def delete(self, sale_id: str, promotion_id: str, actor: str) -> None:
        """Delete a promotion of a draft. To repeat it changes nothing.

        Raises `InvalidSaleState` if the sale was opened: its orders may name the promotion, so it can only be disabled.
        Raises `Conflict` if it has coupons.
        """
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            if sale.state is not SaleState.DRAFT:
                raise InvalidSaleState(f"cannot delete {promotion_id}: {sale_id} was opened; disable it instead")
            if codes := await term_store.list_coupons_of_promotion(connection, sale_id, promotion_id):
                raise Conflict(f"cannot delete {promotion_id}: change its coupons first: {', '.join(codes)}")
            promotion = await self._promotions.delete(connection, sale_id, promotion_id)
            if promotion is not None:
                await term_store.delete_first_order_item(connection, sale_id, first_order_code(promotion_id))
                await store.increase_generation(connection, sale_id)
                await self._log(connection, promotion, actor, "delete_promotion", _logged(promotion))

    async def get(self, sale_id: str, promotion_id: str) -> Promotion:
        """Read a promotion. Raises `NoSuchPromotion`."""
        async with self._db.connection() as connection:
            return await self._promotions.get(connection, sale_id, promotion_id)

    async def list_promotions(self, sale_id: str, after: str | None, size: int) -> Page[Promotion]:
        """List the promotions of a sale by id. Raises `NoSuchSale`."""
        await self._sales.get(sale_id)
        async with self._db.connection() as connection:
            promotions = await self._promotions.list_promotions(connection, sale_id, after or "", size + 1)
        return to_page(promotions, size, lambda promotion: promotion.promotion_id)

    async def try_order(
        self, sale_id: str, order: TrialOrder, coupons: Collection[str], is_new_customer: bool, at: datetime | None
    ) -> PromotionTrial:
        """Price an order by the promotions of a sale, at a moment or now, and explain each of them.

        `coupons` are ids of promotions. Nothing is reserved, and stock and limits are not looked at. Raises
        `NoSuchSale`, `NoSuchPromotion` for a coupon's, or `Invalid` for a SKU that the sale does not offer.
        """
        sale = await self._sales.get(sale_id)
        skus = sorted({line.sku for line in order.lines})
        async with self._db.connection() as connection:
            prices = await term_store.read_item_prices(connection, sale_id, skus)
            items = {sku: (price,) for sku, price in prices.items()}
            compiled = await self._promotions.compile(connection, sale_id, items)
        with_coupons = [promotion.promotion_id for promotion in compiled.promotions if promotion.needs_coupon]
        if missing := sorted(set(coupons).difference(with_coupons)):
            names = ", ".join(with_coupons[:10]) or "none"
            raise NoSuchPromotion(f"{sale_id} has no promotion {missing[0]!r} of the class coupon; it has {names}")
        unknown = [
            {"pointer": f"/lines/{number}/sku", "detail": f"{line.sku[:80]!r} is not in this sale"}
            for number, line in enumerate(order.lines)
            if line.sku not in prices
        ]
        if unknown:
            raise Invalid(f"{unknown[0]['pointer']}: {unknown[0]['detail']}", errors=unknown[:20])
        units: dict[str, int] = {}
        for line in order.lines:
            units[line.sku] = units.get(line.sku, 0) + line.quantity
        now_ms = self._clock.now_ms() if at is None else to_ms(at)
        evaluation = compiled.evaluate(units, coupons, is_new_customer, now_ms)
        lines = [
            AcceptedLine(number, 0, line.sku, line.quantity, prices[line.sku])
            for number, line in enumerate(order.lines)
        ]
        priced = [
            PricedLine(line.sku, line.quantity, line.unit_price, discount, line.quantity * line.unit_price - discount)
            for line, discount in zip(lines, share_to_lines(lines, evaluation.by_sku), strict=True)
        ]
        subtotal = sum(line.quantity * line.unit_price for line in lines)
        explanations = explain(compiled, units, coupons, is_new_customer, now_ms, sale.currency)
        return PromotionTrial(
            sale_id,
            sale.currency,
            priced,
            subtotal,
            evaluation.amount,
            subtotal - evaluation.amount,
            evaluation.discounts,
            explanations,
        )

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def _log(
        self, connection: Connection, promotion: Promotion, actor: str, action: str, detail: dict[str, Any]
    ) -> None:
        detail = {"promotion_id": promotion.promotion_id, **detail}
        await store.log(connection, promotion.sale_id, self._now(), actor, action, detail)


async def _lock(connection: Connection, sale_id: str) -> Sale:
    """Lock a sale whose promotions are to change. Raises `NoSuchSale` or `InvalidSaleState`."""
    sale = await store.lock(connection, sale_id)
    if sale is None:
        raise NoSuchSale(f"there is no sale {sale_id!r}")
    if sale.state is SaleState.CLOSED:
        raise InvalidSaleState(f"cannot change promotions: {sale_id} is closed")
    return sale


async def _check(connection: Connection, sale: Sale, promotion: Promotion) -> None:
    if promotion.skus is None:
        prices = await term_store.read_lowest_price(connection, sale.sale_id)
    else:
        prices = await term_store.read_item_prices(connection, sale.sale_id, promotion.skus)
    check_promotion(promotion, prices, sale.currency)


def _logged(promotion: Promotion) -> dict[str, Any]:
    """Return the terms of a promotion for the log, of many SKUs the first ones."""
    terms: dict[str, Any] = msgspec.to_builtins(promotion)
    skus = promotion.skus or ()
    return {**terms, "skus": promotion.skus and skus[:_MAX_LOGGED_SKUS], "sku_count": len(skus)}
