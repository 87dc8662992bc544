"""Robots in place of staff: a desk that packs, cancels and redirects over the admin API, and vans with their drivers.

They repeat what is unclear, as a person would press a button once more.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import aiohttp
import orjson

from commerce.fleet.driver_links import make_link
from ops.services import CliServices
from tests.drills.local_stack import LocalStack
from tests.drills.receiving_customers import another_address
from tests.support.gateway import bearer

_AT_ONCE, _BY_DESK = 8, ("zto", "yto")
_CANCELLED, _REDIRECTED, _NOBODY_HOME, _TWICE = 0.015, 0.02, 0.05, 0.1
_ROUND_S, _AGAIN_S = 1.0, 0.2
_STOPS = 40
_WAITING = """
SELECT shipment_id, warehouse_id FROM shipments
WHERE carrier = 'own_fleet' AND status = 'booked' AND task IS DISTINCT FROM 'cancel' AND NOT EXISTS (
    SELECT FROM route_stops WHERE route_stops.shipment_id = shipments.shipment_id)
ORDER BY warehouse_id LIMIT $1
"""


class RobotClient:
    """What staff and drivers were told; anything but these is a fault that ends the drill."""

    fine = (200, 404, 409, 503)

    def __init__(self, stack: LocalStack, port: int, headers: dict[str, str] | None = None) -> None:
        self.said: Counter[str] = Counter()
        self._base, self._headers = f"http://127.0.0.1:{port}", headers or {}

    async def __aenter__(self) -> RobotClient:
        timeout = aiohttp.ClientTimeout(total=20)
        self._client = aiohttp.ClientSession(self._base, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body; no status where the connection broke."""
        try:
            async with self._client.request(method, path, json=body) as answer:
                status, found = answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            self.said["connection broken"] += 1
            return 0, None
        assert status in self.fine, f"{method} {path}: {status} {found}"
        self.said[str(status) if status == 200 else str(found["code"])] += 1
        return status, found


class WarehouseRobot:
    """Whoever packs goes through the list of what is to be packed over and over."""

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        self.did: Counter[str] = Counter()
        self.numbers: set[str] = set()
        self._rng = rng
        self._done: Counter[UUID] = Counter()
        self._answers = RobotClient(stack, stack.admin_port, bearer(stack.settings(), "bench", roles=("warehouse",)))

    async def run(self, stop: asyncio.Event) -> None:
        async with self._answers:
            while not stop.is_set():
                await self._round()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _ROUND_S)

    async def _round(self) -> None:
        cursor, gate = "", asyncio.Semaphore(_AT_ONCE)
        while True:
            status, page = await self._answers.call("GET", f"/v1/admin/shipments?worklist=to_pack{cursor}")
            if status != 200:
                return
            await asyncio.gather(*(self._one(gate, item["shipment"]) for item in page["items"]))
            if page.get("next") is None:
                return
            cursor = f"&cursor={page['next']}"

    async def _one(self, gate: asyncio.Semaphore, shipment: dict[str, Any]) -> None:
        id_, chance = UUID(shipment["shipment_id"]), self._rng.random()
        what, body = "pack", dict[str, Any]()
        if chance < _CANCELLED:
            what, body = "cancel", {"reason": "not wanted"}
        elif chance < _REDIRECTED + _CANCELLED:
            what, body = "redirect", {"address": another_address(shipment["address"], self._rng), "reason": "moved"}
        elif shipment["carrier"] in _BY_DESK and shipment["status"] == "planned":
            number = f"{shipment['carrier'].upper()}{id_.int % 10**12:012}{self._done[id_]}"
            body = {"tracking_no": number}
            self.numbers.add(number)
        async with gate:
            status, _ = await self._answers.call("POST", f"/v1/admin/shipments/{id_}/{what}", body)
        if status == 200:
            self.did[what] += 1
            # Booked anew, it has another number. One that a dead gateway may have written down stays the same.
            self._done[id_] += what == "redirect"

    def figures(self) -> str:
        did = ", ".join(f"{number} {what}" for what, number in sorted(self.did.items()))
        return f"desk: {did}; answers {dict(self._answers.said)}"


class DriverRobots:
    """A route for what waits for one, and a driver who drives it: some doors stay shut at first, some buttons are
    pressed twice."""

    def __init__(self, stack: LocalStack, shop: CliServices, rng: Random) -> None:
        self.routes = 0
        self._shop = shop
        self._rng = rng
        self._numbers = count(1)
        self._key, self._zone = shop.settings.driver_link_key(), ZoneInfo(shop.settings.shipping.timezone)
        self._answers = RobotClient(stack, stack.port)

    async def run(self, stop: asyncio.Event) -> None:
        async with self._answers:
            while not stop.is_set():
                await self._drive(await self._load())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _ROUND_S)

    async def _load(self) -> list[tuple[UUID, int]]:
        """Routes with how many stops they have: one for each warehouse in which parcels wait."""
        async with self._shop.db.transaction() as connection:
            waiting = await connection.fetch(_WAITING, _STOPS)
            made = []
            for place in {row["warehouse_id"] for row in waiting}:
                parcels = [row["shipment_id"] for row in waiting if row["warehouse_id"] == place]
                made.append((await self._route(connection, place, parcels), len(parcels)))
        return made

    async def _route(self, connection: Any, place: str, parcels: list[UUID]) -> UUID:
        route_id, van, now = self._shop.ids.new(), f"van-{next(self._numbers)}", datetime.now(UTC)
        self.routes += 1
        await connection.execute(
            "INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to) "
            "VALUES ($1, $2, 600000, '00:00', '23:59')",
            *(van, place),
        )
        await connection.execute(
            "INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, planned_at) "
            "VALUES ($1, $2, $3, $4, 9000, $5, $6, $5)",
            *(route_id, now.astimezone(self._zone).date(), van, place, now, now + timedelta(hours=8)),
        )
        await connection.executemany(
            "INSERT INTO route_stops (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, "
            "arrive_at, leave_at) VALUES ($1, $2, $3, 30.25, 120.16, $4, $5, $4, $4)",
            [(route_id, seq, id_, now, now + timedelta(hours=8)) for seq, id_ in enumerate(parcels, 1)],
        )
        return route_id

    async def _drive(self, routes: list[tuple[UUID, int]]) -> None:
        day = datetime.now(self._zone).date()
        for route_id, stops in routes:
            path = f"/v1/driver-routes/{make_link(self._key, route_id, day, self._zone)}"
            await self._insist(f"{path}/depart")
            for seq in range(1, stops + 1):
                if self._rng.random() < _NOBODY_HOME:
                    await self._insist(f"{path}/stops/{seq}", {"outcome": "failed", "note": "nobody at home"})
                for _ in range(1 + (self._rng.random() < _TWICE)):
                    await self._insist(f"{path}/stops/{seq}", {"outcome": "delivered"})

    async def _insist(self, path: str, body: Any = None) -> None:
        """Until it is clear. What was called off since is no stop any more, which is clear too."""
        while True:
            status, _ = await self._answers.call("POST", path, body)
            if status not in (0, 503):
                return
            await asyncio.sleep(_AGAIN_S)

    def figures(self) -> str:
        return f"vans: {self.routes} routes; answers {dict(self._answers.said)}"
