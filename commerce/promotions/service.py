"""Stores checked promotions of a sale, and compiles them for those who price orders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

import msgspec

from commerce.kernel.errors import Conflict
from commerce.kernel.postgres import Connection
from commerce.promotions import store
from commerce.promotions.errors import NoSuchPromotion, TooManyPromotions
from commerce.promotions.evaluation import CompiledPromotions, compile_promotions
from commerce.promotions.model import ChangedPromotion, Promotion, PromotionInput


class Promotions:
    """Promotions within the transaction of their sale's change.

    They are terms of a sale, so whoever changes one holds the lock of the sale's row and raises its generation.
    """

    def __init__(self, max_per_sale: int) -> None:
        self._max_per_sale = max_per_sale

    async def get(self, connection: Connection, sale_id: str, promotion_id: str) -> Promotion:
        """Read a promotion. Raises `NoSuchPromotion`."""
        promotion = await store.get_promotion(connection, sale_id, promotion_id)
        if promotion is None:
            raise NoSuchPromotion(f"{sale_id} has no promotion {promotion_id!r}")
        return promotion

    async def list_promotions(self, connection: Connection, sale_id: str, after: str, count: int) -> list[Promotion]:
        """List promotions of a sale by id."""
        return await store.list_promotions(connection, sale_id, after, count)

    async def compile(
        self, connection: Connection, sale_id: str, items: Mapping[str, tuple[int, ...]]
    ) -> CompiledPromotions:
        """Return all promotions of a sale, disabled ones too, for items by SKU that begin with the price."""
        return compile_promotions(await store.list_if_changed(connection, sale_id, 0), items)

    async def is_repeat(self, connection: Connection, promotion: Promotion) -> bool:
        """Tell whether the promotion exists just so. Raises `Conflict` if another one has its id."""
        current = await store.get_promotion(connection, promotion.sale_id, promotion.promotion_id)
        if current is not None and current != promotion:
            raise Conflict(f"cannot create the promotion: {promotion.promotion_id!r} exists already; change it instead")
        return current is not None

    async def add(self, connection: Connection, promotion: Promotion, generation: int, now: datetime) -> None:
        """Store a new promotion that was checked. Raises `TooManyPromotions`."""
        if await store.count_promotions(connection, promotion.sale_id) >= self._max_per_sale:
            raise TooManyPromotions(
                f"cannot create the promotion: {promotion.sale_id} has {self._max_per_sale}, see "
                "limits.promotions_per_sale"
            )
        await store.insert_promotion(connection, promotion, generation, now)

    async def replace(self, connection: Connection, promotion: Promotion, generation: int, now: datetime) -> None:
        """Store changed terms of a promotion that were checked."""
        await store.update_promotion(connection, promotion, generation, now)

    async def delete(self, connection: Connection, sale_id: str, promotion_id: str) -> Promotion | None:
        """Delete a promotion that no order names. Returns None if the sale does not have it."""
        promotion = await store.get_promotion(connection, sale_id, promotion_id)
        if promotion is not None:
            await store.delete_promotion(connection, sale_id, promotion_id)
        return promotion


def to_promotion(sale_id: str, new: PromotionInput) -> Promotion:
    """Return the promotion that staff describe, with its SKUs sorted."""
    values = {name: getattr(new, name) for name in new.__struct_fields__}
    return Promotion(**{**values, "sale_id": sale_id, "skus": _sorted(new.skus)})


def apply_changes(promotion: Promotion, changes: ChangedPromotion) -> Promotion:
    """Return a promotion with changed members."""
    values = {name: getattr(changes, name) for name in changes.__struct_fields__}
    values = {name: value for name, value in values.items() if value is not msgspec.UNSET}
    if "skus" in values:
        values["skus"] = _sorted(values["skus"])
    return msgspec.structs.replace(promotion, **values)


def _sorted(skus: list[str] | None) -> tuple[str, ...] | None:
    return None if skus is None else tuple(sorted(skus))


async def read_compiled(
    connection: Connection,
    sale_id: str,
    items: Mapping[str, tuple[int, ...]],
    previous: CompiledPromotions | None,
    since: int,
) -> CompiledPromotions | None:
    """Return the promotions of a sale for its items, None if none is enabled.

    If none has changed after the generation `since`, `previous` is used. Those of opened sales are never deleted, so
    nothing else tells of a change. Raises `ValueError` if a rule is not known, as of a newer version.
    """
    promotions = await store.list_if_changed(connection, sale_id, since)
    if promotions:
        if not any(promotion.enabled for promotion in promotions):
            return None
        return await asyncio.to_thread(
            compile_promotions, promotions, items
        )  # orders go on while many SKUs are indexed
    return None if previous is None else previous.with_items(items)
