"""Sends baskets of the replay through carts, each through that of its own customer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from loadtest.replay_client import BasketRefused, PlacedBasket, ReplayClient, Reply, create_address
from loadtest.replay_returns import MatchedReturn, ReturnedUnits
from loadtest.retail_dataset import CURRENCY, Basket, BasketLine


def plan_carts(baskets: Sequence[Basket], digest: str, max_lines: int) -> list[Basket]:
    """Return the baskets as carts: each of a customer of its own, lines of one SKU together.

    A basket with more lines than a cart may hold is several carts. Customers are derived from the file's digest, so
    each run has the same.
    """
    carts = []
    for basket in baskets:
        by_sku: dict[str, BasketLine] = {}
        for line in basket.lines:
            units = by_sku[line.sku].quantity if line.sku in by_sku else 0
            by_sku[line.sku] = replace(line, quantity=units + line.quantity)
        lines = tuple(by_sku.values())
        for number, first in enumerate(range(0, len(lines), max_lines), 1):
            invoice = basket.invoice if number == 1 else f"{basket.invoice}.{number}"
            user_id = f"replay-{digest}-{invoice}"
            carts.append(Basket(invoice, user_id, basket.country, lines[first : first + max_lines]))
    return carts


def find_in_carts(
    matched: Sequence[MatchedReturn], baskets: Sequence[Basket], skus: Mapping[str, Sequence[str]]
) -> list[MatchedReturn]:
    """Return matched returns with the carts and lines that the units of their baskets were ordered with.

    `skus` has the SKUs of each cart's order by invoice, in the sequence of its lines."""
    lines = {basket.invoice: basket.lines for basket in baskets}
    places = {(name.partition(".")[0], sku): (name, no) for name, row in skus.items() for no, sku in enumerate(row)}
    moved = []
    for match in matched:
        units = []
        for part in match.units:
            place = places.get((part.invoice, lines[part.invoice][part.line_no].sku), (part.invoice, part.line_no))
            units.append(ReturnedUnits(*place, part.quantity))
        moved.append(replace(match, units=tuple(units)))
    return moved


class CartSender:
    """Fills carts and checks them out.

    A cart that an earlier run has checked out is empty: then its checkout is repeated, which must have the same order.
    """

    def __init__(self, client: ReplayClient, sale_id: str) -> None:
        self._client = client
        self._sale_id = sale_id

    async def send(self, basket: Basket) -> PlacedBasket:
        """Order a basket through the cart of its customer, or repeat its checkout. Raises `BasketRefused`."""
        headers = self._client.create_headers(basket.user_id)
        cart = _read(await self._client.send("GET", "/v1/cart", headers))
        if cart["checkout"]:  # an earlier run ended within it
            total = await self._quote(basket, headers, cart)
            return await self._check_out(basket, headers, cart["checkout"]["version"], total, is_new=True)
        if cart["version"] and not cart["sales"]:
            return await self._repeat(basket, headers, cart["version"] - 1)
        for line in basket.lines:
            path, body = f"/v1/cart/lines/{self._sale_id}/{line.sku}", {"quantity": line.quantity}
            cart = _read(await self._client.send("PUT", path, headers, body))
        self._check_shown(basket, cart)
        total = await self._quote(basket, headers, cart)
        return await self._check_out(basket, headers, cart["version"], total, is_new=True)

    async def _repeat(self, basket: Basket, headers: Mapping[str, str], version: int) -> PlacedBasket:
        """Repeat the checkout of an earlier run, at the total of its order."""
        orders = _read(await self._client.send("GET", "/v1/orders", headers))["items"]
        total = orders[0]["total"]["amount"] if orders else await self._quote_order(basket, headers)
        placed = await self._check_out(basket, headers, version, total, is_new=False)
        others = [order["order_id"] for order in orders if UUID(order["order_id"]) != placed.order_id]
        if others:
            raise BasketRefused(f"the repeated checkout has order {placed.order_id}, and there are {others}")
        return placed

    def _check_shown(self, basket: Basket, cart: dict[str, Any]) -> None:
        shown = [(line["sku"], line["quantity"], line["price"]) for sale in cart["sales"] for line in sale["lines"]]
        if sorted(shown) != sorted((line.sku, line.quantity, line.price) for line in basket.lines):
            raise BasketRefused("the cart does not show the lines that were put")

    async def _quote(self, basket: Basket, headers: Mapping[str, str], cart: dict[str, Any]) -> int:
        """Return the total that the customer is shown, in pennies: that of the cart, and freight."""
        body = {"ship_to": [create_address(basket)]}
        quote = _read(await self._client.send("POST", "/v1/cart/quote", headers, body))
        total: int = quote["totals"][0]["amount"]
        shown: int = cart["totals"][0]["amount"]
        freight = 0 if cart["sales"][0]["price"]["freight"] else quote["quotes"][0]["price"]["freight"]
        if quote["version"] != cart["version"] or shown + freight != total:
            raise BasketRefused(f"the cart shows {shown}, and its quote {total} with a freight of {freight}")
        return total

    async def _quote_order(self, basket: Basket, headers: Mapping[str, str]) -> int:
        """Return the total of a basket that has left its cart, and that is not stored yet, in pennies."""
        lines = [{"sku": line.sku, "quantity": line.quantity} for line in basket.lines]
        body = {"sale_id": self._sale_id, "lines": lines, "ship_to": [create_address(basket)]}
        total: int = _read(await self._client.send("POST", "/v1/orders/quote", headers, body))["total"]["amount"]
        return total

    async def _check_out(
        self, basket: Basket, headers: Mapping[str, str], version: int, total: int, *, is_new: bool
    ) -> PlacedBasket:
        expected_total = {"amount": total, "currency": CURRENCY}
        payments = [{"method": "balance", "amount": total}] if total else []
        body = {
            "version": version,
            "expected_totals": [expected_total],
            "ship_to": [create_address(basket)],
            "sales": [{"sale_id": self._sale_id, "payments": payments}],
        }
        [order] = _read(await self._client.send("POST", "/v1/cart/checkout", headers, body))["orders"]
        if order["outcome"] != "placed":
            problem = order["problem"] or {}
            raise BasketRefused(f"{order['outcome']}, {problem.get('code')}: {problem.get('detail')}")
        if order["total"] != expected_total:
            raise BasketRefused(f"the order's total is {order['total']}, the confirmed one is {total}")
        return PlacedBasket(UUID(order["order_id"]), total, is_new)


def _read(reply: Reply) -> dict[str, Any]:
    """Return the body of a successful answer. Raises `BasketRefused` for any other."""
    if reply.status != 200:
        raise BasketRefused(reply.problem)
    return reply.body
