"""Metrics are complete and accepted by Prometheus; logs have ids and no secrets."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from commerce.kernel import logs
from config.settings import Settings
from gateway import metrics as gateway_metrics
from gateway.problems import problem_codes
from ops.services import CliServices
from tests.support.gateway import TestGateway, bearer, open_gateway, run_workers
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import ADDRESS, eventually, make_sale, order_body
from workers import metrics as worker_metrics


async def read_metrics(gateway: TestGateway) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = await gateway.call("GET", "/metrics", user=None)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_metrics_after_orders_show_counts(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    before = await read_metrics(gateway)
    async with run_workers(settings, "order_writer", "observer", "auditor"):
        await gateway.order(order_body(sale_id, ("a", 2)))
        await gateway.order(order_body(sale_id, ("a", 9)))
        await eventually(lambda: _audited(gateway, sale_id))
        await eventually(lambda: _written(gateway, before))
    after = await read_metrics(gateway)

    def rise(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert rise("floodgate_orders_total", outcome="accepted") == 1
    assert rise("floodgate_orders_total", outcome="sold_out") == 1
    assert rise("floodgate_http_requests_total", method="POST", route="/v1/orders", status="202") == 1
    assert rise("floodgate_http_requests_total", method="POST", route="/v1/orders", status="409") == 1
    assert rise("floodgate_http_request_seconds_count", route="/v1/orders") == 2
    assert rise("floodgate_reserve_batch_orders_count") == 2
    assert rise("floodgate_reserve_seconds_count") == 2
    assert rise("floodgate_written_orders_total", result="stored") == 1
    assert rise("floodgate_write_batch_seconds_count") == 1
    assert after["floodgate_audit_difference_units", (("sale", sale_id),)] == 0
    assert after["floodgate_sale_units", (("kind", "initial"), ("sale", sale_id))] == 5
    assert after["floodgate_dead_letters", ()] >= 0
    assert after["floodgate_stream_backlog_orders", (("sale", sale_id),)] >= 0
    assert after["floodgate_stream_oldest_seconds", (("sale", sale_id),)] >= 0


async def _audited(gateway: TestGateway, sale_id: str) -> bool:
    return ("floodgate_audit_timestamp_seconds", (("sale", sale_id),)) in await read_metrics(gateway)


async def _written(gateway: TestGateway, before: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> bool:
    key = ("floodgate_written_orders_total", (("result", "stored"),))
    return (await read_metrics(gateway)).get(key, 0) > before.get(key, 0)


async def test_broken_promise_is_shown_in_metrics(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await shop.redis.hincrby(keys.stock.decode(), "a", 3)
    async with run_workers(settings, "auditor"):
        await eventually(lambda: _audited(gateway, sale_id))
    values = await read_metrics(gateway)
    assert values["floodgate_audit_difference_units", (("sale", sale_id),)] == 3
    assert values["floodgate_audit_findings", (("promise", "P1"), ("sale", sale_id))] == 1


async def test_metric_names_follow_conventions(gateway: TestGateway, settings: Settings) -> None:
    """The rules of `promtool check metrics`, and promtool itself where it is installed."""
    answer = await gateway.call("GET", "/metrics", user=None)
    for family in text_string_to_metric_families(answer.text):
        if not family.name.startswith("floodgate_"):
            continue
        assert family.documentation, family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|days|weeks|kb|mb|gb)(_|$)", family.name), (
            family.name
        )
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples), family.name
        else:
            assert not family.name.endswith(("_total", "_count")), family.name
    if promtool := shutil.which("promtool"):
        done = await asyncio.to_thread(
            subprocess.run, [promtool, "check", "metrics"], input=answer.text.encode(), capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


async def test_series_with_known_labels_exist_before_their_first_event(gateway: TestGateway) -> None:
    """`increase` over a series that begins at 1 is 0: an alert would miss the first failure."""
    worker_metrics.create_series(["order_writer", "payment_worker"])
    gateway_metrics.create_series(["alipay"], ["sf_express"])
    text = (await gateway.call("GET", "/metrics", user=None)).text
    for series in (
        *(f'orders_total{{outcome="{outcome}"}}' for outcome in gateway_metrics.ORDER_OUTCOMES),
        *(f'written_orders_total{{result="{result}"}}' for result in worker_metrics.WRITE_RESULTS),
        *(f'worker_{kind}_total{{worker="payment_worker"}}' for kind in ("jobs", "failures")),
        *(
            f'payment_webhooks_total{{provider="alipay",result="{result}"}}'
            for result in (*gateway_metrics.PAYMENT_WEBHOOK_RESULTS, "bad_signature")
        ),
        *(
            f'carrier_webhooks_total{{result="{result}",system="sf_express"}}'
            for result in (*gateway_metrics.CARRIER_WEBHOOK_RESULTS, "bad_signature")
        ),
        'carrier_unknown_codes_total{system="sf_express"}',
    ):
        assert f"\nfloodgate_{series} " in text, series


def test_order_outcomes_with_series_are_codes_of_problems() -> None:
    """A code that was renamed would leave a series that never rises."""
    assert set(gateway_metrics.ORDER_OUTCOMES) - {"accepted", "replayed"} <= set(problem_codes())


async def test_counters_of_several_processes_are_summed(tmp_path: Path) -> None:
    """Counters are summed over processes and survive them; a dead process's gauges are dropped."""
    code = (
        "import sys, pathlib\n"
        "from commerce.kernel import metrics\n"
        "metrics.enable_multiprocess(pathlib.Path(sys.argv[1]))\n"
        "from gateway.metrics import ORDERS, CONNECTIONS\n"
        "ORDERS.labels('accepted').inc(3)\nCONNECTIONS.labels('public').set(7)\n"
        "if len(sys.argv) > 2:\n"
        "    metrics.drop_process(int(sys.argv[2]))\n"
        "    print(metrics.render().decode())\n"
        "else:\n"
        "    import os; print(os.getpid())\n"
    )

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(tmp_path), *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode()

    dead = (await run()).strip()
    text = await run(dead)
    assert 'floodgate_orders_total{outcome="accepted"} 6.0' in text
    assert 'floodgate_http_connections{port="public"} 7.0' in text


async def test_killed_process_leaves_counters_and_no_gauges(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    """A stale gauge would hide that no worker observes the streams. Counters stay."""
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    settings = make_settings(metrics_dir=tmp_path / "metrics")
    series = f'floodgate_stream_backlog_orders{{sale="{sale_id}"}}'
    async with run_processes(settings, tmp_path) as started, aiohttp.ClientSession() as client:

        async def is_shown(name: str) -> bool:
            async with client.get(f"http://127.0.0.1:{started.admin_port}/metrics") as answer:
                return name in await answer.text()

        async def is_gone() -> bool:
            return not await is_shown(series)

        await started.gateway()
        observer = await started.worker("observer")
        await eventually(lambda: is_shown(series))
        observer.process.kill()
        await wait_for_exit(observer)
        await eventually(is_gone)
        assert await is_shown("floodgate_http_connections")
        assert list((tmp_path / "metrics").glob(f"counter_{observer.process.pid}.db"))


async def test_process_with_reused_pid_drops_old_gauges(tmp_path: Path) -> None:
    """Process ids are reused, above all in containers."""
    code = (
        "import os, pathlib, sys\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "old = home / f'gauge_livesum_{os.getpid()}.db'\n"
        "kept = home / f'counter_{os.getpid()}.db'\n"
        "for file in (old, kept): file.touch()\n"
        "from commerce.kernel import metrics\n"
        "metrics.enable_multiprocess(home)\n"
        "assert kept.exists() and not old.exists()\n"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path))
    assert await process.wait() == 0


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that the logs write to standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure_logging("debug", None, 1, "test")
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


async def test_logs_are_json_with_ids_and_without_secrets(
    shop: CliServices, gateway: TestGateway, sale_id: str, logged: io.StringIO
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    await gateway.order(order_body(sale_id, ("a", 1)))
    await shop.redis.delete(keys.meta)
    answer = await gateway.order(order_body(sale_id, ("a", 1)))
    lines = [orjson.loads(line) for line in logged.getvalue().splitlines()]
    [failed] = [line for line in lines if line.get("request_id") == answer.headers["X-Request-Id"]]
    assert (failed["level"], failed["process"], failed["path"]) == ("WARNING", "test", "/v1/orders")
    text = logged.getvalue()
    for secret in (bearer(gateway.settings)["Authorization"][7:40], ADDRESS["line"], ADDRESS["phone"]):
        assert secret not in text


async def test_request_id_is_kept_if_well_formed(gateway: TestGateway) -> None:
    kept = await gateway.call("GET", "/health/live", user=None, headers={"X-Request-Id": "abc-1.2"})
    assert kept.headers["X-Request-Id"] == "abc-1.2"
    generated = await gateway.call("GET", "/health/live", user=None, headers={"X-Request-Id": "a b;c"})
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]+", generated.headers["X-Request-Id"])


async def test_memory_durability_is_stated_by_readiness(
    make_settings: Callable[..., Settings], shop: CliServices
) -> None:
    async with open_gateway(make_settings(durability="memory")) as gateway:
        ready = await gateway.call("GET", "/health/ready", user=None)
        assert ready.body["durability"] == "memory"
        assert "may be lost" in ready.body["durability_meaning"]
