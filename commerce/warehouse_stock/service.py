"""Records movements of stock, imports counts, and reads stock and allotments."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import islice
from uuid import UUID

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines
from commerce.kernel.errors import Invalid, KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.warehouse_stock import store
from commerce.warehouse_stock.errors import NoSuchStock, NotEnoughStock
from commerce.warehouse_stock.model import (
    MAX_STOCK_UNITS,
    CountedStock,
    CountInput,
    ItemAllotment,
    MovementInput,
    StockLevel,
    StockTransferInput,
    WarehouseMovement,
)
from commerce.warehouse_stock.stock_csv import read_counts
from commerce.warehouse_stock.store import NewMovement, StockKey

_ROWS_PER_TRANSACTION = 500
_LAST_MOVEMENT = (1 << 63) - 1


class WarehouseStock:
    """The stock of warehouses over Postgres.

    A SKU is kept in warehouses from its first movement on. A movement with an id is recorded once: a repeat returns the
    first one, and raises `KeyReused` if it was another.
    """

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    async def record(
        self, sku: str, warehouse_id: str, movement: MovementInput, actor: str, movement_id: UUID | None = None
    ) -> WarehouseMovement:
        """Record units that came in or went. Raises `NoSuchStock`, `NotEnoughStock` or `KeyReused`."""
        delta = -movement.units if movement.kind == "damaged" else movement.units
        key = sku, warehouse_id
        new = NewMovement(
            *(*key, movement.kind, delta, movement_id or self._ids.new(), movement.reference, movement.reason),
            *(actor, self._now()),
        )
        async with self._db.transaction() as connection:
            level = await _lock(connection, key, is_new=delta > 0)
            return await _move_once(connection, level, new)

    async def count(
        self, sku: str, warehouse_id: str, count: CountInput, actor: str, movement_id: UUID | None = None
    ) -> WarehouseMovement:
        """Set the units on hand to those that were counted; the difference is the movement.

        Raises as `record`."""
        key = sku, warehouse_id
        async with self._db.transaction() as connection:
            level = await _lock(connection, key, is_new=True)
            id_ = movement_id or self._ids.new()
            if (before := await store.find_movement(connection, id_, key)) is not None:
                return _require_same(before, before.kind == "counted" and before.on_hand == count.units)
            return await _move_once(connection, level, self._new_count(key, level, count, actor, id_))

    def _new_count(
        self, key: StockKey, level: StockLevel, count: CountInput, actor: str, movement_id: UUID
    ) -> NewMovement:
        delta = count.units - level.on_hand
        return NewMovement(*key, "counted", delta, movement_id, count.reference, count.reason, actor, self._now())

    async def transfer(
        self, sku: str, warehouse_id: str, transfer: StockTransferInput, actor: str, movement_id: UUID | None = None
    ) -> list[WarehouseMovement]:
        """Move units to another warehouse. Returns the movements out of the one and into the other.

        Raises as `record`, and `Invalid` if both warehouses are the same."""
        if transfer.to_warehouse == warehouse_id:
            detail = "is the warehouse that they are in"
            raise Invalid(f"to_warehouse {detail}", errors=[{"pointer": "/to_warehouse", "detail": detail}])
        keys = [(sku, warehouse_id), (sku, transfer.to_warehouse)]
        id_, now = movement_id or self._ids.new(), self._now()
        async with self._db.transaction() as connection:
            levels = await store.lock_levels(connection, keys, new=keys[1:])
            moved = []
            for key, delta in zip(keys, (-transfer.units, transfer.units), strict=True):
                if key not in levels:
                    raise _no_stock(key)
                movement = NewMovement(*key, "moved", delta, id_, transfer.reference, transfer.reason, actor, now)
                moved.append(await _move_once(connection, levels[key], movement))
        return moved

    async def set_warning(self, sku: str, warehouse_id: str, warn_below: int | None) -> StockLevel:
        """Set the units below which a stock is low, None for no warning. Raises `NoSuchStock`."""
        key = sku, warehouse_id
        async with self._db.transaction() as connection:
            await _lock(connection, key)
            await store.set_warning(connection, key, warn_below)
            return await _lock(connection, key)

    async def import_counts(self, lines: Iterable[str], reason: str, actor: str) -> ImportReport:
        """Import counts from CSV (columns: `commerce.warehouse_stock.stock_csv`).

        Wrong lines are reported, all others are recorded; a line that agrees with the stock changes nothing. Raises
        `UnreadableCsv` if the header is wrong.
        """
        lines = list(lines)
        rows = read_counts(lines)
        report = ImportReport(blank=count_blank_lines(lines))
        with account_for_lines(report, lines):
            while chunk := list(islice(rows, _ROWS_PER_TRANSACTION)):
                async with self._db.transaction() as connection:
                    part = await self._count_lines(connection, chunk, reason, actor)
                report.added += part.added
                report.changed += part.changed
                report.unchanged += part.unchanged
                report.errors += sorted(part.errors, key=lambda error: error.line)
        return report

    async def _count_lines(
        self, connection: Connection, chunk: list[tuple[int, CountedStock | LineError]], reason: str, actor: str
    ) -> ImportReport:
        report = ImportReport(errors=[row for _, row in chunk if isinstance(row, LineError)])
        counted = [(line, row) for line, row in chunk if isinstance(row, CountedStock)]
        keys = [(row.sku, row.warehouse_id) for _, row in counted]
        before = await store.lock_levels(connection, keys)
        levels = await store.lock_levels(connection, keys, new=keys)
        for line, row in counted:
            key = row.sku, row.warehouse_id
            if (level := levels.get(key)) is None:
                report.errors.append(LineError(line, str(_no_stock(key))))
                continue
            count = CountInput(row.units, reason)
            try:
                if level.on_hand != row.units or key not in before:
                    await _move_once(connection, level, self._new_count(key, level, count, actor, self._ids.new()))
            except NotEnoughStock as error:
                report.errors.append(LineError(line, str(error)))
                continue
            is_warning_new = await store.set_warning(connection, key, row.warn_below)
            report.added += key not in before
            report.changed += key in before and (level.on_hand != row.units or is_warning_new)
            report.unchanged += key in before and level.on_hand == row.units and not is_warning_new
        return report

    async def list_levels(
        self, after: str | None, size: int, sku: str | None = None, warehouse: str | None = None, *, low: bool = False
    ) -> Page[StockLevel]:
        """List stocks by SKU and warehouse; `after` is `SKU/WAREHOUSE`.

        With `low` only those below their warning."""
        after_sku, _, after_warehouse = (after or "").partition("/")
        async with self._db.connection() as connection:
            levels = await store.list_levels(
                connection, (after_sku, after_warehouse), sku, warehouse, size + 1, low=low
            )
        return to_page(levels, size, lambda level: f"{level.sku}/{level.warehouse_id}")

    async def list_movements(
        self, sku: str, warehouse_id: str | None, before: int | None, size: int
    ) -> Page[WarehouseMovement]:
        """List movements of a SKU, newest first. Raises `NoSuchStock` if no warehouse keeps it."""
        async with self._db.connection() as connection:
            if not await store.is_kept(connection, sku):
                raise NoSuchStock(f"no warehouse keeps {sku}; record what was received, or import a count")
            movements = await store.list_movements(connection, sku, warehouse_id, before or _LAST_MOVEMENT, size + 1)
        return to_page(movements, size, lambda movement: str(movement.movement_no))

    async def list_allotments(self, sale_id: str, after: str | None, size: int) -> Page[ItemAllotment]:
        """List the items of a sale whose units are allotted from warehouses, by SKU."""
        async with self._db.connection() as connection:
            items = await store.list_allotments(connection, sale_id, after or "", size + 1)
        return to_page(items, size, lambda item: item.sku)

    async def count_low(self) -> int:
        """Count the stocks below their warning."""
        async with self._db.connection() as connection:
            return await store.count_low(connection)


async def _lock(connection: Connection, key: StockKey, *, is_new: bool = False) -> StockLevel:
    level = (await store.lock_levels(connection, [key], new=[key] if is_new else [])).get(key)
    if level is None:
        raise _no_stock(key)
    return level


def _no_stock(key: StockKey) -> NoSuchStock:
    sku, warehouse_id = key
    return NoSuchStock(
        f"the warehouse {warehouse_id} does not keep {sku}, or one of the two does not exist; import products and "
        "warehouses first, then record what was received or counted"
    )


async def _move_once(connection: Connection, level: StockLevel, movement: NewMovement) -> WarehouseMovement:
    """Record a movement of a locked stock, unless its id was recorded."""
    key = level.sku, level.warehouse_id
    before = await store.find_movement(connection, movement.movement_id, key)
    if before is not None:
        return _require_same(before, (before.kind, before.on_hand_delta) == (movement.kind, movement.delta))
    on_hand = level.on_hand + movement.delta
    if on_hand < level.allotted:
        raise NotEnoughStock(
            f"cannot record {movement.kind}: {level.warehouse_id} has {level.on_hand} units of {level.sku}, and "
            f"{level.allotted} of them are allotted to sales; take units away from those first"
        )
    if on_hand > MAX_STOCK_UNITS:
        raise Invalid(f"a warehouse keeps at most {MAX_STOCK_UNITS} units of a SKU")
    await store.move(connection, movement)
    recorded = await store.find_movement(connection, movement.movement_id, key)
    assert recorded is not None
    return recorded


def _require_same(before: WarehouseMovement, is_same: bool) -> WarehouseMovement:
    if not is_same:
        raise KeyReused(f"the id {before.movement_id} was used for another movement: use a new one")
    return before
