"""A waiting room: joins, the draw, reads of its page, and the end of the sale."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import cast

import aiohttp
import orjson

import lua
from commerce.kernel.clock import from_ms
from commerce.sales.model import ItemInput, SaleInput
from commerce.waiting_rooms.model import Room, RoomSettings
from commerce.waiting_rooms.tickets import RoomTickets, hash_of
from gateway.auth import room_ticket_key, sign_token
from loadtest.bench.crowd import list_addresses, open_crowd
from loadtest.bench.crowd_process import CrowdSample
from loadtest.bench.environment import SKU_PREFIX, encode_order
from loadtest.bench.order_writing import wait_until_drained
from loadtest.bench.peers import Peers
from loadtest.bench.rush_figures import RoomFigures
from loadtest.bench.shop_environment import BenchedShop
from loadtest.bench.wrk import READS, LoadFailed, LoadResult, run_wrk
from lua import SaleKeys

ROOM_CUSTOMERS = 200_000
_SALE_ID, _SKU, _UNITS, _OUT_OF_TURN = "room", f"{SKU_PREFIX}0", 1_000, 500
_CONNECTIONS, _ORDER_CONNECTIONS, _READ_CONNECTIONS, _ASKING = 256, 64, 256, 16
_WAITING_CONNECTIONS, _WAITING_PAUSE_MS = 2_000, 1_000.0
_JOINS_TIMEOUT_S, _TIMEOUT_S = 150.0, 60.0
_JOINS_PER_CALL, _POLL_INTERVAL_S, _ASK_INTERVAL_S = 500, 0.1, 0.05
_LIST_CLOSES_AFTER = timedelta(seconds=1)
_PAGE = f"/v1/sales/{_SALE_ID}/room"


@dataclass(frozen=True, slots=True)
class _Joins:
    """Joins over HTTP: their number, rate and p99."""

    customers: int
    per_s: float
    p99_ms: float


async def measure_room(shop: BenchedShop, seconds: float, customers: int = ROOM_CUSTOMERS) -> RoomFigures:
    """Let customers join a room, draw, serve and sell out, all at the shop's gateways.

    Raises `LoadFailed` if something does not come in time.
    """
    keys, redis = SaleKeys(_SALE_ID), shop.environment.shop.redis
    users = [f"room-{number}" for number in range(customers)]
    await _open_room(shop, customers)
    joins = await _join_all(shop, users)
    await _fill_up(shop, users)
    waiting = await lua.count_people(redis, keys)
    bytes_per_person = int(await redis.memory_usage(keys.room, samples=0) or 0) / waiting
    draw_s = await _draw(shop)
    reads = await _measure_reads(shop, seconds)
    tickets = await _sign_tickets(shop, users)
    await _open_sale(shop)
    refused_early = await _order(shop, tickets[-_OUT_OF_TURN:])
    served = await _wait_until_served(shop)
    known_after_s, ended_after_s, sample = await _sell_out(shop, tickets[:served])
    await wait_until_drained(shop.environment, _SALE_ID)
    twice, out_of_order = await _count_wrong_turns(shop, [user for user, _ in tickets[:served]])
    audit = await shop.environment.shop.audit.audit_sale(_SALE_ID)
    return RoomFigures(
        customers=waiting,
        joined_over_http=joins.customers,
        joins_per_s=joins.per_s,
        join_p99_ms=joins.p99_ms,
        bytes_per_person=bytes_per_person,
        draw_s=draw_s,
        reads_per_s=(reads.requests - reads.refused) / reads.seconds,
        reads_p99_ms=reads.p99 * 1e3,
        known_after_s=known_after_s,
        ended_after_s=ended_after_s,
        sold=sample.accepted,
        accepted_early=refused_early.accepted,
        accepted_twice=twice,
        accepted_out_of_order=out_of_order,
        audit_differences=audit.differences,
    )


async def _open_room(shop: BenchedShop, customers: int) -> None:
    """Create a sale and its room, and wait until it takes people at both gateways."""
    services = shop.environment.shop
    now = from_ms(services.clock.now_ms())
    sale = SaleInput(_SALE_ID, "The room", "CNY", now + timedelta(hours=2), pay_within_s=86_400)
    await services.sales.create(sale, [(_SKU, ItemInput(limit_per_user=1, units=_UNITS))], "bench")
    await services.sales.open(_SALE_ID, "bench")
    settings = RoomSettings(
        *("on", now - timedelta(minutes=1), now + timedelta(hours=1)),
        served_valid_s=3_600,
        max_pace_per_s=_UNITS,
        max_waiting=2 * customers,
        fallback_rounds=1,
    )
    await services.rooms.put(_SALE_ID, settings, "bench")
    deadline = monotonic() + _TIMEOUT_S
    while (await lua.read_room(services.redis, SaleKeys(_SALE_ID))).stage is None:
        _check_time(deadline, "the room did not open")
        await asyncio.sleep(_POLL_INTERVAL_S)
    await asyncio.sleep(1.5)  # gateways without a room look for new ones once a second


async def _join_all(shop: BenchedShop, users: Sequence[str]) -> _Joins:
    """Let customers join over HTTP, as many as do in the time for it."""
    auth, clock = shop.environment.settings.auth, shop.environment.shop.clock
    requests = [
        f"POST {_PAGE} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {sign_token(auth, clock, user, 'floodgate', (), 86_400)}\r\nContent-Length: 0\r\n\r\n"
        for user in users
    ]
    sample = await _send_once(shop, requests, _CONNECTIONS, _JOINS_TIMEOUT_S)
    return _Joins(sample.accepted, sample.accepted / sample.seconds, sample.p99_ms)


async def _send_once(
    shop: BenchedShop, requests: Sequence[str], connections: int, timeout_s: float = _TIMEOUT_S
) -> CrowdSample:
    """Send requests once each, refused ones again after their Retry-After, and return all answers.

    The seconds are those until the last poll that found a new answer.
    """
    opened = open_crowd(
        *(shop.environment, shop.url, connections),
        requests=requests,
        is_once=True,
        is_patient=True,
        sources=list_addresses(1, 10),
    )
    counts: dict[str, int] = {}
    p99s: list[float] = []
    async with opened as crowd:
        started = ended = monotonic()
        while monotonic() - started < timeout_s:
            await asyncio.sleep(_POLL_INTERVAL_S)
            sample = await crowd.take_sample()
            if not sample.counts:
                if sum(number for status, number in counts.items() if status < "429") >= len(requests):
                    break
                continue
            ended = monotonic()
            p99s.append(sample.p99_ms)
            for status, number in sample.counts.items():
                counts[status] = counts.get(status, 0) + number
    return CrowdSample(ended - started, 0, counts, 0.0, max(p99s, default=0.0), 0.0, [])


async def _fill_up(shop: BenchedShop, users: Sequence[str]) -> None:
    """Let those who have not joined over HTTP join by the gateways' script. A repeat changes nothing."""
    services, keys = shop.environment.shop, SaleKeys(_SALE_ID)
    room = await services.rooms.get(_SALE_ID)
    if await lua.count_people(services.redis, keys) >= len(users):
        return
    for start in range(0, len(users), _JOINS_PER_CALL):
        joins = [(hash_of(room.salt, _SALE_ID, user)[0], 0) for user in users[start : start + _JOINS_PER_CALL]]
        await lua.join_room(services.redis, keys, joins, room.max_waiting, 0)


async def _draw(shop: BenchedShop) -> float:
    """Close the list in a second. Returns the seconds from then until all places are drawn and in Redis.

    A round of the delay is part of them: about half a second.
    """
    services, keys = shop.environment.shop, SaleKeys(_SALE_ID)
    room = await services.rooms.get(_SALE_ID)
    values = {name: getattr(room, name) for name in RoomSettings.__struct_fields__}
    closes_at = from_ms(services.clock.now_ms()) + _LIST_CLOSES_AFTER
    await services.rooms.put(_SALE_ID, RoomSettings(**{**values, "list_closes_at": closes_at}), "bench")
    deadline = monotonic() + _TIMEOUT_S
    while (await lua.read_room(services.redis, keys)).stage != "drawn":
        _check_time(deadline, "the places were not drawn")
        await asyncio.sleep(_POLL_INTERVAL_S)
    return (from_ms(services.clock.now_ms()) - closes_at).total_seconds()


async def _measure_reads(shop: BenchedShop, seconds: float) -> LoadResult:
    """Read the page from one further gateway process."""
    file = shop.environment.home / "reads-room"
    file.write_text(f"{_PAGE}\t\n")
    async with AsyncExitStack() as stack:
        gateway = await Peers(shop.environment, stack).start_floodgate()
        result = await run_wrk(gateway.url.removesuffix("/v1/orders"), _READ_CONNECTIONS, seconds, file, script=READS)
    if not result.requests:
        raise LoadFailed(f"reads of the page were not answered: {result}")
    return result


async def _sign_tickets(shop: BenchedShop, users: Sequence[str]) -> list[tuple[str, str]]:
    """Return users and their tickets, in the order of the places that were drawn."""
    rooms, settings = shop.environment.shop.rooms, shop.environment.settings
    room = await rooms.get(_SALE_ID)
    by_hash = {hash_of(room.salt, _SALE_ID, user)[0].hex(): user for user in users}
    lines = b"".join([part async for part in rooms.draw_file(_SALE_ID)]).decode().splitlines()[1:]
    signer = RoomTickets(cast(str, room_ticket_key(settings.auth)))
    expires_s = shop.environment.shop.clock.now_ms() // 1_000 + 86_400
    return [
        (by_hash[line], signer.sign(_SALE_ID, by_hash[line], number, expires_s)) for number, line in enumerate(lines, 1)
    ]


async def _open_sale(shop: BenchedShop) -> None:
    """Let the sale open now: its time was chosen before anybody knew how long the joins take."""
    services = shop.environment.shop
    now_ms = services.clock.now_ms()
    async with services.db.connection() as connection:
        await connection.execute("UPDATE sales SET opens_at = $2 WHERE sale_id = $1", _SALE_ID, from_ms(now_ms))
    await services.redis.hset(SaleKeys(_SALE_ID).meta.decode(), "opens_ms", str(now_ms))


async def _wait_until_served(shop: BenchedShop) -> int:
    """Wait until as many have a turn as units allow, and gateways know. Returns their number."""
    deadline = monotonic() + _TIMEOUT_S
    room: Room | None = None
    while room is None or room.served < room.served_per_unit * _UNITS:
        _check_time(deadline, f"nobody more was served: {room}")
        await asyncio.sleep(_POLL_INTERVAL_S)
        room = await shop.environment.shop.rooms.get(_SALE_ID)
    await asyncio.sleep(1)
    return room.served


async def _order(shop: BenchedShop, tickets: Sequence[tuple[str, str]]) -> CrowdSample:
    """Let each of these customers order a unit once, with his ticket."""
    auth, clock = shop.environment.settings.auth, shop.environment.shop.clock
    body = encode_order(_SALE_ID).decode().replace("@", "0")
    requests = [
        f"POST /v1/orders HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nRoom-Ticket: {ticket}\r\n"
        f"Authorization: Bearer {sign_token(auth, clock, user, 'floodgate', (), 86_400)}\r\n"
        f"Idempotency-Key: room-{user}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        for user, ticket in tickets
    ]
    return await _send_once(shop, requests, _ORDER_CONNECTIONS)


async def _sell_out(shop: BenchedShop, tickets: Sequence[tuple[str, str]]) -> tuple[float, float, CrowdSample]:
    """Let all who have a turn order, while a crowd reads the page as apps do.

    Returns the seconds from the last unit sold until everybody who asks reads that nothing is left, and until the
    room has ended for everybody; and the answers to the orders.
    """
    waiting = open_crowd(
        *(shop.environment, shop.url, _WAITING_CONNECTIONS),
        requests=[f"GET {_PAGE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
        pause_ms=_WAITING_PAUSE_MS,
        sources=list_addresses(101, 10),
    )
    async with waiting as crowd:
        await crowd.wait_until_connected()
        async with asyncio.TaskGroup() as group:
            ordering = group.create_task(_order(shop, tickets))
            selling = group.create_task(_wait_until_sold_out(shop))
            asking = [group.create_task(_ask_for_the_end(shop)) for _ in range(_ASKING)]
    known_at = max(task.result()[0] for task in asking)
    ended_at = max(task.result()[1] for task in asking)
    sold_out_at = selling.result()
    return known_at - sold_out_at, ended_at - sold_out_at, ordering.result()


async def _wait_until_sold_out(shop: BenchedShop) -> float:
    deadline = monotonic() + _TIMEOUT_S
    while any((await lua.read_stock(shop.environment.shop.redis, SaleKeys(_SALE_ID))).values()):
        _check_time(deadline, f"{_UNITS} units were not sold")
        await asyncio.sleep(0.005)
    return monotonic()


async def _ask_for_the_end(shop: BenchedShop) -> tuple[float, float]:
    """Ask for the page, each time over a new connection, so that either gateway may answer.

    Returns when the page first said that nothing is left, and when it said so and that the room had ended.
    """
    deadline, known_at = monotonic() + _TIMEOUT_S, 0.0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
        while True:
            async with client.get(f"{shop.url}{_PAGE}") as answer:
                page = orjson.loads(await answer.read())
            if not page["sold_out"]:
                known_at = 0.0
            elif not known_at:
                known_at = monotonic()
            if page["state"] == "ended":
                return known_at, monotonic()
            _check_time(deadline, "the room did not end")
            await asyncio.sleep(_ASK_INTERVAL_S)


async def _count_wrong_turns(shop: BenchedShop, in_turn: Sequence[str]) -> tuple[int, int]:
    """Count orders beyond the first of a customer, and orders of customers who had no turn."""
    async with shop.environment.shop.db.connection() as connection:
        rows = await connection.fetch("SELECT user_id FROM orders WHERE sale_id = $1", _SALE_ID)
    users, allowed = [row["user_id"] for row in rows], set(in_turn)
    return len(users) - len(set(users)), sum(user not in allowed for user in users)


def _check_time(deadline: float, text: str) -> None:
    if monotonic() > deadline:
        raise LoadFailed(f"{text} within {_TIMEOUT_S:g} s")
