"""Rate limits per user, address and device, at one gateway and over all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest
from redis.asyncio import Redis

import lua
from config.settings import LimitSettings, Settings
from gateway.fleet_usage import FleetUsage
from gateway.problems import RateLimited
from gateway.rate_limits import RateLimits, TokenBuckets
from gateway.refused_orders import RefusedOrders
from lua.keys import USAGE
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import eventually, make_sale, order_body
from tests.unit.test_kernel import FakeClock

_keys = count()
FAST_PATH = (True, False)


def test_bucket_gives_burst_then_rate() -> None:
    clock = FakeClock(10**9)
    buckets = TokenBuckets("user", 4, 20, clock, random=lambda: 0.99)
    for _ in range(20):
        buckets.take("zoe")
    for _ in range(8):
        with pytest.raises(RateLimited) as refusal:
            buckets.take("zoe")
        clock.ms += 250
        buckets.take("zoe")
    assert refusal.value.headers == (
        ("Retry-After", "2"),
        ("RateLimit-Policy", '"user";q=20;w=5'),
        ("RateLimit", '"user";r=0;t=1'),
    )
    clock.ms += 3_600_000
    for _ in range(20):
        buckets.take("zoe")
    with pytest.raises(RateLimited, match="more than 4 orders per second of one user; wait 1 s"):
        buckets.take("zoe")


@pytest.mark.parametrize(("random", "retry_after"), [(0.0, "10"), (0.5, "13"), (0.999, "15")])
def test_retry_after_has_jitter_of_half(random: float, retry_after: str) -> None:
    buckets = TokenBuckets("device", 0.1, 1, FakeClock(0), random=lambda: random)
    buckets.take("phone")
    with pytest.raises(RateLimited) as refusal:
        buckets.take("phone")
    assert dict(refusal.value.headers)["Retry-After"] == retry_after
    assert dict(refusal.value.headers)["RateLimit"] == '"device";r=0;t=10'


class Process:
    """The rate limits of a gateway process, and its exchange, with a clock of the test."""

    def __init__(self, redis: Redis, number: int, clock: FakeClock) -> None:
        self.limits = RateLimits(LimitSettings(orders_per_user_per_s=1, orders_per_user_burst=20), clock)
        self.usage = FleetUsage(redis, self.limits, RefusedOrders(), clock, bytes([number]))
        self.exchange = self.usage.exchange

    def take(self, user: str, orders: int) -> int:
        """Try to place orders. Returns how many the user's limit allows."""
        allowed = 0
        for _ in range(orders):
            try:
                self.limits.check(user, None, None)
                allowed += 1
            except RateLimited:
                pass
        return allowed


@pytest.fixture
async def processes(shop: CliServices, sale_prefix: str) -> AsyncIterator[list[Process]]:
    """Four processes that know each other."""
    clock = FakeClock(10**9)
    started = [Process(shop.redis, number, clock) for number in range(4)]
    for process in started:
        await process.exchange()
    yield started
    await shop.redis.delete(USAGE)


async def _exchange(processes: list[Process]) -> None:
    for process in (*processes, *processes):
        await process.exchange()


async def test_user_gets_one_burst_over_all_processes(processes: list[Process]) -> None:
    """Whoever takes turns gets the limit once and a share less one token at each; then the rate, once."""
    allowed = 0
    for _ in range(40):
        for process in processes:
            allowed += process.take("greedy", 1)
        await _exchange(processes)
    assert 20 <= allowed <= 20 + 4 * 5
    clock = processes[0].usage._clock
    assert isinstance(clock, FakeClock)
    clock.ms += 60_000
    allowed = 0
    for _ in range(100):
        clock.ms += 1_000
        for process in processes:
            allowed += process.take("greedy", 1)
        await _exchange(processes)
    assert 100 <= allowed <= 100 + 20 + 4 * 5


async def test_burst_at_every_process_is_a_debt(processes: list[Process]) -> None:
    """Between two exchanges each process allows a burst; what is over the limit is paid by waiting."""
    assert sum(process.take("greedy", 100) for process in processes) == 4 * 20
    await _exchange(processes)
    clock = processes[0].usage._clock
    assert isinstance(clock, FakeClock)
    clock.ms += 59_000
    assert sum(process.take("greedy", 1) for process in processes) == 0
    clock.ms += 3_000
    assert sum(process.take("greedy", 1) for process in processes) == 4


async def test_ordinary_users_are_not_reported(processes: list[Process], shop: CliServices) -> None:
    for number in range(1_000):
        assert processes[0].take(f"user {number}", 4) == 4
    await _exchange(processes)
    assert not await shop.redis.exists(USAGE)
    assert processes[1].limits.users.recent == {}


async def test_heaviest_are_reported_first(processes: list[Process]) -> None:
    for number in range(300):
        processes[0].take(f"user {number}", 5 + number % 3)
    await _exchange(processes)
    reported = processes[1].limits.users.recent
    assert len(reported) == 200
    assert {f"user {number}" for number in range(300) if number % 3} == set(reported)
    assert processes[0].take("user 0", 1) == 1  # it comes up again with its next token
    await _exchange(processes)
    assert processes[1].take("user 0", 20) == 20 - 6


async def test_late_process_and_unreadable_report_harm_nothing(
    processes: list[Process], shop: CliServices, caplog: pytest.LogCaptureFixture
) -> None:
    processes[0].take("early", 20)
    await _exchange(processes)
    late = Process(shop.redis, 9, FakeClock(10**9))
    await late.exchange()
    assert late.take("early", 20) == 20  # it was not there; the others know
    for fields in (
        {b"x": b"y"},
        {b"reporter": b"!", b"used": b"\xc1"},
        {b"reporter": b"!", b"used": b"\x81\xa4user\x81\xa1a\xff"},
    ):
        await shop.redis.xadd(USAGE, fields)  # type: ignore[arg-type]
    await lua.share_usage(shop.redis, b"newer", {"basket": {"a": 9}, "user": {"b": 20}}, b"0-0")
    processes[0].take("third", 20)
    await _exchange([*processes, late])
    for process in (*processes[1:], late):
        assert process.take("third", 20) == 0
        assert process.take("b", 20) == 0
    assert caplog.messages.count("skipped an unreadable report of used rate limits") == 3 * 5
    assert 0 < await shop.redis.ttl(USAGE) <= 10


async def test_limits_hold_locally_while_redis_is_away(caplog: pytest.LogCaptureFixture) -> None:
    async with Redis(host="127.0.0.1", port=1) as nobody:
        process = Process(nobody, 1, FakeClock(10**9))
        rounds = 0

        async def count_rounds(_seconds: float) -> None:
            nonlocal rounds
            rounds += 1
            await asyncio.sleep(0)

        process.usage._clock.sleep = count_rounds  # type: ignore[method-assign]
        with caplog.at_level(logging.WARNING):
            task = asyncio.create_task(process.usage.exchange_forever())
            assert process.take("greedy", 100) == 20

            async def has_tried() -> bool:
                return rounds >= 3

            await eventually(has_tried)
            task.cancel()
        assert process.take("greedy", 100) == 0
    assert caplog.messages.count("cannot exchange rate limits; they hold for each gateway alone") == 1


# At real gateways.


async def _order(gateway: TestGateway, sale_id: str, user: str = "user", **headers: str) -> GatewayResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = order_body(sale_id, ("a", 1))
    headers = {"Idempotency-Key": f"key-{next(_keys)}", **named}
    return await gateway.call("POST", "/v1/orders", user=user, headers=headers, json=body)


@pytest.fixture
async def open_sale(shop: CliServices, sale_id: str) -> str:
    await make_sale(shop, sale_id, {"a": (10_000, 100, None)})
    return sale_id


async def test_user_at_two_gateways_gets_the_limit_once(make_settings: Callable[..., Settings], open_sale: str) -> None:
    settings = make_settings(limits={"orders_per_user_per_s": 0.05, "orders_per_user_burst": 8})
    async with open_gateway(settings) as first, open_gateway(settings, fast_path=False) as second:
        accepted = 0
        for number in range(9):
            answer = await _order(first, open_sale, "greedy")
            accepted += answer.status == 202
            assert (await _order(first if number % 2 else second, open_sale, f"user-{number}")).status == 202
        assert accepted == 8
        assert (answer.status, answer.code, answer.body["limit"]) == (429, "too_many_requests", "user")
        assert answer.headers["RateLimit-Policy"] == '"user";q=8;w=160'
        assert 20 <= int(answer.headers["Retry-After"]) <= 30

        second_users, clock = second.services.admission.rate_limits.users, second.services.clock

        async def is_known() -> bool:  # all but a share less one token
            return second_users.find("greedy")._full_at > clock.monotonic() + 6 / 0.05

        await eventually(is_known)
        answers = [await _order(second, open_sale, "greedy") for _ in range(3)]
        assert [answer.status for answer in answers[1:]] == [429, 429]
        assert answers[2].body["limit"] == "user"
        assert (await _order(second, open_sale, "ordinary")).status == 202


@pytest.mark.parametrize("fast_path", FAST_PATH)
async def test_device_limit_holds_for_many_users(
    make_settings: Callable[..., Settings], open_sale: str, fast_path: bool
) -> None:
    settings = make_settings(limits={"orders_per_device_per_s": 0.05, "orders_per_device_burst": 3})
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        for number in range(3):
            assert (await _order(gateway, open_sale, f"user-{number}", X_Device_Id="phone")).status == 202
        refused = await _order(gateway, open_sale, "user-4", X_Device_Id="phone")
        assert (refused.status, refused.body["limit"]) == (429, "device")
        assert (await _order(gateway, open_sale, "user-4", X_Device_Id="other")).status == 202
        assert (await _order(gateway, open_sale, "user-4")).status == 202
        for malformed in ("x" * 65, "two words"):
            answer = await _order(gateway, open_sale, X_Device_Id=malformed)
            assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "X-Device-Id")


@pytest.mark.parametrize("fast_path", FAST_PATH)
@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
async def test_forwarded_client_is_limited(
    make_settings: Callable[..., Settings], open_sale: str, header: str, fast_path: bool
) -> None:
    """Limit the rightmost address that is no proxy's; a client may invent those to the left of it."""
    settings = make_settings(
        http={"forwarded_header": header}, limits={"orders_per_address_per_s": 0.05, "orders_per_address_burst": 3}
    )

    def forward(*hops: str) -> dict[str, str]:
        return {header: ", ".join(hops if header == "x-forwarded-for" else [f'for="{hop}"' for hop in hops])}

    async with open_gateway(settings, fast_path=fast_path) as gateway:
        for number in range(3):
            hops = f"198.51.100.{number}", f"[2001:db8::{number}]", "10.1.1.1"
            assert (await _order(gateway, open_sale, f"user-{number}", **forward(*hops))).status == 202
        refused = await _order(gateway, open_sale, "user-4", **forward("198.51.100.9", "[2001:db8::9]"))
        assert (refused.status, refused.body["limit"]) == (429, "address")
        assert (await _order(gateway, open_sale, "user-4", **forward("[2001:db8:0:1::1]"))).status == 202
        for _ in range(5):  # a proxy that states no client
            assert (await _order(gateway, open_sale, "user-4")).status == 202


@pytest.mark.parametrize("fast_path", FAST_PATH)
async def test_forwarded_header_of_a_client_is_ignored(
    make_settings: Callable[..., Settings], open_sale: str, fast_path: bool
) -> None:
    settings = make_settings(
        http={"forwarded_header": "x-forwarded-for", "proxy_networks": []},
        limits={"orders_per_address_per_s": 0.05, "orders_per_address_burst": 3},
    )
    async with open_gateway(settings, fast_path=fast_path) as gateway:
        answers = [
            await _order(gateway, open_sale, f"user-{number}", X_Forwarded_For=f"203.0.113.{number}")
            for number in range(4)
        ]
    assert [answer.status for answer in answers] == [202, 202, 202, 429]  # the connection rests now
