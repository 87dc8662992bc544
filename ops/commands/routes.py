"""`floodgate route`: the routes of our own vehicles on a day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

import orjson
import typer

from commerce.fleet.driver_links import make_link
from commerce.fleet.fleet_csv import read_travel_matrix
from commerce.fleet.geography import TravelLegs
from commerce.fleet.geojson import feature_collection
from commerce.fleet.model import Plan, Route
from commerce.fleet.route_map import draw_routes
from commerce.fleet.service import MAX_SECONDS
from commerce.kernel.bind import local_url
from commerce.kernel.csv_rows import LineError, read_lines
from ops.commands.console import (
    JsonOption,
    check_writable,
    exit_on_error,
    fail,
    print_detail,
    print_json,
    print_line,
    print_line_errors,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_day
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import create_fleet, open_cli_services

app = typer.Typer(help="Plan and show the routes of our own vehicles, and print drivers' links.", no_args_is_help=True)
Day = Annotated[
    date, typer.Option("--date", parser=read_day, metavar="YYYY-MM-DD", help="the day, in the warehouses' time zone")
]
GeoJsonFile = Annotated[
    Path | None, typer.Option("--geojson", callback=check_writable, help="write the routes to this file, for a map")
]
PictureFile = Annotated[
    Path | None,
    typer.Option("--picture", callback=check_writable, help="draw the routes into this file (.svg or .png)"),
]


@app.command()
def plan(
    day: Day,
    matrix: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            is_eager=True,  # `check_writable` of the other files needs it
            help="CSV of from,to,distance_m,duration_s instead of great circles",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=MAX_SECONDS, help="time of the search")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="seed of the search")] = 0,
    geojson: GeoJsonFile = None,
    picture: PictureFile = None,
    json: JsonOption = False,
) -> None:
    """Plan the day's routes. Routes that have departed stay; all others are replaced.

    A point of the matrix is a warehouse's id, a region or a shipment's id. Shipments on no route are listed with the
    reason; status 2 if there are any.
    """
    _check_picture(picture)
    travel_matrix = _read_matrix(matrix) if matrix else None

    async def work() -> tuple[Plan, ZoneInfo]:
        with create_progress_bar(in_percent=True) as bar:
            task = bar.add_task("planning", total=1)
            async with open_cli_services() as shop:
                result = await create_fleet(shop).plan(
                    day,
                    seconds=seconds,
                    seed=seed,
                    known_legs=travel_matrix,
                    report_progress=lambda share: bar.update(task, completed=share),
                )
                return result, ZoneInfo(shop.settings.shipping.timezone)

    result, zone = run_change(work())
    if json:
        print_json(result)
    else:
        _print_routes(result.routes, zone)
    _write_files(result.routes, geojson, picture)
    if result.estimated_legs:
        print_detail(f"{result.estimated_legs} legs are not in the matrix: estimated by great circles")
    if result.not_considered:
        print_detail(f"{result.not_considered} more shipments were not considered: plan again once these have departed")
    if result.unassigned and not json:
        table = Table(
            *("shipment", "warehouse", "unassigned because"), title=f"{len(result.unassigned)} shipments are unassigned"
        )
        for delivery in result.unassigned:
            table.add_row(str(delivery.shipment_id), delivery.warehouse_id, delivery.reason)
        print_table(table)
    if result.unassigned:
        raise typer.Exit(2)


@app.command()
def show(day: Day, geojson: GeoJsonFile = None, picture: PictureFile = None, json: JsonOption = False) -> None:
    """Show the day's routes with their stops."""
    _check_picture(picture)

    async def work() -> tuple[list[Route], ZoneInfo]:
        async with open_cli_services() as shop:
            return await create_fleet(shop).list_routes(day), ZoneInfo(shop.settings.shipping.timezone)

    routes, zone = run(work())
    if json:
        print_json(routes)
    else:
        _print_routes(routes, zone)
    _write_files(routes, geojson, picture)


@app.command()
def links(
    day: Day,
    base: Annotated[
        str | None,
        typer.Option(metavar="URL", help="the shop's address as drivers reach it; left out: from the settings"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the signed link of each of the day's routes.

    Anybody with the link can read the stops and report them: give it to the driver alone. It expires at the end of the
    next day.
    """

    async def work() -> list[tuple[str, str]]:
        async with open_cli_services() as shop:
            settings = shop.settings
            zone, key = ZoneInfo(settings.shipping.timezone), settings.driver_link_key()
            address = (base or local_url(settings.http.host, settings.http.port)).rstrip("/")
            return [
                (route.vehicle_id, f"{address}/v1/driver-routes/{make_link(key, route.route_id, route.day, zone)}/page")
                for route in await create_fleet(shop).list_routes(day)
            ]

    links_by_vehicle = run(work())
    if json:
        print_json([{"vehicle_id": vehicle_id, "link": link} for vehicle_id, link in links_by_vehicle])
        return
    for vehicle_id, link in links_by_vehicle:
        print_line(f"{vehicle_id} {link}")


def _write_files(routes: Sequence[Route], geojson: Path | None, picture: Path | None) -> None:
    """Write the routes to the files that are named."""
    try:
        if geojson is not None:
            geojson.write_bytes(orjson.dumps(feature_collection(routes)))
        if picture is not None:
            with exit_on_error():
                draw_routes(routes, picture)
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}; give another file")


def _print_routes(routes: Sequence[Route], zone: ZoneInfo) -> None:
    def clock_time(moment: datetime | None) -> str:
        return moment.astimezone(zone).strftime("%H:%M") if moment else ""

    summary = Table("vehicle", "warehouse", "status", "stops", "weight", "distance", "from", "break", "back")
    for route in routes:
        summary.add_row(
            route.vehicle_id,
            route.warehouse_id,
            route.status,
            str(len(route.stops)),
            f"{sum(stop.weight_g for stop in route.stops) / 1_000:,.1f} kg",
            f"{route.distance_m / 1_000:,.1f} km",
            clock_time(route.start_at),
            clock_time(route.break_at),
            clock_time(route.end_at),
        )
    for route in routes:
        table = Table(
            *("stop", "shipment", "tracking number", "window", "arrives", "leaves", "status"),
            title=f"vehicle {route.vehicle_id}",
        )
        for stop in route.stops:
            table.add_row(
                str(stop.seq),
                str(stop.shipment_id),
                stop.tracking_no or "",
                f"{clock_time(stop.window_from)}-{clock_time(stop.window_to)}",
                clock_time(stop.arrive_at),
                clock_time(stop.leave_at),
                stop.status,
            )
        print_table(table)
    print_table(summary)


def _check_picture(picture: Path | None) -> None:
    if picture is not None and picture.suffix.lower() not in (".svg", ".png"):
        fail(f"cannot draw {picture.name}: a picture is .svg or .png, not {picture.suffix or 'without a suffix'}")


def _read_matrix(file: Path) -> TravelLegs:
    """Read a travel matrix.

    Ends the command if a line is wrong: routes with missing legs would not be as intended.
    """
    legs, errors = {}, []
    with exit_on_error():
        for _, row in read_travel_matrix(read_lines(file)):
            if isinstance(row, LineError):
                errors.append(row)
            else:
                legs[row[0]] = row[1]
    if errors:
        print_line_errors(errors, None)
        fail(f"cannot use the matrix {file.name}: {len(errors)} lines are wrong; correct them and plan again")
    return legs
