"""Rows that only fulfilment reads and writes: fulfilments, worklists, packing, waves.

Shipments: `shipping.store`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from uuid import UUID

import msgspec

from commerce.fulfilment.model import FulfilmentState, LineToPlan, ShipmentLineDetails
from commerce.jobs import store as jobs
from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.orders.model import FULFILMENTS
from commerce.rates.model import CarrierChoice
from commerce.shipping.model import Pick, Shipment, UnplannedOrder, Wave, WorklistName
from commerce.shipping.shipment_tasks import SHIPMENTS
from commerce.shipping.store import read_shipment

queries = load_queries(__package__, shipments=Shipment.__struct_fields__)
_WORKLISTS: dict[WorklistName, str] = {
    "to_pack": queries.list_to_pack,
    "parked": queries.list_parked,
    "on_hold": queries.list_on_hold,
    "overdue": queries.list_overdue,
    "stalled": queries.list_stalled,
    "no_first_scan": queries.list_no_first_scan,
    "undelivered": queries.list_undelivered,
    "anomalies": queries.list_anomalies,
    "all": queries.list_all,
}


# Fulfilments: one row per paid order.


async def get_fulfilment(connection: Connection, order_id: UUID) -> FulfilmentState | None:
    """Read the fulfilment of an order; None if the order was never paid."""
    return (await get_fulfilments(connection, [order_id])).get(order_id)


async def get_fulfilments(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, FulfilmentState]:
    """Read the fulfilments of those of the orders that were ever paid."""
    rows = await connection.fetch(queries.get_fulfilments, order_ids)
    return {row["order_id"]: FulfilmentState(**row) for row in rows}


async def mark_fulfilments_planned(connection: Connection, promised_on: Mapping[UUID, date], now: datetime) -> None:
    """Set the status `planned`, and the promised day by order, of orders that are still pending."""
    days = list(promised_on.values())
    await connection.execute(queries.mark_fulfilments_planned, list(promised_on), days, now)


async def mark_fulfilment_done(connection: Connection, order_id: UUID) -> None:
    """Set the status `done`."""
    await connection.execute(queries.mark_fulfilment_done, order_id)


async def read_ship_to(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, list[Address]]:
    """Read the addresses of orders; `address_no` of their lines is the index."""
    rows = await connection.fetch(queries.read_ship_to, order_ids)
    return {row["order_id"]: msgspec.json.decode(row["ship_to"], type=list[Address]) for row in rows}


async def list_lines_to_plan(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, list[LineToPlan]]:
    """List the units to plan by line and address, with the product logistics if they were imported."""
    lines: dict[UUID, list[LineToPlan]] = {order_id: [] for order_id in order_ids}
    for order_id, *line in await connection.fetch(queries.list_lines_to_plan, order_ids):
        lines[order_id].append(LineToPlan(*line))
    return lines


async def insert_fulfilment_lines(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Start the counts of all lines of orders: ordered, and nothing planned yet. A repeat changes nothing."""
    await connection.execute(queries.insert_fulfilment_lines, order_ids)


# Units and cash of shipments that ended without a delivery.


async def mark_cancel_refused(connection: Connection, shipment_id: UUID, now: datetime) -> None:
    """Record that a carrier has refused to cancel a booking: the shipment goes on."""
    await connection.execute(queries.mark_cancel_refused, shipment_id, now)


async def mark_units_decided(connection: Connection, units: Mapping[tuple[UUID, int], int]) -> None:
    """Record for what number of units, by shipment and line number, it is decided what becomes of them."""
    if units:
        rows = [(shipment_id, line_no, count) for (shipment_id, line_no), count in units.items()]
        await connection.execute(queries.mark_units_decided, *zip(*rows, strict=True))


async def resolve_shipments(
    connection: Connection, shipment_ids: Sequence[UUID], now: datetime, resolution: str, *, all_units: bool = False
) -> None:
    """Mark those of the shipments as resolved whose units are all decided.

    With `all_units` they all are from now on."""
    if not shipment_ids:
        return
    if all_units:
        await connection.execute(queries.mark_all_units_decided, shipment_ids)
    await connection.execute(queries.resolve_shipments, shipment_ids, now, resolution)


async def sum_cash_to_collect(connection: Connection, order_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the cash due that no shipment collects, in minor units, by order that has cash due."""
    rows = await connection.fetch(queries.sum_cash_to_collect, order_ids)
    return {row["order_id"]: row["amount_minor"] for row in rows}


# Carriers.


async def assign_carriers(connection: Connection, choices: Mapping[UUID, CarrierChoice | None]) -> None:
    """Store the chosen carriers of shipments.

    The reasons are stored, too, if a rate table was consulted, also if no carrier takes the shipment."""
    rows = [(shipment_id, *_choice_columns(choice)) for shipment_id, choice in choices.items()]
    await connection.execute(queries.assign_carriers, *zip(*rows, strict=True))


def _choice_columns(choice: CarrierChoice | None) -> tuple[str | None, str | None, int | None, date | None]:
    choice_json = msgspec.json.encode(choice).decode() if choice else None
    if choice is None or choice.carrier is None:
        return None, choice_json, None, None
    return choice.carrier, choice_json, choice.price, choice.expected_on


async def reassign_unavailable(connection: Connection, systems: Sequence[str], now: datetime, count: int) -> None:
    """Make due bookings that were not requested yet with these systems jobs that assign another carrier."""
    await connection.execute(queries.reassign_unavailable, systems, now, count)


async def get_carrier_choice(connection: Connection, shipment_id: UUID) -> CarrierChoice | None:
    """Read the kept choice of a shipment.

    Returns None if the shipment does not exist or no rate table was consulted for it.
    """
    choice_json = await connection.fetchval(queries.get_carrier_choice, shipment_id)
    return msgspec.json.decode(choice_json, type=CarrierChoice) if choice_json else None


# Worklists.


async def list_worklist(
    connection: Connection,
    worklist: WorklistName,
    warehouse_id: str | None,
    after: UUID,
    count: int,
    now: datetime,
    today: date,
    stalled_after_s: float,
    no_first_scan_after_s: float,
) -> list[tuple[Shipment, str | None]]:
    """List up to `count` shipments of a worklist after an id, oldest first, with their reasons."""
    limits: dict[WorklistName, date | datetime] = {
        "overdue": today,
        "stalled": now - timedelta(seconds=stalled_after_s),
        "no_first_scan": now - timedelta(seconds=no_first_scan_after_s),
    }
    values = (warehouse_id, after, count, *([limits[worklist]] if worklist in limits else []))
    rows = await connection.fetch(_WORKLISTS[worklist], *values)
    return [(read_shipment(row), row["reason"]) for row in rows]


async def count_worklists(
    connection: Connection, now: datetime, today: date, stalled_after_s: float, no_first_scan_after_s: float
) -> dict[str, int]:
    """Count the shipments of each worklist, and the orders that cannot be planned (`unplanned`)."""
    row = await connection.fetchrow(queries.count_worklists, now, today, stalled_after_s, no_first_scan_after_s)
    assert row is not None
    parked: Counter[str] = Counter()
    for (queue, _, _), count in (await jobs.count_parked(connection)).items():
        parked[queue] += count
    return {**row, "parked": parked[SHIPMENTS], "unplanned": parked[FULFILMENTS]}


async def count_open_shipments(connection: Connection) -> dict[tuple[str, str], int]:
    """Count shipments that have not ended, by (carrier, status)."""
    rows = await connection.fetch(queries.count_open_shipments)
    return {(row["carrier"], row["status"]): row["shipments"] for row in rows}


async def measure_fulfilment_times(connection: Connection, now: datetime) -> dict[str, list[float]]:
    """Measure the seconds from paid to `handed_over` and to `delivered` over the last day.

    Values are the percentiles 50, 90 and 99.
    """
    row = await connection.fetchrow(queries.measure_fulfilment_times, now)
    assert row is not None
    return {name: list(values) for name, values in row.items() if values is not None}


async def list_unplanned_orders(connection: Connection, count: int) -> list[UnplannedOrder]:
    """List up to `count` parked orders, earliest paid first."""
    return [UnplannedOrder(**row) for row in await connection.fetch(queries.list_unplanned_orders, count)]


# Work of staff.


async def mark_packed(connection: Connection, shipment_id: UUID, now: datetime, actor: str) -> None:
    """Record when and by whom a shipment was packed."""
    await connection.execute(queries.mark_packed, shipment_id, now, actor)


async def set_hold(connection: Connection, shipment_id: UUID, reason: str | None) -> None:
    """Hold a shipment with a reason, or resume it without one."""
    await connection.execute(queries.set_hold, shipment_id, reason)


async def mark_resolved(connection: Connection, shipment_id: UUID, now: datetime, resolution: str) -> None:
    """Record that staff have dealt with what went wrong with a shipment, whatever becomes of its units."""
    await connection.execute(queries.mark_resolved, shipment_id, now, resolution)


async def set_appointment(
    connection: Connection,
    shipment_id: UUID,
    window: tuple[time | None, time | None],
    coordinates: tuple[float | None, float | None],
) -> None:
    """Set the delivery window in the shop's time, and (latitude, longitude) in degrees."""
    await connection.execute(queries.set_appointment, shipment_id, *window, *coordinates)


async def is_reshipped(connection: Connection, shipment_id: UUID) -> bool:
    """Tell whether another shipment replaces this one."""
    is_replaced: bool = await connection.fetchval(queries.is_reshipped, shipment_id)
    return is_replaced


async def list_line_details(connection: Connection, shipment_id: UUID) -> list[ShipmentLineDetails]:
    """List the lines of a shipment, with price and measures of a unit."""
    return [ShipmentLineDetails(**row) for row in await connection.fetch(queries.list_line_details, shipment_id)]


async def count_shipments(connection: Connection, order_id: UUID) -> int:
    """Count the shipments of an order that are not cancelled."""
    count: int = await connection.fetchval(queries.count_shipments, order_id)
    return count


async def list_packing_lines(connection: Connection, shipment_id: UUID) -> list[tuple[str, str, int]]:
    """List (sku, name, units) of a shipment."""
    rows = await connection.fetch(queries.list_packing_lines, shipment_id)
    return [(row["sku"], row["name"], row["quantity"]) for row in rows]


async def has_warehouse(connection: Connection, warehouse_id: str) -> bool:
    """Tell whether a warehouse exists."""
    exists: bool = await connection.fetchval(queries.has_warehouse, warehouse_id)
    return exists


async def create_wave(
    connection: Connection, wave_id: UUID, warehouse_id: str, now: datetime, actor: str, max_shipments: int
) -> list[UUID]:
    """Create a wave of shipments to pack, oldest first, and return their ids."""
    await connection.execute(queries.insert_wave, wave_id, warehouse_id, now, actor)
    rows = await connection.fetch(queries.fill_wave, wave_id, warehouse_id, max_shipments)
    return [row["shipment_id"] for row in rows]


async def get_wave(connection: Connection, wave_id: UUID) -> Wave | None:
    """Read a wave with its picks by shelf."""
    row = await connection.fetchrow(queries.get_wave, wave_id)
    if row is None:
        return None
    shipment_ids = [line["shipment_id"] for line in await connection.fetch(queries.list_wave_shipments, wave_id)]
    picks = await _list_picks(connection, wave_id, shipment_ids)
    return Wave(row["wave_id"], row["warehouse_id"], row["created_at"], shipment_ids, picks)


async def _list_picks(connection: Connection, wave_id: UUID, shipment_ids: Sequence[UUID]) -> list[Pick]:
    number_of = {shipment_id: number for number, shipment_id in enumerate(shipment_ids, 1)}
    picks: dict[tuple[str, str, str], dict[int, int]] = {}
    for row in await connection.fetch(queries.list_picks, wave_id):
        units_of = picks.setdefault((row["shelf"], row["sku"], row["name"]), {})
        units_of[number_of[row["shipment_id"]]] = row["quantity"]
    return [Pick(*pick, sum(units_of.values()), units_of) for pick, units_of in picks.items()]
