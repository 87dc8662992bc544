"""`floodgate fleet` and `floodgate routes`: vans, and what they drive on a day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import orjson
import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from commerce.fleet.driver_links import make_link
from commerce.fleet.fleet_csv import read_travel_matrix
from commerce.fleet.geojson import feature_collection
from commerce.fleet.model import Plan, Route
from commerce.fleet.service import MAX_SECONDS, Fleet, Told
from commerce.kernel.csv_rows import ImportReport, LineError
from ops.commands.catalog import CsvFile, ReportFile, say_refused, say_report
from ops.commands.console import err, fail, interactive, out, run
from ops.services import CliServices, open_cli_services

fleet = typer.Typer(help="Vans, and the places they go to.", no_args_is_help=True)
routes = typer.Typer(help="A day's routes of the own vans.", no_args_is_help=True)
Day = Annotated[datetime, typer.Option("--date", formats=["%Y-%m-%d"], help="the day, in the shop's time zone")]
GeoJson = Annotated[Path | None, typer.Option("--geojson", help="write the routes to this file, for a map")]
Picture = Annotated[Path | None, typer.Option("--picture", help="draw the routes into this file (.svg or .png)")]


@asynccontextmanager
async def _open_fleet() -> AsyncIterator[Fleet]:
    async with open_cli_services() as shop:
        yield _fleet(shop)


def _fleet(shop: CliServices) -> Fleet:
    said = shop.settings.shipping
    return Fleet(shop.db, shop.clock, shop.ids, ZoneInfo(said.timezone), said.stop_service_s, said.vehicle_speed_kmh)


@fleet.command("import")
def import_file(file: CsvFile, report: ReportFile = None) -> None:
    """Make or change vans or places from a CSV file; a column region says that it is places.

    Vans: vehicle_id, warehouse_id, capacity_g, shift_from, shift_to (08:00), and if you like break_from, break_to and
    break_s (seconds, some time between the two), and active (yes, no). Places: region (cn/zhejiang/hangzhou, or a
    postcode as cn/310000), latitude, longitude.

    A wrong line is refused with its number and reason, and the rest goes in; status 2 says that there were such lines.
    A repeated import changes nothing.
    """

    async def work() -> ImportReport:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            async with _open_fleet() as found:
                return await found.import_csv(lines)

    say_report(run(work()), report)


@fleet.command("list")
def list_vehicles() -> None:
    """The vans."""

    async def work() -> Table:
        async with _open_fleet() as found:
            vehicles = await found.vehicles()
        table = Table("van", "warehouse", "carries", "shift", "break", "active")
        for van in vehicles:
            rest = f"{(van.break_s or 0) // 60} min, {van.break_from:%H:%M}-{van.break_to:%H:%M}" if van.break_s else ""
            table.add_row(
                van.vehicle_id,
                van.warehouse_id,
                f"{van.capacity_g / 1_000:,.0f} kg",
                f"{van.shift_from:%H:%M}-{van.shift_to:%H:%M}",
                rest,
                "yes" if van.active else "no",
            )
        return table

    out.print(run(work()))


@routes.command("plan")
def plan(
    day: Day,
    matrix: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="CSV of from,to,distance_m,duration_s instead of great circles"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=MAX_SECONDS, help="of searching")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="of the search")] = 0,
    geojson: GeoJson = None,
    picture: Picture = None,
) -> None:
    """Plan the day's routes, in place of those that have not left.

    In the matrix a point is a warehouse's id, a region, or a parcel's id. Parcels that are on no route are listed with
    the reason; status 2 says that there are such parcels.
    """
    _check_picture(picture)
    told = _ways(matrix) if matrix else None

    async def work() -> tuple[Plan, ZoneInfo]:
        with _searching() as bar:
            task = bar.add_task("planning", total=1)
            async with open_cli_services() as shop:
                planned = await _fleet(shop).plan(
                    day.date(),
                    seconds=seconds,
                    seed=seed,
                    told=told,
                    progress=lambda share: bar.update(task, completed=share),
                )
                return planned, ZoneInfo(shop.settings.shipping.timezone)

    planned, zone = run(work())
    _output(planned.routes, zone, geojson, picture)
    if planned.estimated_legs:
        err.print(f"{planned.estimated_legs} ways are not in the matrix: the great circle was taken", highlight=False)
    if planned.not_considered:
        err.print(
            f"{planned.not_considered} more parcels were not looked at: plan again once these have left",
            highlight=False,
        )
    if planned.unassigned:
        table = Table(
            "parcel", "warehouse", "left over because", title=f"{len(planned.unassigned)} parcels are left over"
        )
        for one in planned.unassigned:
            table.add_row(str(one.shipment_id), one.warehouse_id, one.reason)
        out.print(table)
        raise typer.Exit(2)


@routes.command("show")
def show(day: Day, geojson: GeoJson = None, picture: Picture = None) -> None:
    """The day's routes."""
    _check_picture(picture)

    async def work() -> tuple[list[Route], ZoneInfo]:
        async with open_cli_services() as shop:
            return await _fleet(shop).routes(day.date()), ZoneInfo(shop.settings.shipping.timezone)

    found, zone = run(work())
    _output(found, zone, geojson, picture)


@routes.command("links")
def links(
    day: Day,
    base: Annotated[
        str | None, typer.Option(metavar="URL", help="the shop's address as vans reach it; left out: the settings'")
    ] = None,
) -> None:
    """Print the signed link of each of the day's routes. Whoever has it sees the stops and may report them: it goes to
    the driver alone. It holds to the end of the day after."""

    async def work() -> list[tuple[str, str]]:
        async with open_cli_services() as shop:
            zone, key, http = (
                ZoneInfo(shop.settings.shipping.timezone),
                shop.settings.driver_link_key(),
                shop.settings.http,
            )
            address = (base or f"http://{http.host}:{http.port}").rstrip("/")
            return [
                (route.vehicle_id, f"{address}/v1/vans/{make_link(key, route.route_id, route.day, zone)}/page")
                for route in await _fleet(shop).routes(day.date())
            ]

    for vehicle_id, link in run(work()):
        out.print(f"{vehicle_id} {link}", highlight=False, soft_wrap=True)


def _output(found: Sequence[Route], zone: ZoneInfo, geojson: Path | None, picture: Path | None) -> None:
    def clock(at: datetime | None) -> str:
        return at.astimezone(zone).strftime("%H:%M") if at else ""

    summary = Table("van", "warehouse", "status", "stops", "weight", "way", "from", "break", "back")
    for route in found:
        summary.add_row(
            route.vehicle_id,
            route.warehouse_id,
            route.status,
            str(len(route.stops)),
            f"{sum(stop.weight_g for stop in route.stops) / 1_000:,.1f} kg",
            f"{route.distance_m / 1_000:,.1f} km",
            clock(route.start_at),
            clock(route.break_at),
            clock(route.end_at),
        )
    for route in found:
        table = Table("", "parcel", "number", "window", "arrives", "leaves", "status", title=f"van {route.vehicle_id}")
        for stop in route.stops:
            table.add_row(
                str(stop.seq),
                str(stop.shipment_id),
                stop.tracking_no or "",
                f"{clock(stop.window_from)}-{clock(stop.window_to)}",
                clock(stop.arrive_at),
                clock(stop.leave_at),
                stop.status,
            )
        out.print(table)
    out.print(summary)
    try:
        if geojson is not None:
            geojson.write_bytes(orjson.dumps(feature_collection(found)))
        if picture is not None:
            from commerce.fleet.route_map import draw_routes  # noqa: PLC0415  # slow to load, and seldom needed

            draw_routes(found, picture)
    except OSError as error:
        fail(f"the file cannot be written: {error}")


def _check_picture(picture: Path | None) -> None:
    if picture is not None and picture.suffix.lower() not in (".svg", ".png"):
        fail(f"a picture is .svg or .png, not {picture.suffix or picture.name}")


def _ways(file: Path) -> Told:
    """A matrix is refused whole for one wrong line: with ways missing, routes would be planned that are not meant."""
    told, refused = {}, []
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        for _, row in read_travel_matrix(lines):
            if isinstance(row, LineError):
                refused.append(row)
            else:
                told[row[0]] = row[1]
    if refused:
        say_refused(refused, None)
        fail(f"{len(refused)} lines of {file.name} are wrong")
    return told


def _searching() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=err,
        disable=not interactive(),
        transient=True,
    )
