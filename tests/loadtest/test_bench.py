"""`make bench` names a wrong set-up before the load, keeps earlier figures, and prices what it says."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import msgspec
import pytest

from config.settings import Settings
from loadtest.bench import report
from loadtest.bench.comparison import BenchedServer, Measurement
from loadtest.bench.environment import SALE_ID, BenchEnvironment, open_sale
from loadtest.bench.order_writing import WriteMeasurement
from loadtest.bench.pricing import BODY, create_orders, create_terms, switch
from loadtest.bench.pricing_figures import GATEWAY, PricingFigures, PricingTimes
from loadtest.bench.pricing_terms import SKUS, list_promotions
from loadtest.bench.support_figures import CallTimes, SearchTimes, SupportLoadFigures
from loadtest.set_up import SET_UP_STATUS
from ops.services import CliServices
from tests.support.gateway import open_gateway
from tests.support.locust_runs import run_command

COUPONS = ["coupon-0", "coupon-1"]


@pytest.mark.parametrize(
    ("has_wrk", "out", "text"),
    [(False, "figures", "wrk is not installed"), (True, "a-file/figures", "figures cannot be written to")],
)
async def test_bench_with_wrong_set_up_is_one_line(has_wrk: bool, out: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    if has_wrk:
        (programs / "wrk").touch(0o755)
    command = [sys.executable, "-m", "loadtest.bench", "--out", str(tmp_path / out)]
    status, output = await run_command(command, {"PATH": str(programs)})
    assert status == SET_UP_STATUS, output
    [line] = output.splitlines()
    assert line.startswith("cannot run: ")
    assert text in line


def test_figures_without_comparison_are_written_without_picture(tmp_path: Path) -> None:
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={})
    assert figures.is_empty()
    figures.writing = [WriteMeasurement(1, 100.0, 200.0, {}, 0.0)]
    assert not figures.is_empty()
    report.write(figures, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["latest.json"]


async def test_pricing_switched_on_and_off_prices_orders_so(
    shop: CliServices, settings: Settings, tmp_path: Path
) -> None:
    environment = BenchEnvironment(tmp_path, settings, 0, 0, shop, SKUS, units_per_order=3)
    await open_sale(environment)
    body, totals = msgspec.json.decode(msgspec.json.encode(BODY).replace(b"@", b"1")), []
    async with open_gateway(settings) as gateway:
        floodgate = BenchedServer("floodgate", f"{gateway.base}/v1/orders", {})
        await create_terms(environment)
        for is_on in (True, False, True):
            await switch(environment, floodgate, is_on=is_on)
            placed = await gateway.order(body)
            assert placed.status == 202
            totals.append(placed.body["total"]["amount"])
        assert await environment.count_sold() == 3
    assert totals[0] == totals[2] != totals[1] == 3 * 255
    async for key in shop.redis.scan_iter(f"{{sale:{SALE_ID}}}*"):
        await shop.redis.delete(key)


def test_pricing_has_promotions_of_each_class_and_orders_that_differ() -> None:
    promotions = list_promotions()
    classes = Counter(promotion.promotion_class.value for promotion in promotions)
    assert classes == {"item": 8, "multi": 6, "order": 4, "coupon": 2}
    assert [promotion.promotion_id for promotion in promotions if promotion.skus is None] == ["order-0", *COUPONS]
    orders = islice(create_orders(), 60_000)
    units = {tuple(sorted((line.sku, line.quantity) for line in order.lines)) for order in orders}
    assert len(units) == 60_000


def test_pricing_figures_are_medians_of_neighbours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(*costs: float) -> list[Measurement]:
        return [Measurement(100, 1_000.0, {GATEWAY: cost, "redis": 9.0}, 1.0, 2.0) for cost in costs]

    times = [PricingTimes(2.0, 4.0, 20.0), PricingTimes(3.0, 6.0, 30.0), PricingTimes(9.0, 9.0, 90.0)]
    pricing = PricingFigures(plain=measured(20, 30, 22), promotions=measured(25, 36, 26), in_process=times)
    pricing.ratios = pricing.compute_ratios()
    assert pricing.ratios == {
        "repeats": 3,
        "plain_us": 22,
        "promotions_us": 26,
        "extra_us": 5,
        "price_order_plain_us": 3,
        "price_order_hit_us": 6,
        "price_order_miss_us": 30,
    }
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={}, pricing=pricing)
    report.show(figures)
    assert "'extra_us': 5" in capsys.readouterr().out
    report.write(figures, tmp_path)
    kept = msgspec.json.decode((tmp_path / "latest.json").read_bytes())
    assert kept["pricing"]["ratios"] == pricing.ratios


def test_support_figures_compare_each_call_with_a_read_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_key = CallTimes.of_seconds([number / 1_000 for number in range(1, 101)])
    assert by_key == CallTimes(100, 51.0, 100.0)
    support = SupportLoadFigures(
        by_key=by_key,
        take=CallTimes(10, 102.0, 500.0),
        search=SearchTimes(10, 1.0, 2.0, per_s=800.0, cpu_us=90.0),
    )
    support.ratios = support.compute_ratios()
    assert support.ratios == {"take_p50_vs_key": 2.0, "take_p99_vs_key": 5.0}
    assert SupportLoadFigures(take=by_key).compute_ratios() == {}
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={}, support=support)
    report.show(figures)
    assert "800/s in one process" in capsys.readouterr().out
    report.write(figures, tmp_path)
    stored = msgspec.json.decode((tmp_path / "latest.json").read_bytes())
    assert stored["support"]["ratios"] == support.ratios
