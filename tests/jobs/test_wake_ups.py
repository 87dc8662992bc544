"""A due job starts at once after its commit; without Redis it waits for a poll, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

import lua
from commerce.jobs import store, wake_ups
from commerce.jobs.model import NewJob
from commerce.jobs.wake_ups import listen_for_due_jobs
from commerce.kernel.clock import from_ms
from config.settings import Settings
from gateway import change_watcher
from gateway.endpoints import payments
from ops.services import CliServices, open_cli_services
from tests.support.gateway import run_workers
from tests.support.payment_shop import open_payment_shop, with_job_settings
from tests.support.sales import eventually, make_sale

LONG_S = 30


async def put(shop: CliServices, delay_s: float = 0, *, commit: bool = True) -> None:
    now = from_ms(shop.clock.now_ms())
    async with shop.db.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        job = NewJob(shop.ids.new(), "test.call", "internal", now + timedelta(seconds=delay_s))
        await store.put(connection, "test", [job], now)
        await (transaction.commit if commit else transaction.rollback)()
        if not commit:
            raise LookupError


async def test_commit_of_due_job_wakes_and_others_do_not(shop: CliServices, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[set[str]] = []
    publish = lua.publish_due

    async def record(redis: object, queues: set[str]) -> None:
        woken.append(queues)
        await publish(redis, queues)  # type: ignore[arg-type]

    monkeypatch.setattr(lua, "publish_due", record)
    async with listen_for_due_jobs(shop.redis, shop.clock) as due_jobs:
        due, other = due_jobs.event("test"), due_jobs.event("other")
        await eventually(lambda: _is_set(other))  # it listens
        due.clear()
        other.clear()
        await put(shop, delay_s=10)
        with pytest.raises(LookupError):
            await put(shop, commit=False)
        assert woken == []
        await put(shop)
        await asyncio.wait_for(due.wait(), 20)
        assert woken == [{"test"}]
        assert not other.is_set()


async def _is_set(event: asyncio.Event) -> bool:
    return event.is_set()


async def test_release_is_applied_without_waiting_for_a_poll(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    settings = make_settings(jobs={"poll_ms": LONG_S * 1000})
    async with run_workers(settings, "release_worker"):
        for units in range(6, 9):
            await _release_one(shop, sale_id)
            await eventually(lambda units=units: _has_units(shop, keys, units))


async def test_without_redis_channel_polls_take_over(
    shop: CliServices, settings: Settings, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wake-ups neither leave nor arrive, as with a user who may not use channels."""

    async def fail(*_: object) -> None:
        raise RedisConnectionError("away")

    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    monkeypatch.setattr(lua, "publish_due", fail)
    monkeypatch.setattr(wake_ups.lua, "listen_due", _listen_in_vain)
    async with run_workers(settings, "release_worker"):
        for units in range(6, 9):
            await _release_one(shop, sale_id)
            await eventually(lambda units=units: _has_units(shop, keys, units))


async def _listen_in_vain(*_: object):  # type: ignore[no-untyped-def]
    raise RedisConnectionError("away")
    yield


async def test_listener_goes_on_after_its_connection_broke(shop: CliServices, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_ups, "_RETRY_S", 0.01)
    async with listen_for_due_jobs(shop.redis, shop.clock) as due_jobs:
        due = due_jobs.event("test")
        await eventually(lambda: _is_set(due))
        due.clear()
        await shop.redis.client_kill_filter(_type="pubsub")
        await asyncio.wait_for(due.wait(), 20)  # wake-ups may have been lost meanwhile
        due.clear()
        await put(shop)
        await asyncio.wait_for(due.wait(), 20)


async def test_process_that_fails_wakes_workers_and_listens_no_more(shop: CliServices, settings: Settings) -> None:
    async with listen_for_due_jobs(shop.redis, shop.clock) as due_jobs:
        due = due_jobs.event("test")
        await eventually(lambda: _is_set(due))
        due.clear()
        tasks = asyncio.all_tasks()
        with pytest.raises(LookupError):
            await _put_and_fail(settings)
        await asyncio.wait_for(due.wait(), 20)
        assert asyncio.all_tasks() <= tasks


async def _put_and_fail(settings: Settings) -> None:
    async with open_cli_services(settings) as other, listen_for_due_jobs(other.redis, other.clock):
        await put(other)
        raise LookupError


async def _release_one(shop: CliServices, sale_id: str) -> None:
    release_id, now = shop.ids.new(), from_ms(shop.clock.now_ms())
    async with shop.db.transaction() as connection:
        await connection.execute(
            "INSERT INTO releases (release_id, sale_id, user_id, units, reason, created_at) "
            "VALUES ($1, $2, 'user', '{\"a\": 1}', 'test', $3)",
            *(release_id, sale_id, now),
        )
        await store.put(connection, "releases", [NewJob(release_id, "release.apply", "internal", now)], now)


async def _has_units(shop: CliServices, keys: lua.SaleKeys, units: int) -> bool:
    return (await lua.cut(shop.redis, keys)).stock == {"a": units}


async def test_payment_begins_and_event_stream_moves_without_waiting_for_polls(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's polls and the gateway's would each take longer than the test may."""
    monkeypatch.setattr(payments, "_POLL_INITIAL_S", LONG_S)
    monkeypatch.setattr(payments, "_POLL_AWAKE_S", LONG_S)
    monkeypatch.setattr(change_watcher, "_POLL_INTERVAL_S", LONG_S)
    change = with_job_settings(poll_ms=LONG_S * 1000)
    async with open_payment_shop(shop, sale_id, change=change) as pay:
        order_id = await pay.add_order()
        get, reads = pay.gateway.services.payments.get, []
        monkeypatch.setattr(pay.gateway.services.payments, "get", lambda *args: reads.append(args) or get(*args))
        [payment] = await asyncio.wait_for(pay.start_payments(order_id, ("alipay", 100)), 10)
        assert payment["action"] is not None
        assert reads == [(order_id, "user")], "more than the wake-up has led to a read"
        with pay.gateway.services.watcher.changes.watch(order_id) as changed:
            pay.pay_at_provider("alipay", payment["payment_id"])
            await asyncio.wait_for(changed.wait(), 10)
            await pay.wait_for_order(order_id, "paid")


async def test_payment_begins_while_no_wake_up_arrives(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake_ups.lua, "listen_due", _listen_in_vain)
    monkeypatch.setattr(wake_ups.lua, "listen_changed", _listen_in_vain)
    async with open_payment_shop(shop, sale_id) as pay:
        await pay.add_paid_order(("alipay", 100))
        await pay.wait_until_idle()
        await pay.check_records()
