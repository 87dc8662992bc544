"""Baskets through carts, with a promotion and freight, agree to the penny with the rules.

The totals that are expected are computed here from the rules alone, by no code of the shop.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from commerce.freight.model import FreightRegion, FreightStep, FreightTerms, FreightZone
from commerce.promotions.model import PromotionClass, PromotionInput, RepeatedReduction
from config.settings import Settings
from loadtest import replay_carts
from loadtest.replay import Replay, open_sale, plan_replay, replay
from loadtest.replay_cases import PlayedReturns
from loadtest.replay_returns import MatchedReturn, ReturnedUnits
from loadtest.retail_dataset import Basket, BasketLine, ReturnLine
from ops.services import CliServices
from tests.loadtest.test_replay import HEADER, REAL, ROWS, WORKERS, delete_sale_keys, write
from tests.support.gateway import open_gateway, run_workers
from tests.support.locust_runs import key_environment, run_command

UNLIMITED = {"orders_per_user_per_s": 10_000, "orders_per_user_burst": 10_000}
MORE_ROWS = """\
9,71053,LANTERN,400,2010-12-02,3.39,3,United Kingdom
9,85123A,HEART,1,2010-12-02,2.55,3,United Kingdom
10,85123A,HEART,101,2010-12-03,2.55,4,Germany
11,71053,LANTERN,3000,2010-12-03,3.39,5,Australia
"""
"""baskets that reach the promotion's maximum, free delivery, each step of the freight and the open one"""


async def set_terms(shop: CliServices, planned: Replay) -> None:
    """Open the sale with "every 20.00 less 1.50, at most 30 times", and freight by pieces."""
    await open_sale(shop, planned)
    reduction = RepeatedReduction(threshold=2_000, amount=150, max_times=30)
    promotion = PromotionInput("every-20", "Every 20.00 less 1.50", PromotionClass.ORDER, reduction)
    await shop.promotions.create(planned.sale_id, promotion, "test")
    steps = (FreightStep(0, 395, 100), FreightStep(100, 795, 1_000), FreightStep(1_000, 60, per=250))
    zones = (
        FreightZone("home", (FreightRegion("GB"),), steps, free_from_minor=15_000),
        FreightZone("abroad", (FreightRegion("*"),), (FreightStep(0, 1_295, 50), FreightStep(50, 410, per=40))),
    )
    terms = FreightTerms(currency="GBP", charged_by="pieces", zones=zones)
    await shop.sale_freight.put_templates({"by-pieces": terms}, "test")
    await shop.sale_freight.assign(planned.sale_id, "by-pieces", "test")


def expected_total(lines: Iterable[tuple[int, int]], is_home: bool) -> int:
    """Compute what an order of (quantity, pennies) costs by the terms above."""
    subtotal = pieces = 0
    for quantity, price in lines:
        subtotal += quantity * price
        pieces += quantity
    reductions = subtotal // 2_000
    if reductions > 30:
        reductions = 30
    subtotal -= 150 * reductions
    if not is_home:
        freight = 1_295
        while pieces > 50:
            freight += 410
            pieces -= 40
    elif subtotal >= 15_000:
        freight = 0
    elif pieces <= 100:
        freight = 395
    else:
        freight = 795
        while pieces > 1_000:
            freight += 60
            pieces -= 250
    return subtotal + freight


async def read_orders(shop: CliServices, sale_id: str) -> list[tuple[str, int, bool, list[tuple[int, int]]]]:
    """Return customer, total, whether it is sent within Great Britain, and lines of each stored order."""
    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT user_id, total_minor, ship_to->0->>'country' AS country, "
            "array_agg(quantity ORDER BY line_no) AS quantities, "
            "array_agg(unit_price_minor ORDER BY line_no) AS prices "
            "FROM orders JOIN order_lines USING (order_id) WHERE sale_id = $1 GROUP BY order_id",
            sale_id,
        )
    return [
        (
            row["user_id"],
            row["total_minor"],
            row["country"] == "GB",
            list(zip(row["quantities"], row["prices"], strict=True)),
        )
        for row in rows
    ]


async def test_carts_with_promotion_and_freight_are_stored_to_the_penny(
    shop: CliServices, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    file = Path(REAL) if REAL else write(tmp_path, HEADER + ROWS + MORE_ROWS)
    settings = make_settings(limits=UNLIMITED)
    planned = plan_replay(file, settings.limits.lines_per_cart)
    await set_terms(shop, planned)
    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        first = await replay(shop, gateway.base, file, 16, is_through_cart=True)
        repeat = await replay(shop, gateway.base, file, 16, is_through_cart=True)
    for result in (first, repeat):
        assert result.is_complete, (result.differences, result.played)
    assert first.played is not None
    assert repeat.played is not None
    returns = len(planned.returns.matched)
    assert (first.played.created, first.played.repeated, repeat.played.created, repeat.played.repeated) == (
        *(returns, 0, 0, returns),
    )
    assert 0.8 * planned.returns.matched_total < first.played.refunded_total < planned.returns.matched_total
    assert repeat.played.refunded_total == first.played.refunded_total
    baskets = len(planned.baskets)
    assert (first.created, first.repeated, repeat.created, repeat.repeated) == (baskets, 0, 0, baskets)
    orders = await read_orders(shop, first.sale_id)
    wrong = [order for order in orders if order[1] != expected_total(order[3], order[2])]
    assert not wrong
    assert len(orders) == first.stored_orders == repeat.stored_orders == baskets
    # And by the baskets of the file, whatever the shop has stored.
    totals = Counter(
        expected_total([(line.quantity, line.price) for line in basket.lines], basket.country == "United Kingdom")
        for basket in planned.baskets
    )
    assert totals == Counter(order[1] for order in orders)
    assert sum(line.quantity * line.price for basket in planned.baskets for line in basket.lines) == first.sent_total
    assert first.stored_total == repeat.stored_total == sum(total * count for total, count in totals.items())
    audit = await shop.audit.audit_sale(first.sale_id)
    assert audit.clean, audit.findings
    await delete_sale_keys(shop, first.sale_id)


def test_basket_with_more_lines_than_a_cart_holds_is_several_carts() -> None:
    skus = ("a", "b", "a", "c", "d", "e")
    lines = tuple(BasketLine(sku, sku, number, 100, is_fee=False) for number, sku in enumerate(skus, 1))
    carts = replay_carts.plan_carts([Basket("7", "customer-1", "EIRE", lines)], "digest", 2)
    assert [(cart.invoice, cart.user_id, [(line.sku, line.quantity) for line in cart.lines]) for cart in carts] == [
        ("7", "replay-digest-7", [("a", 4), ("b", 2)]),
        ("7.2", "replay-digest-7.2", [("c", 4), ("d", 5)]),
        ("7.3", "replay-digest-7.3", [("e", 6)]),
    ]


def test_returned_units_are_found_in_the_carts_of_their_basket() -> None:
    lines = tuple(BasketLine(sku, sku, 2, 100, is_fee=False) for sku in ("a", "b", "a"))
    line = ReturnLine("C8", 1, "customer-1", "a", "a", 3, 100, None, 1)
    match = MatchedReturn(line, (ReturnedUnits("7", 2, 1), ReturnedUnits("7", 0, 1), ReturnedUnits("7", 1, 1)))
    skus = {"7": ["c", "a"], "7.2": ["b"], "77": ["a"]}
    [moved] = replay_carts.find_in_carts([match], [Basket("7", "customer-1", "EIRE", lines)], skus)
    assert moved.units == (ReturnedUnits("7", 1, 1), ReturnedUnits("7", 1, 1), ReturnedUnits("7.2", 0, 1))
    assert moved.line is line


async def test_cart_filled_by_an_ended_run_is_checked_out_once_by_the_next(
    shop: CliServices, make_settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run puts the lines of all baskets and checks none out."""
    file = write(tmp_path, HEADER + ROWS)
    settings = make_settings(limits=UNLIMITED)

    async def end(*_: Any, **__: Any) -> None:
        raise replay_carts.BasketRefused("the run ends here")

    async with open_gateway(settings) as gateway, run_workers(settings, *WORKERS):
        with monkeypatch.context() as patch:
            patch.setattr(replay_carts.CartSender, "_check_out", end)
            ended = await replay(shop, gateway.base, file, 4, is_through_cart=True)
        assert sorted(ended.differences) == [f"{invoice}: the run ends here" for invoice in "1238"]
        result = await replay(shop, gateway.base, file, 4, is_through_cart=True)
        command = [str(Path(sys.executable).parent / "floodgate"), "replay", str(file), "--through-cart"]
        variables = {"REDIS_URL": settings.redis(), "DATABASE_URL": settings.database(), **key_environment(tmp_path)}
        status, output = await run_command([*command, "--base", gateway.base], variables)
    assert result.is_complete, result.differences
    assert status == 0, output
    assert "0 orders created, 4 existed before" in output
    assert "4 carts" in output
    assert (result.created, result.stored_orders, result.stored_total) == (4, 4, result.sent_total)
    assert result.played == PlayedReturns(created=1, refunded_total=255)
    await delete_sale_keys(shop, result.sale_id)
