"""Files of the fleet: CSV of vehicles, places and travel matrices; GeoJSON and pictures."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.fleet import store
from commerce.fleet.fleet_csv import read_places, read_travel_matrix, read_vehicles
from commerce.fleet.geography import great_circle_m, locate, region_key, region_keys
from commerce.fleet.geojson import feature_collection
from commerce.fleet.model import Place, Point, Route, Stop, Vehicle
from commerce.fleet.route_map import draw_routes
from commerce.kernel.address import Address
from commerce.kernel.csv_rows import LineError
from commerce.kernel.errors import UnreadableCsv
from ops.services import CliServices
from tests.fleet.fleet_kit import DAY, DEPOT, VEHICLES_CSV, make_fleet_kit

HEADER = "vehicle_id,warehouse_id,capacity_g,shift_from,shift_to,break_from,break_to,break_s,active\n"


def test_read_vehicles_parses_all_columns() -> None:
    (_, first), (_, second) = read_vehicles(VEHICLES_CSV.splitlines(keepends=True), {"hz"})
    assert first == Vehicle("V1", "hz", 500_000, time(8), time(18), time(12), time(14), 2_700)
    assert second == Vehicle("V2", "hz", 300_000, time(9), time(17))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("V 1,hz,1000,08:00,18:00,,,,", "vehicle_id is 'V 1'"),
        ("V1,nowhere,1000,08:00,18:00,,,,", "no warehouse 'nowhere'"),
        ("V1,hz,0,08:00,18:00,,,,", "capacity_g is 0"),
        ("V1,hz,ten,08:00,18:00,,,,", "capacity_g is 'ten'"),
        ("V1,hz,1000,8 am,18:00,,,,", "shift_from is '8 am', not a time like 08:30"),
        ("V1,hz,1000,08:00+01:00,18:00,,,,", "shift_from is '08:00+01:00'"),
        ("V1,hz,1000,18:00,08:00,,,,", "shift_to is not after shift_from"),
        ("V1,hz,1000,08:00,18:00,12:00,,,", "together or not at all"),
        ("V1,hz,1000,08:00,18:00,07:00,09:00,60,", "not within the shift"),
        ("V1,hz,1000,08:00,18:00,12:00,12:30,1801,", "1801 s does not fit"),
        ("V1,hz,1000,08:00,18:00,14:00,12:00,60,", "does not fit"),
        ("V1,hz,1000,08:00,18:00,,,,maybe", "active is 'maybe'"),
        ("V1,hz,1000", "3 fields where the header has 9"),
        ("V1,hz,1000,\udcff,18:00,,,,", "shift_from is not UTF-8"),
    ],
)
def test_read_vehicles_wrong_line_is_reported_and_others_are_read(line: str, reason: str) -> None:
    lines = [HEADER, line + "\n", "V9,hz,1000,08:00,18:00,,,,no\n", "V9,hz,1000,08:00,18:00,,,,no\n"]
    (_, error), (_, valid), (_, duplicate) = read_vehicles(lines, {"hz"})
    assert isinstance(error, LineError)
    assert error.line == 2
    assert reason in error.reason
    assert isinstance(valid, Vehicle)
    assert not valid.active
    assert isinstance(duplicate, LineError)
    assert "on line 3 already" in duplicate.reason


def test_read_places_and_travel_matrix_parses_valid_lines() -> None:
    lines = ["region,latitude,longitude\n", " CN/ Zhejiang ,30,120\n", "cn/x,91,0\n", "cn/y,nan,0\n", ",1,1\n"]
    rows = [row for _, row in read_places(lines)]
    assert rows[0] == Place("cn/zhejiang", Point(30, 120))
    assert ["latitude is '91'" in str(rows[1]), "latitude is 'nan'" in str(rows[2])] == [True, True]
    assert "region is ''" in str(rows[3])
    legs = [
        row
        for _, row in read_travel_matrix(
            ["from,to,distance_m,duration_s\n", "HZ,cn/A,5,6\n", "hz,,5,6\n", "a,b,-1,6\n"]
        )
    ]
    assert legs[0] == (("hz", "cn/a"), (5, 6))
    assert all(isinstance(leg, LineError) for leg in legs[1:])
    with pytest.raises(UnreadableCsv, match="needs the columns from, to"):
        list(read_travel_matrix(["a,b\n"]))


async def test_import_vehicles_repeated_changes_only_differences(shop: CliServices) -> None:
    kit = await make_fleet_kit(shop)
    same = await kit.fleet.import_csv(VEHICLES_CSV.splitlines(keepends=True))
    assert (same.added, same.changed, same.unchanged) == (0, 0, 2)
    changed = await kit.fleet.import_csv(VEHICLES_CSV.replace("300000", "310000").splitlines(keepends=True))
    assert (changed.added, changed.changed, changed.unchanged) == (0, 1, 1)
    assert [vehicle.capacity_g for vehicle in await kit.fleet.list_vehicles()] == [500_000, 310_000]


WORDS = st.text(st.characters(categories=["L", "Zs"]), max_size=8)


@given(WORDS, WORDS, WORDS, WORDS)
def test_region_keys_begin_with_smallest_region(province: str, city: str, district: str, code: str) -> None:
    address = Address("A", "1", "CN", city, "line", province, district, code)
    names = region_keys(address)
    assert names[-1] == "cn"
    assert all(name == name.strip() and "//" not in name for name in names)
    depths = [name.count("/") for name in names if name != region_key("CN", code) or not code.strip()]
    assert depths == sorted(depths, reverse=True)
    places = {name: Point(number, 0) for number, name in enumerate(names)}
    place = locate(address, places)
    assert place is not None
    assert place[0] == names[0]
    assert locate(address, {}) is None


async def test_places_stored_in_older_forms_are_found(shop: CliServices) -> None:
    stored = ["cn/浙江省/杭州市", "cn/广西壮族自治区", "us/new york", "cn/zhejiang province", "cn/湖南省/常德市/津市市"]
    async with shop.db.transaction() as connection:
        await connection.execute(
            "INSERT INTO places (region, latitude, longitude) SELECT region, n, n "
            "FROM unnest($1::text[]) WITH ORDINALITY AS place (region, n)",
            stored,
        )
        places = await store.find_places(connection, {region_key(*region.split("/")) for region in stored})
    addresses = [
        Address("A", "1", "CN", "杭州", "line", "浙江"),
        Address("A", "1", "CN", "南宁市", "line", "广西"),
        Address("A", "1", "US", "Albany", "line", "New York"),
        Address("A", "1", "CN", "Hangzhou", "line", "Zhejiang"),
        Address("A", "1", "CN", "常德", "line", "湖南", "津市市"),
    ]
    located = [locate(address, places) for address in addresses]
    assert [place and place[1].latitude for place in located] == [1, 2, 3, 4, 5]


def test_great_circle_of_known_points_has_known_length() -> None:
    # A quarter of the equator, and Shanghai to Beijing (about 1,067 km).
    assert great_circle_m(Point(0, 0), Point(0, 90)) == pytest.approx(10_007_557, rel=1e-5)
    assert great_circle_m(Point(31.2304, 121.4737), Point(39.9042, 116.4074)) == pytest.approx(1_067_000, rel=5e-3)


def example_routes() -> list[Route]:
    at = datetime(2031, 3, 4, tzinfo=UTC)
    stops = [
        Stop(n, UUID(int=n), f"N{n}", 1_000, Point(30.25 + n / 100, 120.15), at, at, at, at + timedelta(seconds=240))
        for n in (1, 2)
    ]
    return [Route(UUID(int=9), DAY, "V1", "hz", Point(*DEPOT), "planned", 5_000, at, at, None, stops)]


def test_geojson_positions_are_longitude_first() -> None:
    collection = json.loads(json.dumps(feature_collection(example_routes())))
    assert collection["type"] == "FeatureCollection"
    kinds = {(feature["properties"]["kind"], feature["geometry"]["type"]) for feature in collection["features"]}
    assert kinds == {("warehouse", "Point"), ("route", "LineString"), ("stop", "Point")}
    (line,) = [
        feature["geometry"]["coordinates"]
        for feature in collection["features"]
        if feature["properties"]["kind"] == "route"
    ]
    assert line[0] == line[-1] == [DEPOT[1], DEPOT[0]]
    assert len(line) == 4


@pytest.mark.parametrize("routes", [example_routes(), []], ids=["a route", "none"])
def test_route_map_is_drawn_as_png_and_svg(tmp_path: Path, routes: list[Route]) -> None:
    draw_routes(routes, tmp_path / "day.png")
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")
    draw_routes(routes, tmp_path / "day.svg")
    assert ElementTree.parse(tmp_path / "day.svg").getroot().tag.endswith("svg")
