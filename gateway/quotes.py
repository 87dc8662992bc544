"""Quotes orders from memory, with what one call to Redis says of stock and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from redis.asyncio import Redis

import lua
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.coupon_skus import coupon_sku
from commerce.kernel.money import Money
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.orders.field_errors import FieldErrors
from commerce.orders.model import Method, PlaceOrder
from commerce.orders.pricing import PricedOrder, check_sizes, compute_price
from commerce.orders.quotes import Quote, QuotedLine, QuoteInput, quoted_price
from commerce.payments.model import INTERNAL_METHODS
from commerce.payments.provider_port import Provider
from commerce.promotions.explanation import explain
from commerce.promotions.model import Explanation
from commerce.sales.model import Sale, SaleSnapshot, SaleState
from commerce.shipping.policy import ShippingPolicy, promised_day
from gateway.order_placement import OrderPlacement
from gateway.sale_snapshots import SaleSnapshots
from lua import SaleKeys

_HIDDEN = ("disabled", "not_in_order", "needs_coupon")
"""Explanations of promotions that say nothing to this customer"""
Stock = Mapping[str, tuple[int, int]]
"""SKU → (free units, units that the customer has bought)"""


class OrderQuotes:
    """Prices orders as `OrderPlacement` does, and adds what would keep them from being accepted."""

    def __init__(
        self,
        snapshots: SaleSnapshots,
        placement: OrderPlacement,
        redis: Redis,
        clock: Clock,
        providers: Mapping[str, Provider],
        policy: ShippingPolicy,
    ) -> None:
        self._snapshots = snapshots
        self._placement = placement
        self._redis = redis
        self._clock = clock
        self._providers = providers
        self._policy = policy

    async def quote(self, order: QuoteInput, user_id: str) -> Quote:
        """Quote an order of a customer.

        Raises `Invalid` with the field errors that placing it would have, `NoSuchSale`, or `NotReady` if it must be
        known whether the customer is new and Postgres does not answer.
        """
        snapshot, priced, promotions = await self.price(order, user_id)
        skus = [*priced.units, *map(coupon_sku, priced.coupons)]
        stock, now = await self._read_stock(order.sale_id, user_id, skus), from_ms(self._clock.now_ms())
        sale = snapshot.sale
        return Quote(
            sale_id=order.sale_id,
            as_of=now,
            lines=_quote_lines(priced, snapshot, stock),
            price=quoted_price(priced),
            total=Money(priced.total, sale.currency),
            is_freight_known=bool(order.ship_to) or snapshot.freight is None,
            promotions=promotions,
            obstacles=_find_obstacles(sale, now, priced, snapshot, stock),
            payment_methods=self._methods(sale.currency, priced.total),
            promised_on=promised_day(self._policy, now),
        )

    async def price(self, order: QuoteInput, user_id: str) -> tuple[SaleSnapshot, PricedOrder, list[Explanation]]:
        """Price an order from memory, and explain the promotions of its sale. Raises as `quote` does."""
        snapshot = await self._snapshots.get(order.sale_id)
        is_new = await self._placement.is_new_customer(snapshot, user_id)
        now_ms, errors = self._clock.now_ms(), FieldErrors()
        to_price = PlaceOrder(order.sale_id, order.lines, order.ship_to, order.payments, order.coupons)
        check_sizes(to_price, self._placement.limits, errors)
        priced = compute_price(
            to_price,
            snapshot,
            self._placement.limits,
            user_id,
            errors,
            now_ms=now_ms,
            is_new_customer=is_new,
            codes=self._placement.issued_codes,
        )
        if errors.entries:
            raise errors.to_invalid()
        return snapshot, priced, self._explain(snapshot, priced, is_new, now_ms)

    async def _read_stock(self, sale_id: str, user_id: str, skus: list[str]) -> Stock:
        """Read free and bought units, nothing if they cannot be read now."""
        keys, fields = SaleKeys(sale_id), [lua.buyer_field(user_id, sku) for sku in skus]
        try:
            free, bought = await asyncio.gather(
                lua.read_units_free(self._redis, keys, skus), lua.read_units_taken_by(self._redis, keys, fields)
            )
        except REDIS_UNAVAILABLE:
            return {}
        return {sku: (units, taken) for sku, units, taken in zip(skus, free, bought, strict=True) if units is not None}

    def _explain(self, snapshot: SaleSnapshot, priced: PricedOrder, is_new: bool, now_ms: int) -> list[Explanation]:
        if snapshot.promotions is None:
            return []
        presented = [snapshot.coupons[code].promotion_id for code in priced.coupons]
        explanations = explain(snapshot.promotions, priced.units, presented, is_new, now_ms, snapshot.sale.currency)
        return [explanation for explanation in explanations if explanation.code not in _HIDDEN]

    def _methods(self, currency: str, total: int) -> list[Method]:
        """Return the payment methods that the shop offers for an amount; none if it is 0."""
        if not total:
            return []
        external = [name for name, provider in self._providers.items() if currency in provider.currencies]
        return [*external, *INTERNAL_METHODS]  # type: ignore[list-item]  # the registry has no other names


def _quote_lines(priced: PricedOrder, snapshot: SaleSnapshot, stock: Stock) -> list[QuotedLine]:
    lines = []
    for line in priced.lines:
        limit, units = snapshot.items[line.sku].limit, stock.get(line.sku)
        lines.append(
            QuotedLine(
                line_no=line.line_no,
                sku=line.sku,
                quantity=line.quantity,
                ship_to=line.address_no,
                unit_price=line.unit_price,
                list_price=line.unit_price if line.list_price is None else line.list_price,
                discount=line.discount,
                paid=line.quantity * line.unit_price - line.discount,
                available=units[0] if units else None,
                allowed=max(0, limit - units[1]) if units and limit else None,
            )
        )
    return lines


def _find_obstacles(sale: Sale, now: datetime, priced: PricedOrder, snapshot: SaleSnapshot, stock: Stock) -> list[str]:
    obstacles = []
    if sale.state is SaleState.CLOSED or (sale.closes_at is not None and now >= sale.closes_at):
        obstacles.append("sale_closed")
    elif sale.state is SaleState.PAUSED:
        obstacles.append("sale_paused")
    elif now < sale.opens_at:
        obstacles.append("sale_not_open")
    wanted = [(units, snapshot.items[sku].limit, stock[sku]) for sku, units in priced.units.items() if sku in stock]
    if any(units > free for units, _, (free, _) in wanted):
        obstacles.append("sold_out")
    if any(limit and units + bought > limit for units, limit, (_, bought) in wanted):
        obstacles.append("over_limit")
    coupons = [(snapshot.coupons[code].limit, stock.get(coupon_sku(code))) for code in priced.coupons]
    if any(units and not units[0] for _, units in coupons):
        obstacles.append("coupon_used_up")
    if any(units and units[1] >= limit for limit, units in coupons):
        obstacles.append("coupon_limit")
    return obstacles
