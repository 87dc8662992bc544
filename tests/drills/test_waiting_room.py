"""A waiting room under kill -9: no place is lost, and nobody is let in twice or out of order.

`FLOODGATE_DRILL_CUSTOMERS` sets another number of customers; `make drill-room` runs 200,000.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Any

import aiohttp
import orjson
import pytest

from commerce.kernel.clock import SystemClock, from_ms
from commerce.waiting_rooms.draw import check_draw
from commerce.waiting_rooms.model import RoomSettings
from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, format_examples
from tests.drills.final_checks import check_final_state
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.drills.room_customers import SKU, RoomRecord, RoomRequest, TicketOrderRequest
from tests.support.gateway import token
from tests.support.sales import make_sale
from tests.support.second_draw import draw_by_rules

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1_800)]
SALE_ID, CONNECTIONS = "evening", 64
CUSTOMERS = int(os.environ.get("FLOODGATE_DRILL_CUSTOMERS", "20000"))
UNITS = 600
_JOINS_PER_S = 1_250
_DRAW_S, _START_S = 6, 6
_SAMPLE, _READS_UNTIL_KNOWN = 2_000, 30
_WAITING, _OUT_OF_TURN = 5_000, 20
_STALLED_AFTER_S = 60.0
_MAX_KNOWN_S = 20.0
"""a room ends after two seconds without a unit, and a keeper that was killed has to restart"""


class Evening:
    """A sale with a room, its customers, and those who kill processes."""

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        settings = stack.settings()
        self.stack = stack
        self.rng = rng
        self.record = RoomRecord(ClientRecord(SALE_ID, lambda user: token(settings, user)))
        self.users = [f"u{number}" for number in range(CUSTOMERS)]
        self.kills = 0
        self.served = 0
        self._page = f"http://127.0.0.1:{stack.port}/v1/sales/{SALE_ID}/room"

    async def open(self) -> None:
        """Create the sale and its room, which takes people at once."""
        now = from_ms(SystemClock().now_ms())
        opens_at = now + timedelta(seconds=_START_S + CUSTOMERS / _JOINS_PER_S + _DRAW_S)
        async with open_cli_services(self.stack.settings()) as shop:
            await make_sale(shop, SALE_ID, {SKU: (UNITS, 399_900, 1)}, opens_at=opens_at)
            room = RoomSettings(
                *("on", now - timedelta(minutes=1), opens_at - timedelta(seconds=_DRAW_S)),
                served_valid_s=600,
                max_pace_per_s=300,
                fallback_rounds=4,
            )
            await shop.rooms.put(SALE_ID, room, "drill")
        in_sequence = 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
            while in_sequence < _READS_UNTIL_KNOWN:  # by all gateways, each with a connection of its own
                async with client.get(self._page) as answer:
                    in_sequence = in_sequence + 1 if answer.status == 200 else 0

    async def read_page(self, client: aiohttp.ClientSession) -> dict[str, Any]:
        """Read the public page, however often a gateway is unavailable."""
        while True:
            with suppress(aiohttp.ClientError):
                async with client.get(self._page) as answer:
                    if answer.status == 200:
                        page: dict[str, Any] = orjson.loads(await answer.read())
                        break
            await asyncio.sleep(0.05)
        return page

    async def run(self, requests: Sequence[RetriedRequest]) -> None:
        """Send requests over all connections until each outcome is known."""
        await run_requests(self.stack.port, self.rng, CONNECTIONS, iter(requests))

    async def kill(self, *roles: str) -> None:
        self.kills += len(await self.stack.kill(self.rng, *roles))

    async def kill_during(self, is_reached: Callable[[], bool], *roles: str) -> None:
        """Kill a process of each role once a condition is true."""
        deadline = asyncio.get_running_loop().time() + _STALLED_AFTER_S + CUSTOMERS / _JOINS_PER_S
        while not is_reached():
            assert asyncio.get_running_loop().time() < deadline, f"stalled: {self.record.statuses}"
            await asyncio.sleep(0.005)
        await self.kill(*roles)

    async def join_all(self) -> None:
        """Let everybody join, while gateways and Redis are killed."""
        joined = self.record.hashes
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run([RoomRequest(self.record, user) for user in self.users]))
            await self.kill_during(lambda: len(joined) > CUSTOMERS // 5, "gateway")
            await self.kill_during(lambda: len(joined) > CUSTOMERS // 3, "redis")
            await self.kill_during(lambda: len(joined) > CUSTOMERS // 2, "gateway", "redis")
        await self.run([RoomRequest(self.record, user) for user in self.rng.sample(self.users, _SAMPLE)])
        assert not self.record.orders.contradictions, format_examples(self.record.orders.contradictions)
        assert len(set(joined.values())) == CUSTOMERS

    async def draw(self, client: aiohttp.ClientSession) -> None:
        """Kill keeper, gateway and Redis while the places are drawn, and let everybody learn his number."""
        assert await self._wait_while(client, "waiting") == "drawing", "too fast to be killed"
        await self.kill("maintenance", "redis", "gateway")
        assert await self._wait_while(client, "drawing") == "serving"
        users = self.rng.sample(self.users, CUSTOMERS)
        while users:
            await self.run([RoomRequest(self.record, user) for user in users])
            users = [user for user in users if user not in self.record.numbers]

    async def _wait_while(self, client: aiohttp.ClientSession, state: str) -> str:
        while True:
            page = await self.read_page(client)
            if page["state"] != state:
                return str(page["state"])
            await asyncio.sleep(0.02)

    async def serve(self, client: aiohttp.ClientSession) -> float:
        """Let customers order by their numbers while processes are killed, until the room has ended.

        Returns the seconds from the last unit sold until the page says so.
        """
        by_number = sorted(self.users, key=self.record.numbers.__getitem__)
        loop = asyncio.get_running_loop()
        sold_at = 0.0
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(self._kill_while_serving())
            while (page := await self.read_page(client))["state"] != "ended":
                turns, self.served = by_number[self.served : page["served"]], max(self.served, page["served"])
                await self.run([*self._order_out_of_turn(by_number), *self._order_in_turn(turns)])
                sold_at = sold_at or (loop.time() if self.record.orders.accepted >= UNITS else 0.0)
                await asyncio.sleep(0.05)
            seconds = loop.time() - sold_at
            await killing
        assert page["sold_out"] == [SKU]
        return seconds

    async def _kill_while_serving(self) -> None:
        orders = self.record.orders
        await self.kill_during(lambda: orders.accepted > UNITS // 8, "gateway")
        await self.kill_during(lambda: orders.accepted > UNITS // 4, "redis", "maintenance")

    def _order_in_turn(self, users: Sequence[str]) -> list[RetriedRequest]:
        """Let most of those whose turn it is order; some leave, some do nothing."""
        requests: list[RetriedRequest] = []
        for user in users:
            choice = self.rng.random()
            if choice < 0.9:
                intended = self.record.orders.add_intended(user, "key-1", {SKU: 1})
                requests.append(TicketOrderRequest(self.record, intended))
            elif choice < 0.95:
                requests.append(RoomRequest(self.record, user, "DELETE"))
        return requests

    def _order_out_of_turn(self, by_number: Sequence[str]) -> list[RetriedRequest]:
        """Let some press who have thousands before them."""
        if not self.served or self.record.orders.accepted >= UNITS // 2:
            return []  # nobody is let in yet; or the room may end meanwhile, and then nobody needs a turn
        users = self.rng.sample(by_number[self.served + _WAITING :], _OUT_OF_TURN)
        orders = self.record.orders
        return [
            TicketOrderRequest(
                self.record, orders.add_intended(user, f"early-{self.served}-{number}", {SKU: 1}), is_in_turn=False
            )
            for number, user in enumerate(users)
        ]

    async def check_draw_file(self, client: aiohttp.ClientSession) -> int:
        """Check the exported draw by both implementations and the customers' numbers. Returns its entries."""
        async with client.get(f"{self._page}/draw") as answer:
            assert answer.status == 200
            lines = (await answer.text()).splitlines(keepends=True)
        checked, header = check_draw(lines), orjson.loads(lines[0])
        places = [bytes.fromhex(line) for line in lines[1:]]
        digest, by_rules = draw_by_rules(SALE_ID, set(places), header["randomness"])
        assert (digest, by_rules) == (header["list_digest"], places)
        assert checked.is_confirmed
        numbers = {self.record.hashes[user]: number for user, number in self.record.numbers.items()}
        different = [str(number) for number, ticket in enumerate(places, 1) if numbers[ticket.hex()] != number]
        assert not different, format_examples(different)
        assert sorted(numbers.values()) == list(range(1, CUSTOMERS + 1)), "a place is lost, or given twice"
        return len(places)


async def test_killed_processes_lose_no_place_and_sell_every_unit_in_order(stack: LocalStack, rng: Random) -> None:
    evening, loop = Evening(stack, rng), asyncio.get_running_loop()
    started = loop.time()
    await evening.open()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as client:
        await evening.join_all()
        joined_s = loop.time() - started
        await evening.draw(client)
        known_s = await evening.serve(client)
        entries = await evening.check_draw_file(client)
        numbers_before = dict(evening.record.numbers)
    record = evening.record
    audit = await check_final_state(stack, record.orders, {SKU: UNITS}, {SKU: 1})
    promised = record.orders.promised_orders()
    assert (audit.orders, audit.total.available, len(promised)) == (UNITS, 0, UNITS)
    assert max(numbers_before[intended.user] for intended in promised.values()) <= evening.served
    assert record.statuses["order not_your_turn"] > 0
    assert record.has_left
    assert known_s < _MAX_KNOWN_S
    print(
        f"\n{CUSTOMERS} customers, {entries} on the list, joined within {joined_s:.1f} s, {evening.kills} kills; "
        f"numbers up to {evening.served} had a turn for {UNITS} units; the end was known after {known_s:.1f} s; "
        f"{dict(record.statuses)}; {record.orders.format_summary()}, difference {audit.differences}"
    )
