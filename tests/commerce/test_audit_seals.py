"""Audits of what has changed since a seal find what audits of all history find."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

import lua
from commerce.audit.limits import LimitCheck
from commerce.audit.model import SaleAudit
from commerce.kernel.clock import from_ms
from commerce.kernel.failures import Failures
from commerce.reservations.service import Reservations
from commerce.sales.model import StockChangeInput
from config.settings import Settings
from lua import Release, SaleKeys
from ops.services import CliServices
from tests.commerce.test_audit import POLICY, VIOLATIONS, expire_half, has_no_pending_releases, is_drained, keys
from tests.support.gateway import run_workers
from tests.support.sales import eventually, expire_all, make_sale, reservation, reserve
from workers import auditor

__all__ = ["keys"]  # a fixture
ONLY_IN_HISTORY = {"Redis forgot what a user bought"}
"""differences in Redis alone, of users that did nothing since the seal"""


def promises(audit: SaleAudit) -> set[str]:
    return {finding.promise for finding in audit.findings}


async def execute(shop: CliServices, statement: str, *arguments: object) -> None:
    async with shop.db.connection() as connection:
        await connection.execute(statement, *arguments)


async def count_marks(shop: CliServices) -> int:
    async with shop.db.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM audit_marks"))


async def seal(shop: CliServices, sale_id: str) -> SaleAudit:
    audit = await shop.audit.audit_changes(sale_id)
    assert audit.clean, audit.findings
    assert [sealed.sale_id for sealed in await shop.audit.list_seals()] == [sale_id]
    return audit


async def read_whole_at(shop: CliServices) -> Any:
    return [sealed.whole_at for sealed in await shop.audit.list_seals()]


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_violation_before_seal_is_found_and_not_sealed(
    shop: CliServices, sale_id: str, keys: SaleKeys, name: str
) -> None:
    promise, violate = VIOLATIONS[name]
    await violate(shop, keys)
    for _ in range(2):
        assert promise in promises(await shop.audit.audit_changes(sale_id))
    assert await shop.audit.list_seals() == []


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_violation_after_seal_is_found_until_it_is_gone(
    shop: CliServices, sale_id: str, keys: SaleKeys, name: str
) -> None:
    """The rows are older than the seal, and are changed by hand while the shop's triggers are off."""
    promise, violate = VIOLATIONS[name]
    await seal(shop, sale_id)
    await violate(shop, keys)
    for _ in range(2):
        if name in ONLY_IN_HISTORY:
            assert (await shop.audit.audit_changes(sale_id)).clean
            assert promise in promises(await shop.audit.seal_history(sale_id))
        else:
            assert promise in promises(await shop.audit.audit_changes(sale_id))


@pytest.mark.parametrize("name", [name for name, (promise, _) in VIOLATIONS.items() if promise not in ("P1", "P4")])
async def test_violation_without_marks_is_found_in_history(
    shop: CliServices, sale_id: str, keys: SaleKeys, name: str
) -> None:
    """Somebody deleted the marks, or disabled the triggers that make them."""
    promise, violate = VIOLATIONS[name]
    await seal(shop, sale_id)
    await violate(shop, keys)
    await execute(shop, "DELETE FROM audit_marks")
    assert promise in promises(await shop.audit.seal_history(sale_id))


async def test_audit_of_changes_has_the_units_of_a_whole_audit(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    assert (await seal(shop, sale_id)).rows == (await shop.audit.audit_sale(sale_id)).rows
    await expire_all(shop)
    releases = Reservations(shop.db, shop.redis, shop.clock, POLICY)
    await releases.expire_unpaid_orders()
    await releases.apply_due_releases()
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    whole_at = await read_whole_at(shop)
    audit = await seal(shop, sale_id)
    assert audit == await shop.audit.audit_sale(sale_id)
    assert audit.total.held == 2
    assert await read_whole_at(shop) == whole_at


async def test_change_that_commits_late_is_not_missed(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    """Three transactions are older than two seals: one stores an order, one cancels, one breaks a total."""
    orders = [reservation(shop.ids.new, sale_id, {"a": 1}, user=f"late{n}", limits={"a": 5}) for n in range(2)]
    await reserve(shop.redis, keys, *orders)
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await seal(shop, sale_id)
    columns = "user_id, body_digest, sale_id, generation, currency, total_minor, ship_to, payment_plan, accepted_at"
    columns += ", entry_seq, persisted_at, pay_by"
    async with shop.db.connection() as storing, shop.db.connection() as breaking:
        transactions = [storing.transaction(), breaking.transaction()]
        for transaction in transactions:
            await transaction.start()
        await storing.execute(
            f"INSERT INTO orders (order_id, idempotency_key, {columns}) "
            f"SELECT $1, 'late', {columns} FROM orders WHERE order_id = $2",
            shop.ids.new(),
            orders[0].order_id,
        )
        await breaking.execute("UPDATE orders SET total_minor = 1 WHERE order_id = $1", orders[1].order_id)
        for number in range(2):
            order = reservation(shop.ids.new, sale_id, {"a": 1}, user=f"w{number}", limits={"a": 5})
            await reserve(shop.redis, keys, order)
            async with run_workers(settings, "order_writer"):
                await eventually(lambda: is_drained(shop, keys))
            await seal(shop, sale_id)
            assert await count_marks(shop) == 0
        for transaction in transactions:
            await transaction.commit()
    findings = (await shop.audit.audit_changes(sale_id)).findings
    assert {(finding.detail, *finding.examples) for finding in findings} >= {
        ("totals of orders are not what their lines and freight cost", str(orders[1].order_id)),
    }
    assert "orders have no lines" in {finding.detail for finding in findings}
    assert (await shop.audit.audit_changes(sale_id)).orders == (await shop.audit.audit_sale(sale_id)).orders


async def test_user_over_limit_by_orders_before_and_after_seal_is_found(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys
) -> None:
    """Each order is within the limit; one is older than the seal."""
    await seal(shop, sale_id)
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 4}, user="u2", limits={"a": 6}))
    assert "P4" in promises(await shop.audit.audit_changes(sale_id))
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    assert "P4" in promises(await shop.audit.audit_changes(sale_id))


async def test_release_applied_twice_after_seal_is_found(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await seal(shop, sale_id)
    await lua.release(shop.redis, keys, [Release(shop.ids.new(), shop.clock.now_ms(), "u1", {"a": 2})])
    assert "P1" in promises(await shop.audit.audit_changes(sale_id))


async def test_counts_of_redis_are_compared_when_the_sale_is_calm(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While orders come, nobody can say which count belongs to the cut; that is made up for."""
    await seal(shop, sale_id)
    await reserve(shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 1}, user="u9", limits={"a": 5}))
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    await shop.redis.hset(keys.buyers.decode(), "u9\0a", 2)

    async def is_busy(check: LimitCheck) -> bool:
        return False

    with monkeypatch.context() as patched:
        patched.setattr(LimitCheck, "_is_calm", is_busy)
        for _ in range(2):
            await seal(shop, sale_id)
    assert "P4" in promises(await shop.audit.audit_changes(sale_id))
    await shop.redis.hset(keys.buyers.decode(), "u9\0a", 1)
    await seal(shop, sale_id)
    assert await count_marks(shop) == 0


@pytest.mark.parametrize("column", ["reserved", "sold", "dead", "released", "written_off"])
async def test_wrong_seal_is_found_and_replaced(shop: CliServices, sale_id: str, keys: SaleKeys, column: str) -> None:
    await seal(shop, sale_id)
    await execute(shop, f"UPDATE audit_sums SET {column} = {column} + 1 WHERE sku = 'a'")
    detail = "rows were changed without a mark since the seal, or the seal is wrong"
    assert ["P1", detail, [f"a: {column} -1"]] in [
        [finding.promise, finding.detail, finding.examples]
        for finding in (await shop.audit.audit_sale(sale_id)).findings
    ]
    assert detail in {finding.detail for finding in (await shop.audit.seal_history(sale_id)).findings}
    await seal(shop, sale_id)
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_rewritten_history_is_read_again(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    """A correction by hand in both databases leaves no finding, and a new seal."""
    await seal(shop, sale_id)
    whole_at = await read_whole_at(shop)
    await execute(
        shop,
        "UPDATE order_lines SET quantity = quantity + 1 FROM orders "
        "WHERE orders.order_id = order_lines.order_id AND user_id = 'u3' AND sku = 'b'",
    )
    assert promises(await shop.audit.audit_changes(sale_id)) == {"P1", "P2"}
    await execute(
        shop,
        "UPDATE orders SET total_minor = (SELECT sum(quantity * unit_price_minor) FROM order_lines "
        "WHERE order_lines.order_id = orders.order_id) WHERE user_id = 'u3'",
    )
    await shop.redis.hincrby(keys.stock.decode(), "b", -1)
    await seal(shop, sale_id)
    assert await read_whole_at(shop) > whole_at
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_new_load_is_audited_whole(shop: CliServices, sale_id: str, keys: SaleKeys) -> None:
    await seal(shop, sale_id)
    whole_at = await read_whole_at(shop)
    await execute(shop, "UPDATE sales SET epoch = epoch + 1 WHERE sale_id = $1", sale_id)
    assert await shop.sales.sync_to_redis(sale_id)
    await seal(shop, sale_id)
    assert await read_whole_at(shop) > whole_at


async def test_audits_of_changes_during_orders_and_releases_are_clean(
    shop: CliServices, settings: Settings, sale_id: str
) -> None:
    """Afterwards the sums of the seal, which many rounds have added to, are those of history."""
    keys = await make_sale(shop, sale_id, {"a": (2_000, 100, 5), "b": (500, 50, None)})
    stop = asyncio.Event()
    audits: list[SaleAudit] = []

    async def buy(customer_no: int) -> None:
        order_no = 0
        while not stop.is_set():
            order_no += 1
            user = f"u{customer_no}-{order_no // 3}"
            await reserve(
                shop.redis, keys, reservation(shop.ids.new, sale_id, {"a": 2, "b": 1}, user=user, limits={"a": 5})
            )

    async def add_stock() -> None:
        while not stop.is_set():
            await shop.stock.change(sale_id, shop.ids.new(), StockChangeInput("b", 7, "more"), "test")

    async def expire() -> None:
        while not stop.is_set():
            await expire_half(shop)
            await asyncio.sleep(0.01)

    async with run_workers(settings, "order_writer", "release_worker"):
        tasks = [asyncio.create_task(work) for work in (*(buy(number) for number in range(4)), add_stock(), expire())]
        for _ in range(25):
            audits.append(await shop.audit.audit_changes(sale_id))
        stop.set()
        await asyncio.gather(*tasks)
        await eventually(lambda: is_drained(shop, keys))
        await eventually(lambda: has_no_pending_releases(shop))
    whole_at = await read_whole_at(shop)
    audits += [await shop.audit.audit_changes(sale_id), await shop.audit.audit_sale(sale_id)]
    assert [audit.findings for audit in audits if not audit.clean] == []
    assert audits[-2].rows == audits[-1].rows
    assert len({audit.orders for audit in audits}) > 10
    assert await read_whole_at(shop) == whole_at
    assert await count_marks(shop) == 0


# The rounds of the worker.


@pytest.fixture
def audited(shop: CliServices, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the audits that are made."""
    names: list[str] = []
    for name in ("audit_changes", "seal_history"):
        monkeypatch.setattr(shop.audit, name, _recorded(name, getattr(shop.audit, name), names))
    return names


def _recorded(
    name: str, audit: Callable[[str], Awaitable[SaleAudit]], names: list[str]
) -> Callable[[str], Awaitable[SaleAudit]]:
    async def record(sale_id: str) -> SaleAudit:
        names.append(name)
        return await audit(sale_id)

    return record


async def test_rounds_leave_a_resting_sale_alone_until_it_changes(
    shop: CliServices, settings: Settings, sale_id: str, keys: SaleKeys, audited: list[str]
) -> None:
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: is_drained(shop, keys))
    rounds = auditor.Rounds(shop.audit, shop.sales, shop.clock, settings.observer, asyncio.Event())

    async def run() -> list[str]:
        audited.clear()
        failures = Failures("audit a sale", logging.getLogger(__name__))
        await rounds.audit_changes(failures)
        await rounds.audit_history(failures)
        failures.raise_any()
        return list(audited)

    assert await run() == ["audit_changes", "seal_history"]  # the seal is new, so the first call reads history
    assert await run() == ["audit_changes"]
    await shop.sales.close(sale_id, "test")
    assert (await run(), await run()) == (["audit_changes"], [])
    await execute(shop, "UPDATE orders SET total_minor = total_minor + 1 WHERE user_id = 'u3'")
    assert (await run(), await run()) == (["audit_changes"], ["audit_changes"])
    await execute(shop, "UPDATE orders SET total_minor = total_minor - 1 WHERE user_id = 'u3'")
    assert (await run(), await run()) == (["audit_changes"], [])
    long_ago = from_ms(shop.clock.now_ms()) - timedelta(seconds=settings.observer.audit_history_every_s + 1)
    await execute(shop, "UPDATE audit_seals SET whole_at = $1", long_ago)
    assert (await run(), await run()) == (["seal_history"], [])
