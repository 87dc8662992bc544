"""Robots of staff, who pack, cancel and redirect over the admin API, and of drivers.

They repeat requests without a reply, as a person would press a button again.
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

_CONCURRENT_REQUESTS = 8
_MANUAL_CARRIERS = ("zto", "yto")
_CANCELLED_SHARE, _REDIRECTED_SHARE = 0.015, 0.02
_FAILED_STOP_SHARE, _REPEATED_REPORT_SHARE = 0.05, 0.1
_ROUND_INTERVAL_S, _RETRY_INTERVAL_S = 1.0, 0.2
_MAX_STOPS = 40
_LIST_WITHOUT_ROUTE = """
SELECT shipment_id, warehouse_id FROM shipments
WHERE carrier = 'own_fleet' AND status = 'booked' AND after_cancel IS NULL AND NOT EXISTS (
    SELECT FROM route_stops WHERE route_stops.shipment_id = shipments.shipment_id)
ORDER BY warehouse_id LIMIT $1
"""


class RobotClient:
    """HTTP client that counts replies. Any status but the allowed ones fails the drill."""

    allowed_statuses = (200, 404, 409, 503)

    def __init__(self, port: int, headers: dict[str, str] | None = None) -> None:
        self.reply_counts: Counter[str] = Counter()
        self._base, self._headers = f"http://127.0.0.1:{port}", headers or {}

    async def __aenter__(self) -> RobotClient:
        timeout = aiohttp.ClientTimeout(total=20)
        self._client = aiohttp.ClientSession(self._base, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request. Returns the status and the body, or status 0 if the connection is lost."""
        try:
            async with self._client.request(method, path, json=body) as answer:
                status, reply = answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            self.reply_counts["connection lost"] += 1
            return 0, None
        assert status in self.allowed_statuses, f"{method} {path}: {status} {reply}"
        self.reply_counts[str(status) if status == 200 else str(reply["code"])] += 1
        return status, reply


class WarehouseRobot:
    """Works through the worklist `to_pack` again and again: packs, cancels or redirects each shipment."""

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        self.action_counts: Counter[str] = Counter()
        self.tracking_nos: set[str] = set()
        self._rng = rng
        self._redirects: Counter[UUID] = Counter()
        self._client = RobotClient(stack.admin_port, bearer(stack.settings(), "packer", roles=("warehouse",)))

    async def run(self, stop: asyncio.Event) -> None:
        async with self._client:
            while not stop.is_set():
                await self._work_through_list()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _ROUND_INTERVAL_S)

    async def _work_through_list(self) -> None:
        cursor, gate = "", asyncio.Semaphore(_CONCURRENT_REQUESTS)
        while True:
            status, page = await self._client.call("GET", f"/v1/admin/shipments?worklist=to_pack{cursor}")
            if status != 200:
                return
            await asyncio.gather(*(self._handle(gate, item["shipment"]) for item in page["items"]))
            if page.get("next") is None:
                return
            cursor = f"&cursor={page['next']}"

    async def _handle(self, gate: asyncio.Semaphore, shipment: dict[str, Any]) -> None:
        id_, chance = UUID(shipment["shipment_id"]), self._rng.random()
        action, body = "pack", dict[str, Any]()
        if chance < _CANCELLED_SHARE:
            action, body = "cancel", {"reason": "not wanted"}
        elif chance < _REDIRECTED_SHARE + _CANCELLED_SHARE:
            action, body = "redirect", {"address": another_address(shipment["address"], self._rng), "reason": "moved"}
        elif shipment["carrier"] in _MANUAL_CARRIERS and shipment["status"] == "planned":
            tracking_no = f"{shipment['carrier'].upper()}{id_.int % 10**12:012}{self._redirects[id_]}"
            body = {"tracking_no": tracking_no}
            self.tracking_nos.add(tracking_no)
        async with gate:
            status, _ = await self._client.call("POST", f"/v1/admin/shipments/{id_}/{action}", body)
        if status == 200:
            self.action_counts[action] += 1
            # A redirected shipment gets another tracking number. A repeat after a lost reply sends the same number.
            self._redirects[id_] += action == "redirect"

    def format_summary(self) -> str:
        actions = ", ".join(f"{count} {action}" for action, count in sorted(self.action_counts.items()))
        return f"staff: {actions}; replies {dict(self._client.reply_counts)}"


class DriverRobots:
    """Plans routes for shipments without one and reports their stops, some failed at first, some twice."""

    def __init__(self, stack: LocalStack, shop: CliServices, rng: Random) -> None:
        self.route_count = 0
        self._shop = shop
        self._rng = rng
        self._vehicle_numbers = count(1)
        self._key, self._zone = shop.settings.driver_link_key(), ZoneInfo(shop.settings.shipping.timezone)
        self._client = RobotClient(stack.port)

    async def run(self, stop: asyncio.Event) -> None:
        async with self._client:
            while not stop.is_set():
                await self._drive(await self._plan_routes())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _ROUND_INTERVAL_S)

    async def _plan_routes(self) -> list[tuple[UUID, int]]:
        """Insert one route per warehouse with waiting shipments. Returns their ids and numbers of stops."""
        async with self._shop.db.transaction() as connection:
            rows = await connection.fetch(_LIST_WITHOUT_ROUTE, _MAX_STOPS)
            routes = []
            for warehouse_id in {row["warehouse_id"] for row in rows}:
                shipment_ids = [row["shipment_id"] for row in rows if row["warehouse_id"] == warehouse_id]
                routes.append((await self._insert_route(connection, warehouse_id, shipment_ids), len(shipment_ids)))
        return routes

    async def _insert_route(self, connection: Any, warehouse_id: str, shipment_ids: list[UUID]) -> UUID:
        route_id, vehicle_id, now = self._shop.ids.new(), f"vehicle-{next(self._vehicle_numbers)}", datetime.now(UTC)
        self.route_count += 1
        await connection.execute(
            "INSERT INTO vehicles (vehicle_id, warehouse_id, capacity_g, shift_from, shift_to) "
            "VALUES ($1, $2, 600000, '00:00', '23:59')",
            *(vehicle_id, warehouse_id),
        )
        await connection.execute(
            "INSERT INTO routes (route_id, day, vehicle_id, warehouse_id, distance_m, start_at, end_at, planned_at) "
            "VALUES ($1, $2, $3, $4, 9000, $5, $6, $5)",
            *(route_id, now.astimezone(self._zone).date(), vehicle_id, warehouse_id, now, now + timedelta(hours=8)),
        )
        await connection.executemany(
            "INSERT INTO route_stops (route_id, seq, shipment_id, latitude, longitude, window_from, window_to, "
            "arrive_at, leave_at) VALUES ($1, $2, $3, 30.25, 120.16, $4, $5, $4, $4)",
            [(route_id, seq, id_, now, now + timedelta(hours=8)) for seq, id_ in enumerate(shipment_ids, 1)],
        )
        return route_id

    async def _drive(self, routes: list[tuple[UUID, int]]) -> None:
        day = datetime.now(self._zone).date()
        failed, delivered = {"outcome": "failed", "note": "nobody at home"}, {"outcome": "delivered"}
        for route_id, stops in routes:
            path = f"/v1/driver-routes/{make_link(self._key, route_id, day, self._zone)}"
            await self._send_until_answered(f"{path}/depart")
            for seq in range(1, stops + 1):
                if self._rng.random() < _FAILED_STOP_SHARE:
                    await self._send_until_answered(f"{path}/stops/{seq}", failed)
                for _ in range(1 + (self._rng.random() < _REPEATED_REPORT_SHARE)):
                    await self._send_until_answered(f"{path}/stops/{seq}", delivered)

    async def _send_until_answered(self, path: str, body: Any = None) -> None:
        """Repeat a request until its outcome is known. For a stop of a cancelled shipment this is a refusal."""
        while True:
            status, _ = await self._client.call("POST", path, body)
            if status not in (0, 503):
                return
            await asyncio.sleep(_RETRY_INTERVAL_S)

    def format_summary(self) -> str:
        return f"drivers: {self.route_count} routes; replies {dict(self._client.reply_counts)}"
