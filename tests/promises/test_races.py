"""P1, P3, P4: clients race over HTTP against two gateway processes and a writer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import lua
from config.settings import Settings
from lua import SaleKeys
from ops.services import CliServices
from tests.support.customer_crowd import CustomerCrowd
from tests.support.processes import run_processes
from tests.support.sales import eventually, make_sale


async def is_stored(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.read_backlog(shop.redis, keys)).orders == 0


def random_orders(users: int, count: int, baskets: list[dict[str, int]]):  # type: ignore[no-untyped-def]
    """Return a function that returns `count` orders of random users, each under its own key, then None."""
    number = 0

    def next_order() -> tuple[str, str, Mapping[str, int]] | None:
        nonlocal number
        number += 1
        if number > count:
            return None
        return f"u{random.randrange(users)}", f"key-{number}", random.choice(baskets)

    return next_order


async def test_few_units_for_many_clients_are_sold_once(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """200 units, one per user; 1,500 requests of 600 users, a tenth repeated: 200 sold to 200 users."""
    keys = await make_sale(shop, sale_id, {"phone": (200, 399_900, 1)})
    async with run_processes(settings, tmp_path) as processes:
        await processes.gateway()
        await processes.gateway()
        await processes.worker("order_writer")
        crowd = CustomerCrowd(settings, processes.base, sale_id)
        await crowd.run(48, random_orders(600, 1_500, [{"phone": 1}]), repeat_share=0.1)
        await eventually(lambda: is_stored(shop, keys))
    users = Counter(user for user, _, _ in crowd.promised.values())
    assert len(crowd.promised) == 200
    assert max(users.values()) == 1
    assert crowd.answers["gave up"] == 0
    assert set(crowd.answers) == {"202", "200", "sold_out", "over_limit"}
    async with shop.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM orders") == 200
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    assert (audit.total.available, audit.total.held, audit.differences) == (0, 200, 0)


async def test_orders_of_several_skus_are_accepted_completely_or_not_at_all(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """One of the SKUs is sold out before the others."""
    keys = await make_sale(shop, sale_id, {"a": (60, 100, 4), "b": (150, 100, None), "c": (400, 100, None)})
    baskets = [{"a": 1, "b": 2, "c": 1}, {"b": 1, "c": 3, "a": 2}, {"c": 1, "b": 1}, {"c": 2}]
    async with run_processes(settings, tmp_path) as processes:
        await processes.gateway()
        await processes.gateway()
        await processes.worker("order_writer")
        crowd = CustomerCrowd(settings, processes.base, sale_id)
        await crowd.run(48, random_orders(300, 1_200, baskets), repeat_share=0.1)
        await eventually(lambda: is_stored(shop, keys))
    sold: Counter[str] = Counter()
    by_user: Counter[str] = Counter()
    for user, _, units in crowd.promised.values():
        sold.update(units)
        by_user[user] += units.get("a", 0)
    stock = (await lua.cut(shop.redis, keys)).stock
    assert {sku: units + sold[sku] for sku, units in stock.items()} == {"a": 60, "b": 150, "c": 400}
    assert max(by_user.values()) <= 4
    assert min(stock.values()) < 3
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
