"""Reads the CSV files of the fleet: vehicles, places, travel matrices.

A wrong line becomes a `LineError`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import time

import msgspec

from commerce.fleet.geography import region_key
from commerce.fleet.model import Place, Point, Vehicle, VehicleId
from commerce.kernel.countries import COUNTRIES
from commerce.kernel.csv_rows import CsvLineError, LineError, check_unique, parse_degrees, parse_unsigned, read_rows
from commerce.kernel.regions import parse_region
from commerce.kernel.types import is_filled

_MAX_CAPACITY_G = 100_000_000
_MAX_LEG_M = 10_000_000
_MAX_LEG_S = 1_000_000
_DAY_S = 86_400
_MAX_REGION_CHARS = 200


def read_vehicles(lines: Iterable[str], warehouse_ids: Collection[str]) -> Iterator[tuple[int, Vehicle | LineError]]:
    """Read vehicles.

    Columns: vehicle_id, warehouse_id, capacity_g, shift_from, shift_to (08:00). Optional: break_from, break_to, break_s
    (seconds), together or not at all; active (yes, no).
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> Vehicle:
        stripped = {name: value.strip() for name, value in fields.items()}
        try:
            vehicle_id = msgspec.convert(stripped["vehicle_id"], VehicleId)
        except msgspec.ValidationError:
            raise CsvLineError(
                f"vehicle_id is {stripped['vehicle_id'][:40]!r}, not up to 32 letters, digits and dashes that start "
                "with a letter or digit"
            ) from None
        if stripped["warehouse_id"] not in warehouse_ids:
            raise CsvLineError(f"there is no warehouse {stripped['warehouse_id'][:40]!r}")
        capacity_g = _parse_positive("capacity_g", stripped["capacity_g"], _MAX_CAPACITY_G)
        shift_from, shift_to = (
            _parse_time("shift_from", stripped["shift_from"]),
            _parse_time("shift_to", stripped["shift_to"]),
        )
        if shift_from >= shift_to:
            raise CsvLineError("shift_to is not after shift_from")
        check_unique(first_lines, vehicle_id, line, "vehicle")
        break_from, break_to, break_s = _parse_break(stripped, shift_from, shift_to)
        return Vehicle(
            vehicle_id=vehicle_id,
            warehouse_id=stripped["warehouse_id"],
            capacity_g=capacity_g,
            shift_from=shift_from,
            shift_to=shift_to,
            break_from=break_from,
            break_to=break_to,
            break_s=break_s,
            active=_is_active(stripped.get("active", "")),
        )

    columns = ("vehicle_id", "warehouse_id", "capacity_g", "shift_from", "shift_to")
    return read_rows(lines, columns, ("break_from", "break_to", "break_s", "active"), parse)


def read_places(lines: Iterable[str]) -> Iterator[tuple[int, Place | LineError]]:
    """Read places.

    Columns: region (cn/zhejiang/hangzhou/xihu, or a postcode as cn/310000), latitude, longitude.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> Place:
        path = parse_region(fields["region"])
        name = region_key(*path)
        if path[0].upper() not in COUNTRIES or len(name) > _MAX_REGION_CHARS or not name.isprintable():
            raise CsvLineError(f"region is {name[:40]!r}, not a country and its parts as in cn/zhejiang/hangzhou")
        point = Point(
            parse_degrees("latitude", fields["latitude"], 90), parse_degrees("longitude", fields["longitude"], 180)
        )
        check_unique(first_lines, name, line, "region")
        return Place(name, point)

    return read_rows(lines, ("region", "latitude", "longitude"), (), parse)


def read_travel_matrix(
    lines: Iterable[str],
) -> Iterator[tuple[int, tuple[tuple[str, str], tuple[int, int]] | LineError]]:
    """Read a travel matrix: ((from, to), (metres, seconds)).

    Columns: from, to, distance_m, duration_s. A point is a warehouse id, a region, or a shipment id.
    """
    first_lines: dict[str, int] = {}

    def parse(line: int, fields: dict[str, str]) -> tuple[tuple[str, str], tuple[int, int]]:
        pair = region_key(*parse_region(fields["from"])), region_key(*parse_region(fields["to"]))
        if not all(map(is_filled, pair)):
            raise CsvLineError("from or to is empty")
        leg = (
            parse_unsigned("distance_m", fields["distance_m"], _MAX_LEG_M),
            parse_unsigned("duration_s", fields["duration_s"], _MAX_LEG_S),
        )
        check_unique(first_lines, " to ".join(pair), line, "leg from")
        return pair, leg

    return read_rows(lines, ("from", "to", "distance_m", "duration_s"), (), parse)


def _parse_break(
    stripped: dict[str, str], shift_from: time, shift_to: time
) -> tuple[time | None, time | None, int | None]:
    texts = [stripped.get(name, "") for name in ("break_from", "break_to", "break_s")]
    if not any(texts):
        return None, None, None
    if not all(texts):
        raise CsvLineError("break_from, break_to and break_s are given together or not at all")
    begins, ends = _parse_time("break_from", texts[0]), _parse_time("break_to", texts[1])
    if begins < shift_from or ends > shift_to:
        raise CsvLineError("the break's window is not within the shift")
    length_s = _parse_positive("break_s", texts[2], _DAY_S)
    if _seconds(ends) - _seconds(begins) < length_s:
        raise CsvLineError(f"a break of {length_s} s does not fit between break_from and break_to")
    return begins, ends, length_s


def _seconds(at: time) -> int:
    return at.hour * 3_600 + at.minute * 60 + at.second


def _parse_time(name: str, text: str) -> time:
    try:
        at = time.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is not None or at.microsecond:
        raise CsvLineError(f"{name} is {text[:40]!r}, not a time like 08:30")
    return at


def _parse_positive(name: str, text: str, maximum: int) -> int:
    if not (number := parse_unsigned(name, text, maximum)):
        raise CsvLineError(f"{name} is 0")
    return number


def _is_active(text: str) -> bool:
    if text.lower() not in ("", "yes", "no"):
        raise CsvLineError(f"active is {text[:40]!r}, not yes or no")
    return text.lower() != "no"
