"""What can be done with the fleet: import vans and places, plan a day's routes, look at them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from itertools import chain, islice
from typing import TypeVar
from zoneinfo import ZoneInfo

from msgspec import structs

from commerce.fleet import problem_mapping, store
from commerce.fleet.errors import PlanningInProgress
from commerce.fleet.fleet_csv import read_places, read_vehicles
from commerce.fleet.geography import TravelMatrix, region_keys
from commerce.fleet.model import Plan, Route, Vehicle
from commerce.fleet.routing_problem import SolveRequest
from commerce.fleet.solver_client import solve_in_subprocess
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database

Row = TypeVar("Row")
Told = Mapping[tuple[str, str], tuple[int, int]]
"""Distance (metres) and time (seconds) from one point to another; see `csv_file.read_ways`."""
MAX_PARCELS = 1_000
MAX_VEHICLES = 1_000
MAX_SECONDS = 3_600
MAX_DAYS_AHEAD = 30
_CHUNK = 500
_LEAST_S = 0.2


class Fleet:
    """The own fleet over Postgres. `stop_s` is the time at a door, `speed_kmh` that of a van on the road."""

    def __init__(
        self, db: Database, clock: Clock, ids: IdGenerator, zone: ZoneInfo, stop_s: int, speed_kmh: float
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._zone = zone
        self._stop_s = stop_s
        self._speed_kmh = speed_kmh

    async def import_csv(self, lines: Iterable[str]) -> ImportReport:
        """Import a CSV file of places, if its header has a column `region`, or else of vans; see `csv_file`.

        A wrong line is refused with its number and reason and the rest goes in. Raises `UnreadableFile` if the header
        is wrong.
        """
        lines = iter(lines)
        header = next(lines, "")
        lines = chain([header], lines)
        if "region" in header.lower():
            return await self._import(read_places(lines), store.put_places)
        async with self._db.connection() as connection:
            warehouses = await store.warehouse_ids(connection)
        return await self._import(read_vehicles(lines, warehouses), store.put_vehicles)

    async def _import(
        self,
        rows: Iterator[tuple[int, Row | LineError]],
        put: Callable[[Connection, Sequence[Row]], Awaitable[tuple[int, int]]],
    ) -> ImportReport:
        report = ImportReport()
        while part := list(islice(rows, _CHUNK)):
            report.errors += [row for _, row in part if isinstance(row, LineError)]
            if good := [row for _, row in part if not isinstance(row, LineError)]:
                async with self._db.transaction() as connection:
                    added, changed = await put(connection, good)
                report.added += added
                report.changed += changed
                report.unchanged += len(good) - added - changed
        return report

    async def list_vehicles(self) -> list[Vehicle]:
        """All vans, by warehouse; at most `MAX_VEHICLES`."""
        async with self._db.connection() as connection:
            return await store.vehicles(connection, MAX_VEHICLES)

    async def list_routes(self, day: date) -> list[Route]:
        """A day's routes."""
        async with self._db.connection() as connection:
            return await store.routes_of(connection, day)

    async def plan(
        self,
        day: date,
        *,
        seconds: float = 20,
        seed: int = 0,
        told: Told | None = None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Plan:
        """Plan the day's routes, in place of those that have not left.

        What cannot be planned is left over with the reason. At most `MAX_PARCELS` are looked at, those that were
        promised first. The search takes `seconds` in all, in a process of its own; `progress` is told its share.
        Raises `Invalid`, `PlanningGoesOn` and `SolverFailed`; then nothing was changed.
        """
        now = from_ms(self._clock.now_ms())
        today = now.astimezone(self._zone).date()
        if not 0 <= (day - today).days <= MAX_DAYS_AHEAD:
            raise Invalid(f"routes are planned for today ({today}) and {MAX_DAYS_AHEAD} days ahead, not for {day}")
        if not 0 < seconds <= MAX_SECONDS:
            raise Invalid(f"the search may take up to {MAX_SECONDS} seconds")
        async with self._only_one() as connection:
            parcels, found = await store.pending_deliveries(connection, day, today, MAX_PARCELS)
            names = {name for parcel in parcels for name in region_keys(parcel.address)}
            bound, left = problem_mapping.locate_deliveries(parcels, await store.known_places(connection, names))
            clock = problem_mapping.Day(day, self._zone)
            vehicles = problem_mapping.available_vehicles(await store.free_vehicles(connection, day), clock, now)
            points = await store.depots(connection, {parcel.warehouse_id for parcel in parcels})
            ways = TravelMatrix(self._speed_kmh, told)
            made: list[Route] = []
            share = 0.0
            for depot in problem_mapping.group_by_depot(bound, vehicles, points):
                part = len(depot.bound) / len(bound)
                problem = await asyncio.to_thread(problem_mapping.problem, depot, clock, now, self._stop_s, ways)
                task = SolveRequest(problem, max(seconds * part, _LEAST_S), seed)
                solution = await solve_in_subprocess(task, _within(progress, share, part))
                made += problem_mapping.routes(depot, problem, solution, clock, self._ids)
                left += problem_mapping.left_over(depot, solution)
                share += part
            plan = Plan(day, made, left, found - len(parcels), ways.guessed)
            return await self._keep(connection, plan, today, now)

    async def _keep(self, connection: Connection, plan: Plan, today: date, now: datetime) -> Plan:
        """Write it down as planned `now`, when its parcels were read: what is booked anew after that does not go."""
        async with connection.transaction():
            if gone := await store.replace(connection, plan.day, today, plan.routes, now):
                raise PlanningInProgress(f"{', '.join(gone)} left while routes were planned: plan again")
            return structs.replace(plan, routes=await store.routes_of(connection, plan.day))

    @asynccontextmanager
    async def _only_one(self) -> AsyncIterator[Connection]:
        """Two plans at once would give parcels to two vans. The lock goes with the connection, should that break."""
        async with self._db.connection() as connection:
            if not await store.lock_planning(connection):
                raise PlanningInProgress("routes are being planned by somebody else: look at them in a moment")
            try:
                yield connection
            finally:
                await store.unlock_planning(connection)


def _within(progress: Callable[[float], None], before: float, part: float) -> Callable[[float], None]:
    return lambda share: progress(before + part * share)
