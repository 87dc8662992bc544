"""Opens sales that have what their orders will need, and says what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.postgres import Database
from commerce.sale_changes import store
from commerce.sale_changes.errors import SaleIncomplete
from commerce.sale_changes.opening_model import GapKind, OpeningGap
from commerce.sale_changes.store import ShippingSetup
from commerce.sales import store as sales_store
from commerce.sales.model import Sale, SaleState
from commerce.sales.service import Sales

_IMPORT = "`floodgate warehouse import FILE`"
_DETAILS: Mapping[GapKind, str] = {
    "warehouse": f"the shop has no warehouse, so no order will be shipped; to ship them, {_IMPORT}",
    "measures": f"weight and size are unknown, so their orders cannot be shipped: {_IMPORT}",
    "logistics": f"no warehouse has them, so their orders cannot be shipped: {_IMPORT}, or `floodgate stock receive`",
    "rate_table": "there is no rate table, so no carrier can be chosen: `floodgate rates import FILE`",
    "rate": "they weigh more than any carrier takes: `floodgate rates import FILE` with steps for their weight",
    "freight_template": "the sale has no freight template, so customers pay no freight: `floodgate freight assign`",
    "price": "their price is 0: `floodgate sale change-item`",
    "stock": "warehouses have fewer units than the sale offers: `floodgate stock receive`, or offer fewer with "
    "`floodgate sale change-item`",
}
_OF_SHIPPING: frozenset[GapKind] = frozenset({"measures", "logistics", "rate_table", "rate"})
_OF_PRODUCTS: tuple[GapKind, ...] = ("measures", "logistics", "rate", "price", "stock")


class SaleOpening:
    """Checks a draft before it is opened. A shop without any warehouse ships nothing and is only warned."""

    def __init__(self, db: Database, sales: Sales, clock: Clock) -> None:
        self._db = db
        self._sales = sales
        self._clock = clock

    async def list_gaps(self, sale_id: str) -> list[OpeningGap]:
        """List what a sale lacks, each with what to do. Raises `NoSuchSale`."""
        await self._sales.get(sale_id)
        async with self._db.connection() as connection:
            setup = await store.read_shipping_setup(connection, sale_id)
            lacking = await store.list_gaps(connection, sale_id, setup.table_id)
        gaps = [_make_gap(kind, setup, *lacking[kind]) for kind in _OF_PRODUCTS if kind in lacking]
        if not setup.has_warehouses:
            return [_make_gap("warehouse", setup), *(gap for gap in gaps if gap.kind not in _OF_SHIPPING)]
        if setup.table_id is None:
            gaps.append(_make_gap("rate_table", setup))
        if not setup.has_freight:
            gaps.append(_make_gap("freight_template", setup))
        return gaps

    async def open(self, sale_id: str, actor: str, anyway: str | None = None) -> tuple[Sale, list[OpeningGap]]:
        """Open a sale. Returns what it lacks, too, which is nothing if it was paused or is open.

        Raises `SaleIncomplete` if a draft lacks more than what is a warning. With `anyway`, which is the reason, it is
        opened all the same, and the reason is recorded in the sale's log."""
        if (await self._sales.get(sale_id)).state is not SaleState.DRAFT:
            return await self._sales.open(sale_id, actor), []
        gaps = await self.list_gaps(sale_id)
        if serious := [gap for gap in gaps if not gap.is_warning]:
            if anyway is None:
                raise SaleIncomplete(
                    f"cannot open {sale_id}: {'; '.join(describe_gap(gap) for gap in serious)}. To open it all the "
                    "same, give a reason as `anyway`",
                    gaps=serious,
                )
            detail = {"reason": anyway, "gaps": {gap.kind: gap.count for gap in serious}}
            async with self._db.transaction() as connection:
                now = from_ms(self._clock.now_ms())
                await sales_store.log(connection, sale_id, now, actor, "open_anyway", detail)
        return await self._sales.open(sale_id, actor), gaps


def _make_gap(kind: GapKind, setup: ShippingSetup, count: int = 0, skus: list[str] | None = None) -> OpeningGap:
    is_warning = kind in ("warehouse", "freight_template") or (kind in _OF_SHIPPING and not setup.has_warehouses)
    return OpeningGap(kind, _DETAILS[kind], is_warning, count, skus or [])


def describe_gap(gap: OpeningGap) -> str:
    """Return the SKUs that lack something, and what to do."""
    named = ", ".join(gap.skus) + (" and others" if gap.count > len(gap.skus) else "")
    return f"{named}: {gap.detail}" if named else gap.detail
