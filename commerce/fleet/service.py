"""Imports vehicles and places, plans the routes of a day, and lists them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from itertools import islice
from typing import TypeVar
from zoneinfo import ZoneInfo

from msgspec import structs

from commerce.fleet import problem_mapping, store
from commerce.fleet.errors import PlanningInProgress
from commerce.fleet.fleet_csv import read_places, read_vehicles
from commerce.fleet.geography import TravelLegs, TravelMatrix, region_keys
from commerce.fleet.model import Plan, Route, UnassignedDelivery, Vehicle
from commerce.fleet.problem_mapping import Day, LocatedDelivery
from commerce.fleet.routing_problem import SolveRequest
from commerce.fleet.solver_client import solve_in_subprocess
from commerce.fleet.store import PendingDelivery
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines, read_columns
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Connection, Database

Row = TypeVar("Row")
MAX_DELIVERIES = 1_000
MAX_VEHICLES = 1_000
MAX_SECONDS = 3_600
MAX_DAYS_AHEAD = 30
_ROWS_PER_TRANSACTION = 500
_MIN_SEARCH_S = 0.2


class Fleet:
    """The own fleet over Postgres. `stop_s` is the time of a stop, `speed_kmh` the speed on the road."""

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
        """Import a CSV file (`fleet_csv`) of places if it has a column `region`, otherwise of vehicles.

        Wrong lines are reported, all others are imported; a repeat changes nothing. Raises `UnreadableCsv` if the
        header is wrong.
        """
        lines = list(lines)
        report = ImportReport(blank=count_blank_lines(lines))
        with account_for_lines(report, lines):
            if "region" in read_columns(lines):
                return await self._import(report, read_places(lines), store.upsert_places)
            async with self._db.connection() as connection:
                warehouse_ids = await store.list_warehouse_ids(connection)
            return await self._import(report, read_vehicles(lines, warehouse_ids), store.upsert_vehicles)

    async def _import(
        self,
        report: ImportReport,
        rows: Iterator[tuple[int, Row | LineError]],
        upsert: Callable[[Connection, Sequence[Row]], Awaitable[tuple[int, int]]],
    ) -> ImportReport:
        while chunk := list(islice(rows, _ROWS_PER_TRANSACTION)):
            if valid := [row for _, row in chunk if not isinstance(row, LineError)]:
                async with self._db.transaction() as connection:
                    added, changed = await upsert(connection, valid)
                report.added += added
                report.changed += changed
                report.unchanged += len(valid) - added - changed
            report.errors += [row for _, row in chunk if isinstance(row, LineError)]
        return report

    async def list_vehicles(self) -> list[Vehicle]:
        """List all vehicles by warehouse, at most `MAX_VEHICLES`."""
        async with self._db.connection() as connection:
            return await store.list_vehicles(connection, MAX_VEHICLES)

    async def list_routes(self, day: date) -> list[Route]:
        """List the routes of a day."""
        async with self._db.connection() as connection:
            return await store.list_routes(connection, day)

    async def plan(
        self,
        day: date,
        *,
        seconds: float = 20,
        seed: int = 0,
        known_legs: TravelLegs | None = None,
        report_progress: Callable[[float], None] = lambda share: None,
    ) -> Plan:
        """Plan the routes of a day, in place of those that have not departed.

        Deliveries that cannot be planned are returned as unassigned with the reason. At most `MAX_DELIVERIES` are
        considered, earliest promised first. The search takes `seconds` in all, in a process of its own;
        `report_progress` receives the share that has passed. Raises `Invalid`, `PlanningInProgress`, `SolverFailed` and
        `NotReady` (without the extra `fleet`); then nothing was changed.
        """
        now = from_ms(self._clock.now_ms())
        today = now.astimezone(self._zone).date()
        if not 0 <= (day - today).days <= MAX_DAYS_AHEAD:
            raise Invalid(f"routes are planned for today ({today}) and {MAX_DAYS_AHEAD} days ahead, not for {day}")
        if not 0 < seconds <= MAX_SECONDS:
            raise Invalid(f"the search may take up to {MAX_SECONDS} seconds")
        travel = TravelMatrix(self._speed_kmh, known_legs)
        async with self._planning_lock() as connection:
            deliveries, total = await store.list_pending_deliveries(connection, day, today, MAX_DELIVERIES)
            region_names = {key for delivery in deliveries for key in region_keys(delivery.address)}
            places = await store.find_places(connection, region_names)
            located, unassigned = problem_mapping.locate_deliveries(deliveries, places)
            depots = await self._group(connection, Day(day, self._zone), now, deliveries, located)
            routes: list[Route] = []
            share = 0.0
            for depot in depots:
                part = len(depot.deliveries) / len(located)
                depot_routes, depot_unassigned = await self._plan_depot(
                    *(depot, Day(day, self._zone), now, travel, max(seconds * part, _MIN_SEARCH_S), seed),
                    _scale(report_progress, share, part),
                )
                routes += depot_routes
                unassigned += depot_unassigned
                share += part
            plan = Plan(day, routes, unassigned, total - len(deliveries), travel.estimated_legs)
            return await self._store(connection, plan, today, now)

    async def _group(
        self,
        connection: Connection,
        day: Day,
        now: datetime,
        deliveries: Sequence[PendingDelivery],
        located: Sequence[LocatedDelivery],
    ) -> list[problem_mapping.Depot]:
        vehicles = await store.list_undeparted_vehicles(connection, day.day)
        points = await store.find_depots(connection, {delivery.warehouse_id for delivery in deliveries})
        return problem_mapping.group_by_depot(located, problem_mapping.available_vehicles(vehicles, day, now), points)

    async def _plan_depot(
        self,
        depot: problem_mapping.Depot,
        day: Day,
        now: datetime,
        travel: TravelMatrix,
        time_limit_s: float,
        seed: int,
        report_progress: Callable[[float], None],
    ) -> tuple[list[Route], list[UnassignedDelivery]]:
        problem = await asyncio.to_thread(problem_mapping.build_problem, depot, day, now, self._stop_s, travel)
        solution = await solve_in_subprocess(SolveRequest(problem, time_limit_s, seed), report_progress)
        routes = problem_mapping.build_routes(depot, problem, solution, day, self._ids)
        return routes, problem_mapping.list_unassigned(depot, solution)

    async def _store(self, connection: Connection, plan: Plan, today: date, now: datetime) -> Plan:
        """Store a plan as made `now`, when its deliveries were read: a shipment booked later is not on it."""
        async with connection.transaction():
            if departed := await store.replace_planned_routes(connection, plan.day, today, plan.routes, now):
                raise PlanningInProgress(
                    f"cannot store the plan: {', '.join(departed)} departed while it was made; plan again"
                )
            return structs.replace(plan, routes=await store.list_routes(connection, plan.day))

    @asynccontextmanager
    async def _planning_lock(self) -> AsyncIterator[Connection]:
        """Hold the planning lock: two concurrent plans would assign a delivery to two vehicles.

        The lock belongs to the connection, so it is released if that breaks. Raises `PlanningInProgress`.
        """
        async with self._db.connection() as connection, store.planning_lock(connection) as is_held:
            if not is_held:
                raise PlanningInProgress("cannot plan routes: they are being planned already; read them in a moment")
            yield connection


def _scale(report_progress: Callable[[float], None], offset: float, part: float) -> Callable[[float], None]:
    return lambda share: report_progress(offset + part * share)
