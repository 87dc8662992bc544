"""Workers are killed while they set a planned price, and it is set once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from commerce.catalog.model import PriceInput, VariantInput
from commerce.kernel.clock import from_ms
from config.settings import Settings
from ops.services import CliServices
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import eventually


@pytest.mark.parametrize(("failpoint", "price"), [("price.before_commit", 100), ("price.after_commit", 150)])
async def test_worker_killed_while_setting_a_planned_price_sets_it_once(
    shop: CliServices, make_settings: Callable[..., Settings], tmp_path: Path, failpoint: str, price: int
) -> None:
    await shop.catalog.put("tea", VariantInput("tea", 100, "CNY"))
    starts_at = from_ms(shop.clock.now_ms()) + timedelta(seconds=1)
    await shop.prices.set_price(
        "tea", PriceInput(price=150, currency="CNY", starts_at=starts_at, reason="winter"), "test"
    )
    async with run_processes(make_settings(jobs={"lease_s": 1}), tmp_path) as processes:
        killed = await processes.worker("sale_sync", crash_at=failpoint)
        assert await wait_for_exit(killed) == -9
        assert (await shop.catalog.get("tea")).price == price
        await processes.worker("sale_sync")

        async def is_set() -> bool:
            async with shop.db.connection() as connection:
                jobs = await connection.fetchval("SELECT count(*) FROM jobs")
            return not jobs and (await shop.catalog.get("tea")).price == 150

        await eventually(is_set, timeout_s=30)
    assert [change.price for change in (await shop.prices.list_changes("tea", None, 9)).items] == [150, 100]
