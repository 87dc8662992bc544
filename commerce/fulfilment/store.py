"""What the desk reads and writes of parcels, besides what shipping does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time
from uuid import UUID

import msgspec

from commerce.fulfilment.model import FulfilmentJob, LineToPlan, ShipmentLineDetails
from commerce.kernel.address import Address
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.rates.model import CarrierChoice
from commerce.shipping.model import Pick, Shipment, Task, UnplannedOrder, Wave, WorklistName
from commerce.shipping.store import read_shipment

queries = load_queries(__package__)


async def claim_fulfilments(connection: Connection, now: datetime, lease_s: int, count: int) -> list[FulfilmentJob]:
    return [FulfilmentJob(**row) for row in await connection.fetch(queries.claim_fulfilments, now, lease_s, count)]


async def get_fulfilment(connection: Connection, order_id: UUID) -> FulfilmentJob | None:
    row = await connection.fetchrow(queries.get_fulfilment, order_id)
    return FulfilmentJob(row["order_id"], row["status"], row["paid_at"], row["attempts"]) if row else None


async def postpone_fulfilment(
    connection: Connection, order_id: UUID, due_at: datetime | None, why: str, *, park: bool
) -> None:
    await connection.execute(queries.postpone_fulfilment, order_id, due_at, why[:500], park)


async def mark_fulfilment_planned(connection: Connection, order_id: UUID, now: datetime, promised_on: date) -> None:
    await connection.execute(queries.mark_fulfilment_planned, order_id, now, promised_on)


async def mark_fulfilment_checked(connection: Connection, order_id: UUID) -> None:
    """Whether a planned order must be stopped was seen; it is looked at again when more of its money goes back."""
    await connection.execute(queries.mark_fulfilment_checked, order_id)


async def mark_fulfilment_done(connection: Connection, order_id: UUID) -> None:
    await connection.execute(queries.mark_fulfilment_done, order_id)


async def get_ship_to(connection: Connection, order_id: UUID) -> list[Address]:
    return msgspec.json.decode(await connection.fetchval(queries.get_ship_to, order_id), type=list[Address])


async def list_lines_to_plan(connection: Connection, order_id: UUID) -> list[LineToPlan]:
    return [LineToPlan(**row) for row in await connection.fetch(queries.list_lines_to_plan, order_id)]


async def insert_fulfilment_lines(connection: Connection, order_id: UUID) -> None:
    await connection.execute(queries.insert_fulfilment_lines, order_id)


async def assign_carrier(
    connection: Connection, shipment_id: UUID, choice: CarrierChoice, task: Task | None, now: datetime
) -> None:
    """Who is to bring it, with the reasons."""
    text = msgspec.json.encode(choice).decode()
    values = (choice.carrier, text, choice.price, choice.expected_on, task, now, False, None)
    await connection.execute(queries.assign_carrier, shipment_id, *values)


async def park_without_carrier(
    connection: Connection, shipment_id: UUID, choice: CarrierChoice | None, now: datetime, why: str
) -> None:
    """Nobody takes it as things are: it is parked."""
    text = msgspec.json.encode(choice).decode() if choice else None
    await connection.execute(queries.assign_carrier, shipment_id, None, text, None, None, "book", now, True, why[:500])


async def listed(
    connection: Connection,
    which: WorklistName,
    warehouse_id: str | None,
    after: UUID,
    count: int,
    now: datetime,
    today: date,
    stuck_s: float,
    silent_s: float,
) -> list[tuple[Shipment, str | None]]:
    """Parcels of a list with why they are on it, oldest first."""
    values = (which, warehouse_id, after, count, now, today, stuck_s, silent_s)
    return [(read_shipment(row), row["reason"]) for row in await connection.fetch(queries.listed, *values)]


async def counts(
    connection: Connection, now: datetime, today: date, stuck_s: float, silent_s: float
) -> dict[str, float]:
    """How many there are on each list, and for how long the oldest jobs have been due."""
    row = await connection.fetchrow(queries.counts, now, today, stuck_s, silent_s)
    assert row is not None
    return dict(row.items())


async def by_carrier(connection: Connection) -> dict[tuple[str, str], int]:
    """How many parcels that are not over a carrier has, by where they are."""
    return {(row["carrier"], row["status"]): row["parcels"] for row in await connection.fetch(queries.by_carrier)}


async def times(connection: Connection, now: datetime) -> dict[str, list[float]]:
    """Seconds from paid to `handed_over` and to `delivered` in the last day: of 50, 90 and 99 in a hundred orders."""
    row = await connection.fetchrow(queries.times, now)
    assert row is not None
    return {name: list(values) for name, values in row.items() if values is not None}


async def unplanned(connection: Connection, most: int) -> list[UnplannedOrder]:
    return [UnplannedOrder(**row) for row in await connection.fetch(queries.unplanned, most)]


async def retry_order(connection: Connection, order_id: UUID, now: datetime) -> bool:
    done: str = await connection.execute(queries.retry_order, order_id, now)
    return not done.endswith(" 0")


async def pack(connection: Connection, shipment_id: UUID, now: datetime, actor: str) -> None:
    await connection.execute(queries.pack, shipment_id, now, actor)


async def hold(connection: Connection, shipment_id: UUID, reason: str | None, now: datetime) -> None:
    """With a reason it waits; without one it goes on."""
    await connection.execute(queries.hold, shipment_id, reason, now)


async def settle(connection: Connection, shipment_id: UUID, now: datetime, note: str) -> None:
    await connection.execute(queries.settle, shipment_id, now, note)


async def appoint(
    connection: Connection,
    shipment_id: UUID,
    window: tuple[time | None, time | None],
    where: tuple[float | None, float | None],
) -> None:
    await connection.execute(queries.appoint, shipment_id, *window, *where)


async def is_replaced(connection: Connection, shipment_id: UUID) -> bool:
    found: bool = await connection.fetchval(queries.is_replaced, shipment_id)
    return found


async def goods_of(connection: Connection, shipment_id: UUID) -> list[ShipmentLineDetails]:
    return [ShipmentLineDetails(**row) for row in await connection.fetch(queries.goods_of, shipment_id)]


async def parcels_of_order(connection: Connection, order_id: UUID) -> int:
    found: int = await connection.fetchval(queries.parcels_of_order, order_id)
    return found


async def packing_lines(connection: Connection, shipment_id: UUID) -> list[tuple[str, str, int]]:
    """(sku, name, units) of what a parcel holds."""
    rows = await connection.fetch(queries.packing_lines, shipment_id)
    return [(row["sku"], row["name"], row["quantity"]) for row in rows]


async def warehouse_exists(connection: Connection, warehouse_id: str) -> bool:
    found: bool = await connection.fetchval(queries.warehouse_exists, warehouse_id)
    return found


async def make_wave(
    connection: Connection, wave_id: UUID, warehouse_id: str, now: datetime, actor: str, most: int
) -> list[UUID]:
    """Gather parcels that are to be packed; which they are."""
    await connection.execute(queries.add_wave, wave_id, warehouse_id, now, actor)
    return [row["shipment_id"] for row in await connection.fetch(queries.fill_wave, wave_id, warehouse_id, most)]


async def wave(connection: Connection, wave_id: UUID) -> Wave | None:
    """A wave with its picks in the order of the shelves."""
    row = await connection.fetchrow(queries.wave, wave_id)
    if row is None:
        return None
    ids = [found["shipment_id"] for found in await connection.fetch(queries.wave_shipments, wave_id)]
    return Wave(row["wave_id"], row["warehouse_id"], row["created_at"], ids, await _picks(connection, wave_id, ids))


async def _picks(connection: Connection, wave_id: UUID, ids: Sequence[UUID]) -> list[Pick]:
    number = {id_: no for no, id_ in enumerate(ids, 1)}
    parts: dict[tuple[str, str, str], dict[int, int]] = {}
    for row in await connection.fetch(queries.picks, wave_id):
        parcels = parts.setdefault((row["shelf"], row["sku"], row["name"]), {})
        parcels[number[row["shipment_id"]]] = row["quantity"]
    return [Pick(*pick, sum(parcels.values()), parcels) for pick, parcels in parts.items()]
