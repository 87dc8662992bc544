"""Runs of locust last their time, fill their files, and name a wrong set-up as such."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from aiohttp import web

import lua
from commerce.freight.model import FreightRegion, FreightStep, FreightTerms, FreightZone
from commerce.promotions.model import PromotionClass, PromotionInput, RepeatedReduction
from config.settings import Settings
from loadtest.set_up import SET_UP_STATUS
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import open_gateway, run_workers
from tests.support.locust_runs import check_clean, key_environment, read_csv, run_command, run_locust
from tests.support.payment_shop import PaymentShop
from tests.support.processes import free_port
from tests.support.sales import eventually, make_sale


async def test_spike_of_make_lasts_its_time_and_fills_its_files(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Ten units are gone within the first second; the rush goes on."""
    await make_sale(shop, sale_id, {"phone": (10, 399_900, 1)})
    report = tmp_path / "report"
    options = f"OPTIONS=--sale {sale_id} --sku phone"
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        command = ("make", "-o", "dev", "loadtest", f"BASE={gateway.base}", "USERS=20", "TIME=3s", f"REPORT={report}")
        status, output = await run_command([*command, options], key_environment(tmp_path))
    assert status == 0, output
    logged = r"(?ms)^\[([^]]+)\] [^\n]*Run time limit set.*^\[([^]]+)\] [^\n]*--run-time limit reached"
    [(began, ended)] = re.findall(logged, output)
    seconds = (
        datetime.fromisoformat(ended.replace(",", ".")) - datetime.fromisoformat(began.replace(",", "."))
    ).seconds
    assert seconds >= 2  # 3, less the milliseconds before the line
    assert "units promised in all: 10 (phone 10)" in output
    rows = {row["Name"]: int(row["Request Count"]) for row in read_csv(report / "figures_stats.csv")}
    assert rows["/v1/orders (sold_out)"] > 10
    assert rows["Aggregated"] >= sum(rows.values()) / 2 > 0
    history = read_csv(report / "figures_stats_history.csv")
    assert int(history[-1]["Total Request Count"]) == rows["Aggregated"]
    assert int(history[-2]["User Count"]) == 20  # nobody has left
    assert "/v1/orders (sold_out)" in (report / "report.html").read_text()


async def test_run_that_ends_within_a_second_leaves_rows(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Without --run-time the spike ends with its last customer."""
    await make_sale(shop, sale_id, {"phone": (3, 399_900, 1)})
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        options = ("--sale", sale_id, "--sku", "phone", "--csv", str(tmp_path / "figures"))
        env = key_environment(tmp_path)
        result = await run_locust("midnight_spike", gateway.base, tmp_path, env, *options, users=5)
    check_clean(result)
    rows = {f"{row['Type']} {row['Name']}": row for row in read_csv(tmp_path / "figures_stats.csv")}
    rows.pop(" Aggregated")
    assert {name: int(row["Request Count"]) for name, row in rows.items()} == result.requests
    assert read_csv(tmp_path / "figures_stats_history.csv")[-1]["Total Request Count"] != "0"


async def test_impatient_crowd_finds_no_violation(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str, tmp_path: Path
) -> None:
    """Each user may order twice a second: half of the customers wait, the others press again."""
    await make_sale(shop, sale_id, {"phone": (10_000, 399_900, None)})
    settings = make_settings(limits={"orders_per_user_per_s": 2, "orders_per_user_burst": 1})
    options = ("--sale", sale_id, "--sku", "phone", "--impatient-share", "0.5", "--think-s", "0.2", "-t", "3s")
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        env = key_environment(tmp_path)
        result = await run_locust("impatient_crowd", gateway.base, tmp_path, env, *options, users=10)
    check_clean(result)
    assert result.requests["POST /v1/orders"] > 5
    assert result.requests["POST /v1/orders by the impatient"] > 5
    assert result.requests["POST /v1/orders by the impatient (too_many_requests)"] > 5


@asynccontextmanager
async def run_server(*paths: str) -> AsyncIterator[str]:
    """Run a server that answers these paths, and no shop; yields its URL."""

    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application()
    app.router.add_routes([web.get(path, answer) for path in paths])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_run_with_wrong_set_up_is_one_line_and_no_broken_promise(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    await make_sale(shop, sale_id, {"phone": (10, 399_900, 1)})
    env, other_key = key_environment(tmp_path), key_environment(tmp_path, "another secret of thirty-two bytes")
    right = ("--sale", sale_id)
    async with (
        open_gateway(settings) as gateway,
        run_workers(settings, "order_writer"),
        run_server("/faults/alipay") as sandbox,
    ):
        cases = [
            ("steady_trade", other_key, right, "refuses the token"),
            ("midnight_spike", env, (*right, "--sku", "none", "--processes", "2"), "does not offer 'none'"),
            ("order_and_pay", env, (*right, "--sandbox", sandbox), "is not offered here"),  # found by the first order
            ("steady_trade", env, (*right, "--step-users", "9"), "give the maximum: --users"),
        ]
        results = await asyncio.gather(
            *(
                run_locust(scenario, gateway.base, tmp_path, key, *options, "-t", "20s", users=2, run_name=str(number))
                for number, (scenario, key, options, _) in enumerate(cases)
            )
        )
    for case, result in zip(cases, results, strict=True):
        lines = [line for line in result.output.splitlines() if line.startswith("cannot run: ")]
        assert result.status == SET_UP_STATUS, (case, result.output)
        assert len(lines) == 1, (case, result.output)
        assert case[-1] in lines[0]
        assert "broken promise" not in result.output
        assert "Traceback" not in result.output


_PREFLIGHTS = """
import json, sys
from loadtest.scenarios.preflight import Preflight
from loadtest.set_up import SetUpFault
for base, sale_id in json.loads(sys.argv[1]):
    try:
        print(sorted(Preflight(base, "--host").read_offers(sale_id)))
    except SetUpFault as fault:
        print(fault)
"""


async def test_preflight_of_wrong_sale_or_server_names_the_remedy(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """One process for all cases, because locust is slow to import and patches the process that does."""
    closed, paused, empty = f"{sale_id}-closed", f"{sale_id}-paused", f"{sale_id}-empty"
    for name in (sale_id, closed, paused):
        await make_sale(shop, name, {"phone": (10, 399_900, 1)})
    await shop.sales.pause(paused, "test")
    await shop.sales.close(closed, "test")
    await make_sale(shop, empty, {}, opened=False)
    nobody = f"http://127.0.0.1:{free_port()}"
    async with open_gateway(settings) as gateway, run_server() as other:
        cases = [
            (gateway.base, sale_id, "['phone']"),
            (gateway.base, "nosuch", "has no sale 'nosuch'; give another --sale"),
            (gateway.base, "no such/sale?", "give another --sale"),
            (gateway.base, closed, "is closed; give another --sale"),
            (gateway.base, paused, "is paused; open it with `floodgate sale open`, or give another --sale"),
            (gateway.base, empty, "; give another --sale"),
            (nobody, sale_id, f"no answer from {nobody}"),
            (nobody.removeprefix("http://"), sale_id, "is no URL of a server; give it with --host http://HOST:PORT"),
            (None, sale_id, "is no URL of a server"),
            (other, sale_id, "is no shop of Floodgate; give another --host"),
        ]
        arguments = json.dumps([case[:2] for case in cases])
        status, output = await run_command([sys.executable, "-c", _PREFLIGHTS, arguments], key_environment(tmp_path))
    assert status == 0, output
    for (*case, text), line in zip(cases, output.splitlines(), strict=True):
        assert text in line, case


async def test_paying_customers_rising_in_steps_have_paid_orders(pay: PaymentShop, tmp_path: Path) -> None:
    alipay = pay.settings.payments.alipay
    assert alipay is not None
    sandbox = alipay.gateway_url.removesuffix("/alipay/gateway.do")
    options = (
        *("--sale", pay.sale_id, "--sandbox", sandbox, "--think-s", "0.2", "--csv", str(tmp_path / "figures")),
        *("--step-users", "2", "--step-s", "1.5"),
    )
    env = key_environment(tmp_path)
    result = await run_locust("order_and_pay", pay.gateway.base, tmp_path, env, *options, users=5)
    check_clean(result)
    paid = await pay.fetch_value("SELECT count(*) FROM orders WHERE status = 'paid'")
    assert paid >= result.requests["WAIT until it is paid"] > 5
    assert result.requests["POST /v1/orders"] >= result.requests["WAIT until it is paid"]
    assert result.requests["POST sandbox: pay"] >= result.requests["WAIT until it is paid"]
    assert f"paid {result.requests['WAIT until it is paid']}" in result.output
    counts = [int(row["User Count"]) for row in read_csv(tmp_path / "figures_stats_history.csv")]
    assert [count for count in (2, 4, 5) if count in counts] == [2, 4, 5]
    assert max(counts) == 5


async def test_cart_customers_in_a_sale_with_promotions_find_no_violation(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """Few units of one SKU and a limit for another one, so that some checkouts are refused."""
    items = {"phone": (60, 399_900, 1), "buds": (5, 29_900, None), "tea": (5_000, 16_800, None)}
    await make_sale(shop, sale_id, items)
    reduction = RepeatedReduction(threshold=30_000, amount=2_000, max_times=5)
    promotion = PromotionInput("every-300", "Every 300 less 20", PromotionClass.ORDER, reduction)
    await shop.promotions.create(sale_id, promotion, "test")
    zone = FreightZone("all", (FreightRegion("*"),), (FreightStep(0, 800, 2), FreightStep(2, 500, per=2)), 500_000)
    freight = FreightTerms(currency="CNY", charged_by="pieces", zones=(zone,))
    await shop.sale_freight.put_templates({"by-pieces": freight}, "test")
    await shop.sale_freight.assign(sale_id, "by-pieces", "test")
    options = ("--sale", sale_id, "--think-s", "0.2", "-t", "5s")
    async with open_gateway(settings) as gateway, run_workers(settings, "order_writer"):
        env = key_environment(tmp_path)
        result = await run_locust("cart_and_checkout", gateway.base, tmp_path, env, *options, users=15)
        await eventually(lambda: is_stored(shop, sale_id))
    check_clean(result)
    [orders] = re.findall(r"^orders: (.*)$", result.output, re.MULTILINE)
    outcomes = dict(outcome.split() for outcome in orders.split(", "))
    async with shop.db.connection() as connection:
        stored, discounted, freights = await connection.fetchrow(
            "SELECT count(*), count(*) FILTER (WHERE discount_minor > 0), count(*) FILTER (WHERE freight_minor > 0) "
            "FROM orders"
        )
    assert stored >= int(outcomes["placed"]) > 5  # at the end of the run some answers were not read
    assert int(outcomes["refused"]) > 0
    assert min(discounted, freights) > 3
    assert result.requests["POST /v1/cart/checkout (repeated)"] > 0
    assert result.requests["WAIT until it is stored"] > 3
    for method in ("PUT", "PATCH", "DELETE"):
        assert result.requests[method + " /v1/cart/lines/{sale_id}/{sku}"] > 0
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


async def is_stored(shop: CliServices, sale_id: str) -> bool:
    return (await lua.read_backlog(shop.redis, SaleKeys(sale_id))).orders == 0
