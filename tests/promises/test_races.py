"""P1, P3, P4: hundreds of racing clients through HTTP, against two gateway processes and a writer."""

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


async def drained(shop: CliServices, keys: SaleKeys) -> bool:
    return (await lua.backlog(shop.redis, keys)).orders == 0


def orders(users: int, count: int, baskets: list[dict[str, int]]):  # type: ignore[no-untyped-def]
    """That many orders of random users with random baskets, each under a key of its own."""
    number = 0

    def next_order() -> tuple[str, str, Mapping[str, int]] | None:
        nonlocal number
        number += 1
        if number > count:
            return None
        return f"u{random.randrange(users)}", f"key-{number}", random.choice(baskets)

    return next_order


async def test_a_few_units_and_a_crowd(shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path) -> None:
    """200 units, one each, 1,500 requests of 600 users, one in ten a repeat: 200 sold, to 200 users."""
    keys = await make_sale(shop, sale_id, {"phone": (200, 399_900, 1)})
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        await started.gateway()
        await started.worker("order_writer")
        crowd = CustomerCrowd(settings, started.base, sale_id)
        await crowd.run(48, orders(600, 1_500, [{"phone": 1}]), repeat_share=0.1)
        await eventually(lambda: drained(shop, keys))
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


async def test_baskets_of_three_and_a_partial_sell_out(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    """A basket is taken whole or not at all, though one of its SKUs runs out before the others."""
    keys = await make_sale(shop, sale_id, {"a": (60, 100, 4), "b": (150, 100, None), "c": (400, 100, None)})
    baskets = [{"a": 1, "b": 2, "c": 1}, {"b": 1, "c": 3, "a": 2}, {"c": 1, "b": 1}, {"c": 2}]
    async with run_processes(settings, tmp_path) as started:
        await started.gateway()
        await started.gateway()
        await started.worker("order_writer")
        crowd = CustomerCrowd(settings, started.base, sale_id)
        await crowd.run(48, orders(300, 1_200, baskets), repeat_share=0.1)
        await eventually(lambda: drained(shop, keys))
    taken: Counter[str] = Counter()
    by_user: Counter[str] = Counter()
    for user, _, units in crowd.promised.values():
        taken.update(units)
        by_user[user] += units.get("a", 0)
    stock = (await lua.cut(shop.redis, keys)).stock
    assert {sku: units + taken[sku] for sku, units in stock.items()} == {"a": 60, "b": 150, "c": 400}
    assert max(by_user.values()) <= 4
    assert min(stock.values()) < 3
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
