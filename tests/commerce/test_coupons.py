"""Coupons as staff create, change, count and issue them: units of the stock, with a limit per user."""

from __future__ import annotations

import asyncio

import pytest

import lua
from commerce.coupons import service
from commerce.coupons.errors import CouponKeyMissing, NoSuchCoupon, TooManyCoupons
from commerce.coupons.issued_codes import IssuedCodes, split_code
from commerce.coupons.model import ChangedCoupon, CouponInput
from commerce.kernel.errors import Conflict, Invalid
from commerce.sales.errors import InvalidSaleState, NoSuchSale, NotEnoughFreeUnits
from commerce.sales.loading import load_sale
from commerce.sales.model import CouponTerms, SaleSnapshot, StockChangeInput
from commerce.sales.service import Sales
from config.settings import Settings
from gateway.auth import build_issued_codes
from lua import SaleKeys
from ops.services import CliServices
from tests.support.coupons import PROMOTION, make_promotion
from tests.support.sales import make_sale, reservation, reserve

CODE, SKU = "TEN", "coupon:TEN"


async def make_coupon_sale(shop: CliServices, sale_id: str, *, opened: bool = True) -> SaleKeys:
    """Make a sale with a product and two promotions of coupons, `ten-off` and `five-off`."""
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=opened)
    for promotion_id in (PROMOTION, "five-off"):
        await make_promotion(shop, sale_id, promotion_id)
    return keys


async def read_snapshot(shop: CliServices, sale_id: str, previous: SaleSnapshot | None = None) -> SaleSnapshot:
    return await shop.sales.read_snapshot(await shop.sales.get(sale_id), previous)


async def read_stock(shop: CliServices, sale_id: str) -> dict[str, int]:
    return await lua.read_stock(shop.redis, SaleKeys(sale_id))


async def test_coupon_of_draft_is_loaded_with_products(shop: CliServices, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id, opened=False)
    coupon = await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 3, 2), "test")
    assert (coupon.units, coupon.used, coupon.left) == (3, 0, 3)
    assert (await shop.coupons.change(sale_id, CODE, ChangedCoupon(units=4), "test")).left == 4
    await shop.sales.open(sale_id, "test")
    assert await read_stock(shop, sale_id) == {"a": 5, SKU: 4}
    snapshot = await read_snapshot(shop, sale_id)
    assert (list(snapshot.items), snapshot.coupons) == (["a"], {CODE: CouponTerms("ten-off", 2, False)})


async def test_coupon_of_open_sale_is_used_and_counted(shop: CliServices, sale_id: str) -> None:
    keys = await make_coupon_sale(shop, sale_id)
    before = await read_snapshot(shop, sale_id)
    for _ in range(2):  # a repeat changes nothing
        assert (await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")).left == 2
    sale = await shop.sales.get(sale_id)
    assert before.sale.generation < sale.generation == sale.published_generation
    units, limits = {"a": 1, SKU: 1}, {SKU: 1}
    orders = [
        reservation(shop.ids.new, sale_id, units, user=user, limits=limits) for user in ("ann", "ann", "ben", "cat")
    ]
    results = await reserve(shop.redis, keys, *orders)
    assert [(result.outcome.name, result.sku) for result in results] == [
        ("ACCEPTED", ""),
        ("OVER_LIMIT", SKU),
        ("ACCEPTED", ""),
        ("SOLD_OUT", SKU),
    ]
    assert await read_stock(shop, sale_id) == {"a": 3, SKU: 0}
    [coupon] = await shop.coupons.list_coupons(sale_id)
    assert (coupon.units, coupon.used, coupon.left) == (2, 2, 0)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert {row.sku: row.initial for row in audit.rows} == {"a": 5, SKU: 2}


async def test_changed_terms_reach_gateways_and_redis(shop: CliServices, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    await shop.coupons.create(sale_id, CouponInput("OTHER", PROMOTION, 2), "test")
    first = await read_snapshot(shop, sale_id)
    changed = ChangedCoupon(promotion_id="five-off", limit_per_user=3, issued=True)
    for _ in range(2):
        await shop.coupons.change(sale_id, CODE, changed, "test")
    second = await read_snapshot(shop, sale_id, first)
    assert second.sale.generation == first.sale.generation + 1 == second.sale.published_generation
    assert second.coupons == {
        CODE: CouponTerms("five-off", 3, True),
        "OTHER": CouponTerms("ten-off", 1, False),
    }
    assert first.coupons[CODE] == CouponTerms("ten-off", 1, False)


async def test_number_stays_if_the_promotion_is_refused(shop: CliServices, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    with pytest.raises(Invalid, match="no promotion 'none'"):
        await shop.coupons.change(sale_id, CODE, ChangedCoupon(units=5, promotion_id="none"), "test")
    coupon = await shop.coupons.get(sale_id, CODE)
    assert (coupon.promotion_id, coupon.units, coupon.left) == (PROMOTION, 2, 2)


async def test_only_unused_coupons_are_taken_away(shop: CliServices, sale_id: str) -> None:
    keys = await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1, SKU: 1}, limits={SKU: 1}))
    change = ChangedCoupon(units=0, promotion_id="five-off")
    with pytest.raises(NotEnoughFreeUnits, match=f"1 units of {SKU} are free"):
        await shop.coupons.change(sale_id, CODE, change, "test")
    coupon = await shop.coupons.get(sale_id, CODE)
    assert (coupon.promotion_id, coupon.units, coupon.used, coupon.left) == ("ten-off", 2, 1, 1)
    await asyncio.gather(*(shop.coupons.change(sale_id, CODE, ChangedCoupon(units=10), "test") for _ in range(4)))
    coupon = await shop.coupons.change(sale_id, CODE, ChangedCoupon(units=10), "test")
    assert (coupon.units, coupon.used, coupon.left) == (10, 1, 9)
    more = StockChangeInput(SKU, 1, "as for products")
    assert (await shop.stock.change(sale_id, shop.ids.new(), more, "test")).status == "applied"
    assert (await shop.coupons.get(sale_id, CODE)).units == 11


async def test_pending_units_count_as_neither_used_nor_left(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command dies after its commit: the coupon is there, and a worker adds its units."""
    await make_coupon_sale(shop, sale_id)

    async def die(*_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(shop.stock, "apply_recorded", die)
    with pytest.raises(ConnectionError):
        await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    coupon = await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    assert (coupon.units, coupon.used, coupon.left) == (2, 0, 0)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE jobs SET due_at = created_at")
    await shop.stock.apply_due_changes()
    assert (await shop.coupons.get(sale_id, CODE)).left == 2
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


async def test_rebuild_restores_coupons(shop: CliServices, sale_id: str) -> None:
    keys = await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    order = {"a": 1, SKU: 1}
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, order, user="ann", limits={SKU: 1}))
    await load_sale(shop.db, shop.redis, shop.clock, sale_id)
    assert await read_stock(shop, sale_id) == {"a": 4, SKU: 1}
    [again] = await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, order, user="ann", limits={SKU: 1}))
    assert (again.outcome.name, again.sku) == ("OVER_LIMIT", SKU)


async def test_wrong_changes_are_refused(shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coupon = CouponInput(CODE, PROMOTION, 2)
    with pytest.raises(NoSuchSale):
        await shop.coupons.create(sale_id, coupon, "test")
    await make_coupon_sale(shop, sale_id)
    with pytest.raises(Invalid, match=r"/promotion_id: .* has no promotion 'other'"):
        await shop.coupons.create(sale_id, CouponInput(CODE, "other", 2), "test")
    with pytest.raises(NoSuchCoupon):
        await shop.coupons.change(sale_id, CODE, ChangedCoupon(units=3), "test")
    await shop.coupons.create(sale_id, coupon, "test")
    with pytest.raises(Conflict, match="with other terms"):
        await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 3), "test")
    with pytest.raises(Invalid, match="/promotion_id"):
        await shop.coupons.change(sale_id, CODE, ChangedCoupon(promotion_id="other"), "test")
    monkeypatch.setattr(service, "MAX_COUPONS", 1)
    with pytest.raises(TooManyCoupons):
        await shop.coupons.create(sale_id, CouponInput("OTHER", PROMOTION, 3), "test")
    await shop.sales.close(sale_id, "test")
    with pytest.raises(InvalidSaleState, match="is closed"):
        await shop.coupons.create(sale_id, CouponInput("THIRD", PROMOTION, 3), "test")


async def test_sale_of_coupons_alone_cannot_open(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {}, opened=False)
    await make_promotion(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    with pytest.raises(InvalidSaleState, match="has no items"):
        await shop.sales.open(sale_id, "test")
    assert (await Sales(shop.db, shop.redis, shop.clock).list_items(sale_id, None, 10)).items == []


async def test_issued_code_is_of_one_customer(shop: CliServices, settings: Settings, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    with pytest.raises(Invalid, match="everybody may use it"):
        await shop.coupons.issue(sale_id, CODE, ["ann"])
    await shop.coupons.change(sale_id, CODE, ChangedCoupon(issued=True), "test")
    issued = await shop.coupons.issue(sale_id, CODE, ["ann", "ben"])
    assert issued == await shop.coupons.issue(sale_id, CODE, ["ann", "ben"])
    codes = build_issued_codes(settings.auth)
    assert codes
    code, signature = split_code(issued[0].code)
    assert (code, len(signature), issued[0].code == issued[1].code) == (CODE, 20, False)
    assert codes.verify(sale_id, CODE, "ann", signature)
    for sale, name, user, proof in (
        (sale_id, CODE, "ben", signature),
        (sale_id, "OTHER", "ann", signature),
        ("other", CODE, "ann", signature),
        (sale_id, CODE, "ann", signature[:-1]),
        (sale_id, CODE, "ann", ""),
        (sale_id, CODE, "ann", "é" * 20),
    ):
        assert not codes.verify(sale, name, user, proof)
    assert not IssuedCodes("another key").verify(sale_id, CODE, "ann", signature)


async def test_codes_without_key_are_refused(shop: CliServices, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2, issued=True), "test")
    coupons = service.Coupons(shop.db, shop.redis, shop.sales, shop.stock, shop.ids, shop.clock, None)
    with pytest.raises(CouponKeyMissing, match="FLOODGATE_AUTH__COUPON_KEY"):
        await coupons.issue(sale_id, CODE, ["ann"])


async def test_promotion_with_coupons_is_not_deleted(shop: CliServices, sale_id: str) -> None:
    await make_coupon_sale(shop, sale_id, opened=False)
    await shop.coupons.create(sale_id, CouponInput(CODE, PROMOTION, 2), "test")
    with pytest.raises(Conflict, match=f"change its coupons first: {CODE}"):
        await shop.promotions.delete(sale_id, PROMOTION, "test")
    await shop.coupons.change(sale_id, CODE, ChangedCoupon(promotion_id="five-off"), "test")
    await shop.promotions.delete(sale_id, PROMOTION, "test")
