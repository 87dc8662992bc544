"""Routes as GeoJSON (RFC 7946) for any map. A position is [longitude, latitude]."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from commerce.fleet.model import Point, Route


def feature_collection(routes: Sequence[Route]) -> dict[str, Any]:
    """Return a line for each route and a point for each stop and each warehouse.

    Lines go straight from stop to stop, because roads are unknown here. Of customers only the location is included.
    """
    depots = {route.warehouse_id: route.depot for route in routes}
    return {
        "type": "FeatureCollection",
        "features": [
            *(
                _feature("Point", _position(point), {"kind": "warehouse", "warehouse": warehouse_id})
                for warehouse_id, point in sorted(depots.items())
            ),
            *(feature for route in routes for feature in _route_features(route)),
        ],
    }


def _route_features(route: Route) -> Iterable[dict[str, Any]]:
    yield _feature(
        "LineString",
        [_position(point) for point in (route.depot, *(stop.point for stop in route.stops), route.depot)],
        {
            "kind": "route",
            "route": str(route.route_id),
            "vehicle": route.vehicle_id,
            "warehouse": route.warehouse_id,
            "status": route.status,
            "distance_m": route.distance_m,
            "start_at": route.start_at.isoformat(),
            "end_at": route.end_at.isoformat(),
        },
    )
    for stop in route.stops:
        yield _feature(
            "Point",
            _position(stop.point),
            {
                "kind": "stop",
                "vehicle": route.vehicle_id,
                "seq": stop.seq,
                "shipment": str(stop.shipment_id),
                "status": stop.status,
                "arrive_at": stop.arrive_at.isoformat(),
                "leave_at": stop.leave_at.isoformat(),
            },
        )


def _feature(kind: str, coordinates: Any, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def _position(point: Point) -> list[float]:
    return [point.longitude, point.latitude]
