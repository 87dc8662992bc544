"""Notes of what is to be counted, and the sums by minute and by day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.sales_figures.model import CountedEvent, EventKind, FigureSum, ReasonFigures, Visit

queries = load_queries(__package__)
_LONG_TIMEOUT_S = 3_600.0
_WITH_NUMBERS: Mapping[str, str] = {
    "status": queries.list_statuses,
    "delivery": queries.list_deliveries,
    "case": queries.list_cases,
}
_WITHOUT_NUMBERS: Mapping[str, str] = {
    "order": queries.list_orders,
    "cancellation": queries.list_cancellations,
    "receipt": queries.list_receipts,
    "grant": queries.list_grants,
}


class VisitCount(NamedTuple):
    """Views, cart lines or refused orders of a minute."""

    minute: datetime
    figure: str
    sale_id: str
    sku: str
    times: int


class Added(NamedTuple):
    """Something to add to a sum by minute or by day."""

    sale_id: str
    sku: str
    at: date
    figure: str
    reason: str
    events: int
    units: int
    amount: int


# Notes.


async def try_lock(connection: Connection) -> bool:
    """Take the right to change the sums until the transaction ends.

    Returns False if another process has it."""
    return bool(await connection.fetchval(queries.try_lock))


async def take_events(connection: Connection, count: int) -> list[tuple[EventKind, list[tuple[UUID, int]]]]:
    """Delete the oldest notes, up to about `count` events.

    Returns the kind of each note, and its events as ids and numbers."""
    rows = await connection.fetch(queries.take_batches, count)
    return [(row["kind"], list(zip(row["ids"], row["numbers"], strict=True))) for row in rows]


async def read_events(
    connection: Connection, kind: EventKind, events: Sequence[tuple[UUID, int]]
) -> list[CountedEvent]:
    """Read what events of a kind add: a row for each SKU, and one for the whole sale."""
    ids, numbers = [id_ for id_, _ in events], [number for _, number in events]
    if kind in _WITH_NUMBERS:
        rows = await connection.fetch(_WITH_NUMBERS[kind], ids, numbers)
    else:
        rows = await connection.fetch(_WITHOUT_NUMBERS[kind], ids)
    *columns, _, _ = CountedEvent._fields
    return [
        CountedEvent(units=int(row["units"]), amount=int(row["amount_minor"]), **{name: row[name] for name in columns})
        for row in rows
    ]


async def take_visits(connection: Connection, count: int) -> list[VisitCount]:
    """Delete the oldest notes of gateways and return what they counted."""
    visits: list[VisitCount] = []
    for row in await connection.fetch(queries.take_visits, count):
        columns = zip(row["figures"], row["sale_ids"], row["skus"], row["counts"], strict=True)
        visits += (VisitCount(row["minute"], *values) for values in columns)
    return visits


async def insert_visits(connection: Connection, minute: datetime, counts: Mapping[tuple[Visit, str, str], int]) -> None:
    """Store what a gateway counted, by figure, sale and SKU."""
    figures, sale_ids, skus = map(list, zip(*counts, strict=True))
    await connection.execute(queries.insert_visits, minute, figures, sale_ids, skus, list(counts.values()))


async def oldest_note(connection: Connection) -> datetime | None:
    """Return when the oldest event that is not counted yet was noted."""
    noted_at: datetime | None = await connection.fetchval(queries.oldest_note)
    return noted_at


# Sums.


async def add_minutes(connection: Connection, added: Iterable[Added]) -> None:
    await connection.execute(queries.add_minutes, *map(list, zip(*sorted(added), strict=True)))


async def add_days(connection: Connection, added: Iterable[Added]) -> None:
    await connection.execute(queries.add_days, *map(list, zip(*sorted(added), strict=True)))


async def delete_sums(
    connection: Connection, sale_id: str, days: tuple[date, date], moments: tuple[datetime, datetime]
) -> None:
    """Delete what is counted from rows of a sale, of some days; what gateways have counted stays."""
    await connection.execute(queries.allow_long_statements)
    await connection.execute(queries.delete_minutes, sale_id, *moments, timeout=_LONG_TIMEOUT_S)
    await connection.execute(queries.delete_days, sale_id, *days, timeout=_LONG_TIMEOUT_S)


async def iterate_orders(connection: Connection, sale_id: str, count: int) -> AsyncIterator[list[UUID]]:
    """Yield the orders of a sale, at most `count` at a time. Call inside a transaction."""
    cursor = await connection.cursor(queries.list_orders_of_sale, sale_id)
    while rows := await cursor.fetch(count):
        yield [row["order_id"] for row in rows]


async def note_again(connection: Connection, order_ids: Sequence[UUID], moments: tuple[datetime, datetime]) -> None:
    """Note all events of orders within a time."""
    await connection.execute(queries.note_again, order_ids, *moments)


# Reports.


async def list_sale_ids(connection: Connection) -> list[str]:
    return [row["sale_id"] for row in await connection.fetch(queries.list_sale_ids)]


async def sum_days(
    connection: Connection, sale_ids: Sequence[str], sku: str, days: tuple[date, date]
) -> list[FigureSum]:
    """Sum up each day. A SKU of "" stands for whole sales."""
    return [FigureSum(*row) for row in await connection.fetch(queries.sum_days, sale_ids, sku, *days)]


async def sum_minutes(
    connection: Connection, sale_ids: Sequence[str], sku: str, moments: tuple[datetime, datetime]
) -> list[FigureSum]:
    """Sum up each minute, as `sum_days`."""
    return [FigureSum(*row) for row in await connection.fetch(queries.sum_minutes, sale_ids, sku, *moments)]


async def sum_skus(
    connection: Connection, sale_ids: Sequence[str], days: tuple[date, date], count: int
) -> list[FigureSum]:
    """Sum up each SKU over all days, at most `count` sums."""
    return [FigureSum(*row) for row in await connection.fetch(queries.sum_skus, sale_ids, *days, count)]


async def sum_reasons(
    connection: Connection, sale_ids: Sequence[str], sku: str | None, days: tuple[date, date], count: int
) -> list[ReasonFigures]:
    """Sum up what has a reason, most units first: of one SKU, or of whole sales and then of each SKU."""
    rows: Sequence[Any] = await connection.fetch(queries.sum_reasons, sale_ids, *days, sku, count)
    return [ReasonFigures(amount=row["amount_minor"], **{name: row[name] for name in _REASON_COLUMNS}) for row in rows]


_REASON_COLUMNS = ("figure", "reason", "sku", "currency", "events", "units")


async def list_supplies(connection: Connection, sale_id: str, sku: str | None, count: int) -> dict[str, int]:
    """Return the units that a sale has had of each SKU or of one, at its start and added since."""
    rows = await connection.fetch(queries.list_supplies, sale_id, sku, count)
    return {row["sku"]: row["units"] for row in rows}
