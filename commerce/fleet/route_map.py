"""Draws the routes of a day as a picture.

Matplotlib is loaded when one is drawn: it is slow and needs much memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, radians
from pathlib import Path
from typing import TYPE_CHECKING

from commerce.fleet.model import Route
from commerce.kernel.optional import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = (
    "#1b6ca8",
    "#c0392b",
    "#1e8449",
    "#8e44ad",
    "#e67e00",
    "#34495e",
    "#c2185b",
    "#7d6608",
    "#00a3b4",
    "#5d4037",
)
_MAX_NUMBERED_STOPS = 60
"""With more stops on a route there is no space for their numbers."""


def draw_routes(routes: Sequence[Route], file: Path) -> None:
    """Draw routes into a file, as SVG or PNG by its suffix. Lines go straight from stop to stop.

    Raises `NotReady` in an installation without the extra `fleet`.
    """
    require_extra("draw routes", "fleet", "matplotlib")
    from matplotlib.figure import Figure  # noqa: PLC0415  # optional and slow to load

    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots()
    for number, route in enumerate(routes):
        _draw_route(axes, route, _COLOURS[number % len(_COLOURS)])
    for warehouse_id, depot in sorted({route.warehouse_id: route.depot for route in routes}.items()):
        axes.plot(depot.longitude, depot.latitude, "s", color="black", markersize=10, zorder=5)
        axes.annotate(
            warehouse_id, (depot.longitude, depot.latitude), (8, 8), textcoords="offset points", weight="bold"
        )
    stop_count = sum(len(route.stops) for route in routes)
    metres = sum(route.distance_m for route in routes)
    day = f" on {routes[0].day}" if routes else ""
    axes.set_title(f"{len(routes)} routes{day}: {stop_count} stops, {metres / 1_000:,.1f} km")
    axes.set_xlabel("longitude")
    axes.set_ylabel("latitude")
    axes.ticklabel_format(useOffset=False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)
    if routes:
        # A degree of longitude is shorter than one of latitude.
        axes.set_aspect(1 / max(cos(radians(routes[0].depot.latitude)), 0.05))
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    figure.savefig(file, dpi=110, bbox_inches="tight")


def _draw_route(axes: Axes, route: Route, colour: str) -> None:
    points = [route.depot, *(stop.point for stop in route.stops), route.depot]
    axes.plot(
        [point.longitude for point in points],
        [point.latitude for point in points],
        "-",
        color=colour,
        linewidth=1.2,
        alpha=0.75,
        label=f"{route.vehicle_id}: {len(route.stops)} stops, {route.distance_m / 1_000:,.1f} km",
    )
    axes.scatter(
        [stop.point.longitude for stop in route.stops],
        [stop.point.latitude for stop in route.stops],
        s=90 if len(route.stops) <= _MAX_NUMBERED_STOPS else 20,
        color=colour,
        zorder=3,
    )
    if len(route.stops) <= _MAX_NUMBERED_STOPS:
        for stop in route.stops:
            axes.annotate(
                str(stop.seq),
                (stop.point.longitude, stop.point.latitude),
                ha="center",
                va="center",
                fontsize=6,
                color="white",
                zorder=4,
            )
