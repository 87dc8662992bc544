"""The observer measures streams without Postgres, and shows a ledger that does not add up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import run_workers
from tests.support.payment_shop import open_payment_shop
from tests.support.proxy import open_postgres_proxy
from tests.support.sales import eventually, make_sale, reservation, reserve
from tests.support.staff_refunds import refund_as_staff


def gauge(name: str, sale_id: str) -> float:
    return REGISTRY.get_sample_value(name, {"sale": sale_id}) or 0


@pytest.mark.parametrize("failure", ["disconnected", "frozen"])
async def test_observer_without_postgres_measures_streams(
    make_settings: Callable[..., Settings],
    database_url: str,
    shop: CliServices,
    sale_id: str,
    tmp_path: Path,
    failure: str,
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (50, 100, None)})
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}) for _ in range(3)]
    async with open_postgres_proxy(database_url, tmp_path) as (proxy, url):
        settings = make_settings(
            database_url=url, observer={"gauges_every_s": 0.05}, limits={"database_timeout_s": 0.5}
        )
        await reserve(shop.redis, keys, orders[0])

        async def is_backlog(count: int) -> bool:
            return gauge("floodgate_stream_backlog_orders", sale_id) == count

        async def older_than(age_s: float) -> bool:
            return gauge("floodgate_stream_oldest_seconds", sale_id) > age_s

        async with run_workers(settings, "observer"):
            await eventually(lambda: is_backlog(1))
            if failure == "disconnected":
                proxy.cut()
            else:
                proxy.hold.clear()
            await reserve(shop.redis, keys, *orders[1:])
            await eventually(lambda: is_backlog(3))
            age_s = gauge("floodgate_stream_oldest_seconds", sale_id)
            await eventually(lambda: older_than(age_s))
            proxy.cut()


@pytest.mark.usefixtures("short_polls")
async def test_observer_shows_waiting_refunds(
    shop: CliServices, sale_id: str, make_settings: Callable[..., Settings]
) -> None:
    labels = {"method": "alipay", "currency": "CNY", "reason": "merchant_balance"}

    async def shows(count: int, amount: int) -> bool:
        values = [REGISTRY.get_sample_value(f"floodgate_waiting_refunds{unit}", labels) for unit in ("", "_minor")]
        return values == [count, amount]

    async with (
        open_payment_shop(shop, sale_id) as pay,
        run_workers(make_settings(observer={"gauges_every_s": 0.05}), "observer"),
    ):
        order_id, _ = await pay.add_paid_order(("alipay", 100))
        pay.set_faults(merchant_balance=0)
        for key in ("k", "l"):
            await refund_as_staff(pay.shop, order_id, key, 30)
        await eventually(lambda: shows(2, 60))
        pay.set_faults()
        await eventually(lambda: shows(0, 0))


async def test_observer_shows_entries_that_do_not_add_up(
    shop: CliServices, make_settings: Callable[..., Settings]
) -> None:
    async def shows(difference: int) -> bool:
        return REGISTRY.get_sample_value("floodgate_ledger_difference_minor", {"currency": "XTS"}) == difference

    async def insert(posting: str, amount: int) -> None:
        async with shop.db.transaction() as connection:
            await connection.execute("SET LOCAL session_replication_role = replica")  # the triggers would refuse it
            await connection.execute(
                "INSERT INTO ledger (posting, account, amount_minor, currency, at) "
                "VALUES ($1, 'cash', $2, 'XTS', now())",
                posting,
                amount,
            )

    await insert("before the start", 5)
    async with run_workers(make_settings(observer={"gauges_every_s": 0.05}), "observer"):
        await eventually(lambda: shows(5))
        await insert("later", -2)
        await eventually(lambda: shows(3))


async def test_observer_shows_holders_of_cash(shop: CliServices, make_settings: Callable[..., Settings]) -> None:
    """A holder without cash is shown with 0, for as long as the observer runs."""

    async def shows(amount: int, min_age_s: float) -> bool:
        labels = {"holder": "driver:V1", "currency": "CNY"}
        age_s = REGISTRY.get_sample_value("floodgate_held_cash_seconds", labels)
        is_old = age_s is not None and (age_s > min_age_s if min_age_s else age_s == 0)
        return is_old and REGISTRY.get_sample_value("floodgate_held_cash_minor", labels) == amount

    await post_cash(shop, "cash 1", 500, age_s=90)
    async with run_workers(make_settings(observer={"shipments_every_s": 0.05}), "observer"):
        await eventually(lambda: shows(500, 89))
        await post_cash(shop, "deposit 1", -500)
        await eventually(lambda: shows(0, 0))


async def post_cash(shop: CliServices, posting: str, amount: int, age_s: int = 0) -> None:
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO ledger (posting, account, amount_minor, currency, at) VALUES "
            "($1, 'cash:driver:V1', $2, 'CNY', now() - make_interval(secs => $3)), ($1, 'bank', -$2, 'CNY', now())",
            *(posting, amount, age_s),
        )


async def test_observer_shows_zero_once_a_group_has_no_jobs(
    shop: CliServices, make_settings: Callable[..., Settings]
) -> None:
    async def shows(parked: int) -> bool:
        labels = {"queue": "releases", "kind": "release.apply", "system": "test", "state": "parked"}
        return REGISTRY.get_sample_value("floodgate_open_jobs", labels) == parked

    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO jobs (subject, queue, kind, system, due_at, created_at, parked) "
            "VALUES (gen_random_uuid(), 'releases', 'release.apply', 'test', now(), now(), true)"
        )
        async with run_workers(make_settings(observer={"gauges_every_s": 0.05}), "observer"):
            await eventually(lambda: shows(1))
            await connection.execute("DELETE FROM jobs WHERE system = 'test'")
            await eventually(lambda: shows(0))
