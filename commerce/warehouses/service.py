"""Importing and showing warehouses and goods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from commerce.kernel.csv_rows import ImportReport, LineError
from commerce.kernel.postgres import Connection, Database
from commerce.warehouses import store
from commerce.warehouses.errors import NoProductLogistics
from commerce.warehouses.model import ProductLogistics, Warehouse, WarehouseSummary
from commerce.warehouses.warehouse_csv import read_goods, read_warehouses

_CHUNK = 500
_WAREHOUSES = 1000


class Warehouses:
    """Warehouses and goods over Postgres."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def import_csv(self, lines: Iterable[str]) -> ImportReport:
        """Import a CSV file of goods, if its header has a column `sku`, or else of warehouses.

        A wrong line is refused with its number and reason and the rest goes in. Raises `UnreadableFile` if the header
        is wrong.
        """
        lines = iter(lines)
        header = next(lines, "")
        read = read_goods if "sku" in header.lower() else read_warehouses
        rows = read(chain([header], lines))
        report = ImportReport()
        while part := list(islice(rows, _CHUNK)):
            async with self._db.transaction() as connection:
                refused = [row for _, row in part if isinstance(row, LineError)]
                refused += await _homeless(
                    connection, [(n, row) for n, row in part if isinstance(row, ProductLogistics)]
                )
                wrong = {line.line for line in refused}
                good = [row for line, row in part if line not in wrong]
                added, changed = await _write(connection, good)
            report.errors += sorted(refused, key=lambda line: line.line)
            report.added += added
            report.changed += changed
            report.unchanged += len(good) - added - changed
        return report

    async def show(self) -> list[WarehouseSummary]:
        """Warehouses by id, with how many products lie there."""
        async with self._db.connection() as connection:
            return await store.stocked(connection, _WAREHOUSES)

    async def goods(self, sku: str) -> ProductLogistics:
        """Where a product lies and what it weighs. Raises `NoGoods`."""
        async with self._db.connection() as connection:
            found = await store.goods_of(connection, [sku])
        if sku not in found:
            raise NoProductLogistics(f"no goods have the SKU {sku!r}: floodgate warehouse import GOODS.csv")
        return found[sku]


async def _homeless(connection: Connection, goods: Sequence[tuple[int, ProductLogistics]]) -> list[LineError]:
    """The lines whose product or warehouse does not exist."""
    unknown = await store.unknown_skus(connection, [one.sku for _, one in goods])
    known = await store.warehouses_of(connection, {one.warehouse_id for _, one in goods})
    refused = []
    for line, one in goods:
        if one.sku in unknown:
            refused.append(LineError(line, f"no product has the SKU {one.sku}: import the catalogue first"))
        elif one.warehouse_id not in known:
            refused.append(LineError(line, f"there is no warehouse {one.warehouse_id}: import the warehouses first"))
    return refused


async def _write(connection: Connection, rows: Sequence[ProductLogistics | Warehouse | LineError]) -> tuple[int, int]:
    """All rows are of one kind."""
    goods = [row for row in rows if isinstance(row, ProductLogistics)]
    if goods:
        return await store.upsert_goods(connection, goods)
    return await store.upsert_warehouses(connection, [row for row in rows if isinstance(row, Warehouse)])
