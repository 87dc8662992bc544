"""Promotions of a sale as staff change them: their storage, the generation, and what gateways read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import UNSET

from commerce.kernel.errors import Conflict, Invalid
from commerce.promotions.errors import NoSuchPromotion, TooManyPromotions
from commerce.promotions.model import (
    AmountOff,
    Bundle,
    ChangedPromotion,
    PercentOff,
    PromotionClass,
    PromotionInput,
    Rule,
    TrialLine,
    TrialOrder,
)
from commerce.sales import sale_promotions
from commerce.sales.errors import InvalidSaleState, NoSuchSale
from commerce.sales.model import SaleSnapshot
from commerce.sales.sale_promotions import SalePromotions
from lua import ReserveOutcome, SaleKeys
from ops.services import CliServices
from tests.support.promotions import stepped
from tests.support.sales import make_sale, reservation, reserve

ITEMS = {"cup": (9, 999, None), "tea": (9, 300, None)}
TEN_LESS_ONE = stepped((1_000, 100))


def new(promotion_id: str = "p", rule: Rule = TEN_LESS_ONE, kind: str = "order", **more: Any) -> PromotionInput:
    return PromotionInput(promotion_id, f"label of {promotion_id}", PromotionClass(kind), rule, **more)


async def read_snapshot(shop: CliServices, sale_id: str, previous: SaleSnapshot | None = None) -> SaleSnapshot:
    return await shop.sales.read_snapshot(await shop.sales.get(sale_id), previous)


def amount_of(shop: CliServices, snapshot: SaleSnapshot, **units: int) -> int:
    assert snapshot.promotions
    return snapshot.promotions.evaluate(units, (), False, shop.clock.now_ms()).amount


async def read_log(shop: CliServices, sale_id: str) -> list[str]:
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT action FROM sale_log WHERE sale_id = $1 AND action LIKE '%promotion' ORDER BY log_id", sale_id
        )
    return [row["action"] for row in rows]


async def test_promotion_of_each_rule_is_stored_as_it_was_created(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    promotions = [
        new("all", starts_at=(await shop.sales.get(sale_id)).opens_at, new_customers_only=True),
        new("bundle", Bundle(1_000), "multi", skus=["tea", "cup"]),
        new("coupon", AmountOff(5), "coupon", enabled=False),
        new("half", PercentOff(5_000), "item", skus=["tea"]),
    ]
    for promotion in promotions:
        created = await shop.promotions.create(sale_id, promotion, "ann")
        assert await shop.promotions.get(sale_id, promotion.promotion_id) == created
        assert (created.rule, created.label) == (promotion.rule, promotion.label)
    page = await shop.promotions.list_promotions(sale_id, None, 3)
    assert ([promotion.promotion_id for promotion in page.items], page.next) == (["all", "bundle", "coupon"], "coupon")
    assert page.items[1].skus == ("cup", "tea")
    assert page.items[2].needs_coupon
    last = await shop.promotions.list_promotions(sale_id, page.next, 3)
    assert ([promotion.promotion_id for promotion in last.items], last.next) == (["half"], None)


async def test_each_change_raises_the_generation_and_is_logged_and_a_repeat_does_not(
    shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    generation = (await shop.sales.get(sale_id)).generation
    for _ in range(2):
        await shop.promotions.create(sale_id, new(), "ann")
    for changes in (
        ChangedPromotion(),
        ChangedPromotion(label="another label"),
        ChangedPromotion(skus=["cup"]),
        ChangedPromotion(skus=["cup"]),
        ChangedPromotion(skus=None),
    ):
        await shop.promotions.change(sale_id, "p", changes, "ann")
    for _ in range(2):
        promotion = await shop.promotions.disable(sale_id, "p", "ann")
    assert (promotion.label, promotion.skus, promotion.enabled) == ("another label", None, False)
    sale = await shop.sales.get(sale_id)
    assert (sale.generation, sale.published_generation) == (generation + 5, generation + 5)
    assert await read_log(shop, sale_id) == ["create_promotion", *["change_promotion"] * 4]


async def test_gateway_reads_promotions_when_they_change_and_keeps_them_for_new_prices(
    shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, ITEMS)
    snapshot = await read_snapshot(shop, sale_id)
    assert snapshot.promotions is None
    await shop.promotions.create(sale_id, new("half", PercentOff(5_000), "item"), "ann")
    first = await read_snapshot(shop, sale_id, snapshot)
    assert amount_of(shop, first, tea=2) == 300
    await shop.sales.change_item(sale_id, "tea", 200, UNSET, "ann")
    second = await read_snapshot(shop, sale_id, first)
    assert (amount_of(shop, second, tea=2), amount_of(shop, first, tea=2)) == (200, 300)
    assert second.promotions is not None
    assert first.promotions is not None
    assert second.promotions.promotions is first.promotions.promotions, "they are not read again"
    await shop.promotions.change(sale_id, "half", ChangedPromotion(rule=PercentOff(1_000)), "ann")
    third = await read_snapshot(shop, sale_id, second)
    assert amount_of(shop, third, tea=2) == 40
    await shop.promotions.disable(sale_id, "half", "ann")
    assert (await read_snapshot(shop, sale_id, third)).promotions is None


async def test_order_priced_on_promotions_of_yesterday_is_stale(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the process ends after the commit: then the worker sale_sync publishes the change."""
    keys = await make_sale(shop, sale_id, ITEMS)
    generation = (await shop.sales.get(sale_id)).generation

    async def order(generation: int) -> ReserveOutcome:
        order = reservation(shop.ids.new, sale_id, {"tea": 1}, generation=generation)
        [result] = await reserve(shop.redis, SaleKeys(sale_id), order)
        return result.outcome

    await shop.promotions.create(sale_id, new(), "ann")
    assert await order(generation) is ReserveOutcome.STALE
    assert await order(generation + 1) is ReserveOutcome.ACCEPTED

    def end_process(name: str) -> None:
        assert name == "sale.after_promotion"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sale_promotions, "failpoint", end_process)
        with pytest.raises(KeyboardInterrupt):
            await shop.promotions.disable(sale_id, "p", "ann")
    assert [sale.sale_id for sale in await shop.sales.list_out_of_sync()] == [sale_id]
    assert await shop.sales.sync_to_redis(sale_id)
    assert await order(generation + 1) is ReserveOutcome.STALE
    await shop.redis.delete(keys.orders)


async def test_promotion_with_used_id_is_refused_unless_it_is_the_same(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    await shop.promotions.create(sale_id, new(skus=["tea", "cup"]), "ann")
    await shop.promotions.create(sale_id, new(skus=["cup", "tea"]), "ann")
    with pytest.raises(Conflict, match="exists already"):
        await shop.promotions.create(sale_id, new(), "ann")


async def test_promotions_of_a_sale_are_limited(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    promotions = SalePromotions(shop.db, shop.sales, shop.stock, shop.clock, shop.ids, 2)
    for name in ("a", "b"):
        await promotions.create(sale_id, new(name), "ann")
    with pytest.raises(TooManyPromotions, match="has 2, see limits"):
        await promotions.create(sale_id, new("c"), "ann")
    assert (await shop.sales.get(sale_id)).generation == 3, "nothing is half done"
    await promotions.create(sale_id, new("a"), "ann")


async def test_change_is_checked_together_with_the_other_terms(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS)
    await shop.promotions.create(sale_id, new("off", AmountOff(500), "item", skus=["cup"]), "ann")
    for changes, pointer in (
        (ChangedPromotion(skus=None), "/rule/amount"),
        (ChangedPromotion(skus=["tea"]), "/rule/amount"),
        (ChangedPromotion(skus=["jar"]), "/skus"),
        (ChangedPromotion(rule=TEN_LESS_ONE), "/rule/kind"),
    ):
        with pytest.raises(Invalid) as refusal:
            await shop.promotions.change(sale_id, "off", changes, "ann")
        assert [error["pointer"] for error in refusal.value.extra["errors"]] == [pointer]
    await shop.sales.change_item(sale_id, "cup", 400, UNSET, "ann")
    assert amount_of(shop, await read_snapshot(shop, sale_id), cup=2) == 800, "no line is below 0"
    assert not (await shop.promotions.disable(sale_id, "off", "ann")).enabled


async def test_promotion_of_opened_sale_is_disabled_not_deleted(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS, opened=False)
    for name in ("a", "b"):
        await shop.promotions.create(sale_id, new(name), "ann")
    for _ in range(2):
        await shop.promotions.delete(sale_id, "a", "ann")
    with pytest.raises(NoSuchPromotion):
        await shop.promotions.get(sale_id, "a")
    assert (await read_log(shop, sale_id))[2:] == ["delete_promotion"]
    await shop.sales.open(sale_id, "ann")
    with pytest.raises(InvalidSaleState, match="disable it instead"):
        await shop.promotions.delete(sale_id, "b", "ann")
    await shop.sales.close(sale_id, "ann")
    with pytest.raises(InvalidSaleState, match="is closed"):
        await shop.promotions.disable(sale_id, "b", "ann")


async def test_missing_sale_or_promotion_is_named(shop: CliServices, sale_id: str) -> None:
    changes: list[Callable[[str], Any]] = [
        lambda sale: shop.promotions.create(sale, new(), "ann"),
        lambda sale: shop.promotions.list_promotions(sale, None, 10),
        lambda sale: shop.promotions.delete(sale, "p", "ann"),
        lambda sale: shop.promotions.try_order(sale, TrialOrder([TrialLine("tea", 1)]), (), False, None),
    ]
    for change in changes:
        with pytest.raises(NoSuchSale):
            await change("missing")
    await make_sale(shop, sale_id, ITEMS, opened=False)
    with pytest.raises(NoSuchPromotion):
        await shop.promotions.disable(sale_id, "missing", "ann")


async def test_tried_order_has_prices_and_reasons(shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, ITEMS)
    await shop.promotions.create(sale_id, new(), "ann")
    await shop.promotions.create(sale_id, new("coupon", AmountOff(5), "coupon"), "ann")
    order = TrialOrder([TrialLine("tea", 2), TrialLine("cup", 1), TrialLine("tea", 1)])
    trial = await shop.promotions.try_order(sale_id, order, ["coupon"], False, None)
    assert (trial.subtotal, trial.discount, trial.total) == (1_899, 120, 1_779)
    assert sum(line.amount for line in trial.lines) == trial.total
    assert [(e.promotion_id, e.code, e.amount) for e in trial.explanations] == [
        ("p", "applied", 100),
        ("coupon", "applied", 20),
    ]
    without = await shop.promotions.try_order(sale_id, order, (), False, None)
    assert [explanation.code for explanation in without.explanations] == ["applied", "needs_coupon"]
    with pytest.raises(Invalid) as refusal:
        await shop.promotions.try_order(sale_id, TrialOrder([TrialLine("jar", 1)]), (), False, None)
    assert refusal.value.extra["errors"][0]["pointer"] == "/lines/0/sku"
    for code in ("TEN-OFF", "p"):  # a coupon's code is not its promotion, and p needs none
        with pytest.raises(NoSuchPromotion, match=f"no promotion '{code}' of the class coupon; it has coupon"):
            await shop.promotions.try_order(sale_id, order, [code], False, None)
