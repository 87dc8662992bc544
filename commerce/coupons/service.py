"""Creates and changes coupons, issues their codes, and tells how many are used."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET
from redis.asyncio import Redis

from commerce.coupons import store
from commerce.coupons.errors import CouponKeyMissing, NoSuchCoupon, TooManyCoupons
from commerce.coupons.issued_codes import IssuedCodes
from commerce.coupons.model import MAX_COUPONS, ChangedCoupon, Coupon, CouponInput, IssuedCode, StoredCoupon
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.coupon_skus import coupon_sku
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE
from commerce.promotions.store import get_promotion
from commerce.sales import store as sale_store
from commerce.sales.errors import InvalidSaleState, NoSuchSale
from commerce.sales.model import Sale, SaleState, StockChangeInput
from commerce.sales.service import Sales
from commerce.sales.stock_changes import RecordedChange, StockChanges
from lua import SaleKeys, read_units_free


class Coupons:
    """Coupons over Postgres; their units are in the stock of their sales.

    Terms are published to Redis as those of items: from then on no order is accepted on the old ones. `codes` is None
    if the settings have no key.
    """

    def __init__(
        self,
        db: Database,
        redis: Redis,
        sales: Sales,
        stock: StockChanges,
        ids: IdGenerator,
        clock: Clock,
        codes: IssuedCodes | None,
    ) -> None:
        self._db = db
        self._redis = redis
        self._sales = sales
        self._stock = stock
        self._ids = ids
        self._clock = clock
        self._codes = codes

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def create(self, sale_id: str, coupon: CouponInput, actor: str) -> Coupon:
        """Add a coupon to a sale that is not closed; a repeat changes nothing.

        In a sale that was opened its units are a stock change, recorded in the same transaction. Raises `Conflict` if
        the code exists with other terms, `Invalid` if its promotion takes no coupons, `TooManyCoupons`,
        `InvalidSaleState`.
        """
        recorded: RecordedChange | None = None
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            if (stored := await store.get(connection, sale_id, coupon.code)) is not None:
                if not _has_terms(stored, coupon):
                    raise Conflict(f"{sale_id} has a coupon {coupon.code} with other terms: change it, or name another")
            else:
                if sale.state is SaleState.CLOSED:
                    raise InvalidSaleState(f"cannot create a coupon: {sale_id} is closed")
                if await store.count_coupons(connection, sale_id) >= MAX_COUPONS:
                    raise TooManyCoupons(f"cannot create a coupon: {sale_id} has {MAX_COUPONS}")
                await _check_promotion(connection, sale_id, coupon.promotion_id)
                generation = await sale_store.increase_generation(connection, sale_id)
                units = coupon.units if sale.state is SaleState.DRAFT else 0
                await store.insert(connection, sale_id, coupon, units, generation, self._now())
                detail = msgspec.to_builtins(coupon)
                await sale_store.log(connection, sale_id, self._now(), actor, "coupon", detail)
                if coupon.units != units:
                    recorded = await self._record(
                        connection, sale_id, coupon.code, coupon.units, "the coupon is created", actor
                    )
        await self._sales.sync_to_redis(sale_id)
        if recorded is not None:
            await self._stock.apply_recorded(recorded)
        return await self.get(sale_id, coupon.code)

    async def change(self, sale_id: str, code: str, changed: ChangedCoupon, actor: str) -> Coupon:
        """Change terms and number of a coupon; a repeat changes nothing.

        Raises `NotEnoughFreeUnits` if fewer units were left than are to be taken away: then nothing is changed. Raises
        `Invalid` as `create` does.
        """
        if changed.units is not UNSET:
            await self._change_units(sale_id, code, changed.units, changed, actor)
        async with self._db.transaction() as connection:
            await _lock(connection, sale_id)
            stored = await _get(connection, sale_id, code)
            promotion_id = stored.promotion_id if changed.promotion_id is UNSET else changed.promotion_id
            issued = stored.issued if changed.issued is UNSET else changed.issued
            limit = stored.limit_per_user if changed.limit_per_user is UNSET else changed.limit_per_user
            if (promotion_id, issued, limit) != (stored.promotion_id, stored.issued, stored.limit_per_user):
                await _check_promotion(connection, sale_id, promotion_id)
                generation = await sale_store.increase_generation(connection, sale_id)
                await store.change(connection, sale_id, code, promotion_id, issued=issued)
                await sale_store.change_item(connection, sale_id, coupon_sku(code), 0, limit, generation)
                detail = {
                    "code": code,
                    "promotion_id": [stored.promotion_id, promotion_id],
                    "issued": [stored.issued, issued],
                    "limit": [stored.limit_per_user, limit],
                }
                await sale_store.log(connection, sale_id, self._now(), actor, "coupon_terms", detail)
        await self._sales.sync_to_redis(sale_id)
        return await self.get(sale_id, code)

    async def _change_units(self, sale_id: str, code: str, units: int, changed: ChangedCoupon, actor: str) -> None:
        """Set the number in all: of a draft at once, else by a stock change.

        Changes nothing if the new promotion takes no coupons.
        """
        recorded: RecordedChange | None = None
        async with self._db.transaction() as connection:
            sale = await _lock(connection, sale_id)
            stored = await _get(connection, sale_id, code)
            if changed.promotion_id not in (UNSET, stored.promotion_id):
                await _check_promotion(connection, sale_id, changed.promotion_id)
            if units == stored.units:
                return
            if sale.state is SaleState.DRAFT:
                await store.set_initial_units(connection, sale_id, code, units)
                detail = {"code": code, "units": [stored.units, units]}
                await sale_store.log(connection, sale_id, self._now(), actor, "coupon_units", detail)
            else:
                recorded = await self._record(connection, sale_id, code, units - stored.units, changed.reason, actor)
        if recorded is not None:
            await self._stock.apply_recorded(recorded)

    async def _record(
        self, connection: Connection, sale_id: str, code: str, delta: int, reason: str, actor: str
    ) -> RecordedChange:
        change = StockChangeInput(coupon_sku(code), delta, reason)
        return await self._stock.record(connection, sale_id, self._ids.new(), change, actor)

    async def get(self, sale_id: str, code: str) -> Coupon:
        """Read a coupon. Raises `NoSuchCoupon`."""
        sale = await self._sales.get(sale_id)
        async with self._db.connection() as connection:
            stored = await _get(connection, sale_id, code)
        [coupon] = await self._count(sale, [stored])
        return coupon

    async def list_coupons(self, sale_id: str) -> list[Coupon]:
        """List all coupons of a sale by code, at most `MAX_COUPONS`. Raises `NoSuchSale`."""
        sale = await self._sales.get(sale_id)
        async with self._db.connection() as connection:
            stored = await store.list_coupons(connection, sale_id)
        return await self._count(sale, stored)

    async def issue(self, sale_id: str, code: str, users: Sequence[str]) -> list[IssuedCode]:
        """Return the code of each user; a repeat returns the same ones.

        Raises `Invalid` if everybody may use the coupon, `CouponKeyMissing` if the settings have no key.
        """
        await self._sales.get(sale_id)
        async with self._db.connection() as connection:
            stored = await _get(connection, sale_id, code)
        if not stored.issued:
            raise Invalid(f"cannot issue {code}: everybody may use it; change it to an issued one first")
        if self._codes is None:
            raise CouponKeyMissing("cannot issue codes: set FLOODGATE_AUTH__COUPON_KEY")
        return [IssuedCode(user_id, self._codes.issue(sale_id, code, user_id)) for user_id in users]

    async def _count(self, sale: Sale, coupons: Sequence[StoredCoupon]) -> list[Coupon]:
        """Add how many are used and left."""
        left: Sequence[int | None] = [coupon.units for coupon in coupons]
        if sale.state is not SaleState.DRAFT and coupons:
            skus = [coupon_sku(coupon.code) for coupon in coupons]
            try:
                left = await read_units_free(self._redis, SaleKeys(sale.sale_id), skus)
            except REDIS_UNAVAILABLE:
                left = [None] * len(coupons)
        return [_count_used(coupon, units) for coupon, units in zip(coupons, left, strict=True)]


async def _lock(connection: Connection, sale_id: str) -> Sale:
    sale = await sale_store.lock(connection, sale_id)
    if sale is None:
        raise NoSuchSale(f"there is no sale {sale_id!r}")
    return sale


async def _get(connection: Connection, sale_id: str, code: str) -> StoredCoupon:
    coupon = await store.get(connection, sale_id, code)
    if coupon is None:
        raise NoSuchCoupon(f"{sale_id} has no coupon {code}")
    return coupon


async def _check_promotion(connection: Connection, sale_id: str, promotion_id: str) -> None:
    promotion = await get_promotion(connection, sale_id, promotion_id)
    if promotion is None or not promotion.needs_coupon:
        detail = f"{sale_id} has no promotion {promotion_id!r} of the class coupon; create it first"
        raise Invalid(f"/promotion_id: {detail}", errors=[{"pointer": "/promotion_id", "detail": detail}])


def _has_terms(stored: StoredCoupon, coupon: CouponInput) -> bool:
    return (stored.promotion_id, stored.issued, stored.limit_per_user, stored.units) == (
        coupon.promotion_id,
        coupon.issued,
        coupon.limit_per_user,
        coupon.units,
    )


def _count_used(coupon: StoredCoupon, left: int | None) -> Coupon:
    if coupon.units == coupon.pending_units:
        left = 0  # Redis has no count of what never had units
    used = None if left is None else max(0, coupon.units - coupon.pending_units - left)
    return Coupon(
        coupon.code,
        coupon.promotion_id,
        coupon.issued,
        coupon.limit_per_user,
        coupon.units,
        used,
        left,
        coupon.created_at,
    )
