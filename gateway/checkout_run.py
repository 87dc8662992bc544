"""Checkouts: one order per sale from a cart, under keys that the server derives.

What is to be ordered is written down before the first order is placed, so a repeat of the request goes on where a
crash has ended the one before, with the same orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiohttp import web

from commerce.cart.cart_quotes import CartQuote, add_up
from commerce.cart.checkouts import derive_key, digest_request
from commerce.cart.errors import CartChanged, CheckoutInProgress
from commerce.cart.model import (
    Cart,
    CartOwner,
    CheckoutOrder,
    CheckoutRequest,
    CheckoutResult,
    OrderOutcome,
    OrderProblem,
    StoredCart,
    StoredCheckout,
    StoredCheckoutOrder,
)
from commerce.cart.service import check_version
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.money import Money
from commerce.orders.model import PlaceOrder
from gateway.checkout_plan import invalid
from gateway.checkout_quotes import quote_plan, relocate
from gateway.order_checks import check_customer, read_traceparent
from gateway.services import GatewayServices

_CONCURRENT_ORDERS = 4
_FIRST_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class CheckoutRun:
    """One request to check out a customer's cart."""

    services: GatewayServices
    http_request: web.Request
    user_id: str
    request: CheckoutRequest

    async def run(self) -> CheckoutResult:
        """Place the orders, or go on with those of an earlier request; a repeat has the same orders.

        Raises `CartChanged` with the present cart if it is not the one that the customer confirmed,
        `CheckoutInProgress` if another request places its orders, `NothingSelected`, `Invalid`, `NoSuchAddress`.
        """
        checkouts, digest = self.services.shopping.checkouts, digest_request(self.request)
        checkout = await checkouts.find(self.user_id, self.request.version)
        if checkout is None:
            try:
                checkout = await self._begin(digest)
            except CartChanged:
                # The same request may have been faster, and its orders changed the cart: they are the answer here, too.
                checkout = await checkouts.find(self.user_id, self.request.version)
                if checkout is None:
                    raise
            else:
                failpoint("checkout.after_begin")
                return await self._finish(checkout)
        if checkout.request_digest != digest:
            if checkout.state == "placing" and not await close_overdue(self.services, self.user_id):
                raise CheckoutInProgress("another checkout of this version of the cart is under way")
            raise await self._changed(
                "this version of the cart was checked out by another request: look at your orders and the cart"
            )
        if checkout.state == "placing":
            if await close_overdue(self.services, self.user_id):
                checkout = await checkouts.get(checkout.checkout_id) or checkout
            else:
                checkout = await checkouts.claim(checkout)
        if checkout.state == "done":
            return await self._result(checkout, "done", [_shown(order) for order in checkout.orders])
        return await self._finish(checkout)

    async def _finish(self, checkout: StoredCheckout) -> CheckoutResult:
        """Place what has no outcome yet, and end the checkout unless an outcome is unknown."""
        checkouts = self.services.shopping.checkouts
        orders = await self._place_all(checkout)
        if any(order.outcome == "pending" for order in orders):
            await checkouts.leave(checkout)
            return await self._result(checkout, "placing", orders)
        failpoint("checkout.before_end")
        await checkouts.end(checkout, orders)
        return await self._result(checkout, "done", orders)

    async def _begin(self, digest: bytes) -> StoredCheckout:
        shopping = self.services.shopping
        stored = await shopping.carts.read_stored(CartOwner(self.user_id))
        if stored.checkout is not None:
            if not await close_overdue(self.services, self.user_id):
                raise CheckoutInProgress(f"a checkout of version {stored.checkout.version} is under way: repeat that")
            raise await self._changed("an earlier checkout was ended; look at the cart and repeat")
        try:
            check_version(stored, self.request.version)
        except CartChanged as refusal:
            raise await self._changed(refusal.detail) from None
        if not (self.request.ship_to or self.request.address_ids):
            raise invalid("/ship_to", "an order needs an address, or the id of one in address_ids")
        orders, quote = await quote_plan(self.services, self.user_id, stored, self.request)
        await self._check_prices(stored, quote)
        if add_up(self.request.expected_totals) != quote.totals:
            raise await self._changed("the total is not the expected one; confirm that of the quote", quote=quote)
        for order in orders:
            await self._check_payments(order)
        planned = [
            StoredCheckoutOrder(
                order.sale_id, order, "pending", None, quoted.total.amount, quoted.total.currency, None, None
            )
            for order, quoted in zip(orders, quote.quotes, strict=True)
        ]
        try:
            return await shopping.checkouts.begin(self.user_id, self.request.version, digest, planned)
        except CartChanged as refusal:
            raise await self._changed(refusal.detail) from None

    async def _check_prices(self, stored: StoredCart, quote: CartQuote) -> None:
        """Raise `CartChanged` if a selected line costs more than the customer has accepted."""
        if self.request.accept_prices:
            return
        for line in stored.lines:
            snapshot = self.services.snapshots.cached(line.sale_id)
            item = snapshot.items.get(line.sku) if snapshot and line.is_ordered else None
            if item is not None and item.price > line.accepted_price_minor:
                raise await self._changed(f"the price of {line.sku} rose; accept it with accept_prices", quote=quote)

    async def _check_payments(self, order: PlaceOrder) -> None:
        try:
            await self.services.placement.find_total(order, self.user_id)
        except Invalid as refusal:
            raise relocate(refusal, self.request, order.sale_id) from None

    async def _place_all(self, checkout: StoredCheckout) -> list[CheckoutOrder]:
        """Place the orders that have no outcome yet, a few at a time. Each is all or nothing."""
        turns = asyncio.Semaphore(_CONCURRENT_ORDERS)

        async def place(order: StoredCheckoutOrder) -> CheckoutOrder:
            if order.outcome != "pending" or order.body is None:
                return _shown(order)
            async with turns:
                return await self._place(checkout, order, order.body)

        results = await asyncio.gather(*(place(order) for order in checkout.orders), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result  # after all others have ended
        return [result for result in results if isinstance(result, CheckoutOrder)]

    async def _place(self, checkout: StoredCheckout, order: StoredCheckoutOrder, body: PlaceOrder) -> CheckoutOrder:
        services, key = self.services, derive_key(checkout, order.sale_id)
        try:
            ticket = self.request.room_tickets.get(order.sale_id)
            await check_customer(services, self.http_request, body, self.user_id, key, ticket)
            traceparent = read_traceparent(self.http_request)
            placed, status = await services.placement.place(body, self.user_id, key, traceparent, order.total_minor)
        except ProblemError as refusal:
            services.metrics_buffer.count_order(refusal.code)
            problem = OrderProblem(
                *(refusal.code, refusal.status, refusal.title, refusal.detail),
                *(refusal.extra.get("sku"), refusal.extra.get("coupon")),
            )
            if refusal.status >= _FIRST_SERVER_ERROR:  # it may have been placed, or may be a moment later
                return CheckoutOrder(order.sale_id, "pending", None, None, None, problem)
            outcome = CheckoutOrder(order.sale_id, "refused", None, None, None, problem)
        else:
            services.metrics_buffer.count_order("accepted" if status == 202 else "replayed")
            outcome = CheckoutOrder(order.sale_id, "placed", placed.order_id, placed.total, placed.pay_by, None)
        failpoint("checkout.after_order")
        await services.shopping.checkouts.record(checkout, outcome)
        return outcome

    async def _result(
        self, checkout: StoredCheckout, state: OrderOutcome | str, orders: list[CheckoutOrder]
    ) -> CheckoutResult:
        cart = await self.services.shopping.carts.read(CartOwner(self.user_id))
        return CheckoutResult(checkout.checkout_id, "done" if state == "done" else "placing", orders, cart)

    async def _changed(self, detail: str, **more: Any) -> CartChanged:
        return CartChanged(detail, cart=await self.services.shopping.carts.read(CartOwner(self.user_id)), **more)


async def close_overdue(services: GatewayServices, user_id: str) -> bool:
    """End a checkout that was not repeated in time: its orders are those that are known by their keys.

    Returns False if the cart has no checkout under way, or one that may still be repeated. Raises
    `CheckoutInProgress` if another request goes on with it.
    """
    shopping = services.shopping
    stored = await shopping.carts.read_stored(CartOwner(user_id))
    checkout = await shopping.checkouts.get(stored.checkout.checkout_id) if stored.checkout else None
    repeat_s = services.settings.limits.checkout_repeat_s
    if checkout is None or from_ms(services.clock.now_ms()) - checkout.created_at < timedelta(seconds=repeat_s):
        return False
    checkout = await shopping.checkouts.claim(checkout)
    outcomes = [await _look_up(services, checkout, order) for order in checkout.orders]
    await shopping.checkouts.end(checkout, outcomes)
    return True


async def _look_up(services: GatewayServices, checkout: StoredCheckout, stored: StoredCheckoutOrder) -> CheckoutOrder:
    """Find out by its key whether an order without an outcome was placed, and record it."""
    if stored.outcome != "pending":
        return _shown(stored)
    key = derive_key(checkout, stored.sale_id)
    order = await services.orders.find_by_key(checkout.user_id, key, [stored.sale_id])
    if order is None:
        outcome = CheckoutOrder(stored.sale_id, "not_placed", None, None, None, None)
    else:
        total = Money(stored.total_minor, stored.currency)
        outcome = CheckoutOrder(stored.sale_id, "placed", order.order_id, total, order.pay_by, None)
    await services.shopping.checkouts.record(checkout, outcome)
    return outcome


async def change_cart(services: GatewayServices, owner: CartOwner, change: Callable[[], Awaitable[Cart]]) -> Cart:
    """Change a cart; a checkout that was not repeated in time is ended first."""
    try:
        return await change()
    except CheckoutInProgress:
        if owner.user_id is None or not await close_overdue(services, owner.user_id):
            raise
        return await change()


def _shown(order: StoredCheckoutOrder) -> CheckoutOrder:
    is_placed = order.outcome == "placed"
    total = Money(order.total_minor, order.currency) if is_placed else None
    return CheckoutOrder(order.sale_id, order.outcome, order.order_id, total, order.pay_by, order.problem)
