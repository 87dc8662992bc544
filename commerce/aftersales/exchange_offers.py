"""Prices of exchanges now, and whether their replacements could be reserved. Nothing is reserved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from commerce.aftersales.model import ExchangePreview, Obstacle
from commerce.exchanges.model import WantedLine
from commerce.exchanges.service import ReplacementOrders
from commerce.kernel.errors import ProblemError
from commerce.orders.store import OrderHeader


class ExchangedLine(Protocol):
    """Units of an order line and the SKU that is wanted instead."""

    @property
    def sku(self) -> str: ...
    @property
    def quantity(self) -> int: ...
    @property
    def wanted_sku(self) -> str | None: ...


class ExchangeOffer(NamedTuple):
    """The price of an exchange, or the obstacle that it has now."""

    preview: ExchangePreview | None
    obstacle: Obstacle | None


class ExchangeOffers:
    """Prices of exchanges."""

    def __init__(self, replacements: ReplacementOrders) -> None:
        self._replacements = replacements

    async def check(self, order: OrderHeader, lines: Iterable[ExchangedLine], credit_minor: int) -> ExchangePreview:
        """Return what an exchange would cost. Raises as `ReplacementOrders.check` if it cannot be."""
        lines, returned = list(lines), Counter[str]()
        for line in lines:
            returned[line.sku] += line.quantity
        wanted = [WantedLine(line.wanted_sku, line.quantity, 0) for line in lines if line.wanted_sku is not None]
        price = await self._replacements.check(order, wanted, credit_minor, returned)
        return ExchangePreview(
            price=price.price_minor,
            credit=price.credit_minor,
            to_pay=price.to_pay_minor,
            to_refund=price.to_refund_minor,
        )

    async def find(self, order: OrderHeader, lines: Iterable[ExchangedLine], credit_minor: int) -> ExchangeOffer:
        """Return what an exchange would cost, or its obstacle."""
        try:
            return ExchangeOffer(await self.check(order, lines, credit_minor), None)
        except ProblemError as error:
            return ExchangeOffer(None, Obstacle(error.code, "/lines", error.detail))
