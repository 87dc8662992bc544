"""Imports and reads warehouses and product logistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines, read_columns
from commerce.kernel.postgres import Connection, Database
from commerce.warehouses import store
from commerce.warehouses.errors import NoProductLogistics
from commerce.warehouses.model import ProductLogistics, Warehouse, WarehouseSummary
from commerce.warehouses.warehouse_csv import read_product_logistics, read_warehouses

_ROWS_PER_TRANSACTION = 500
_MAX_WAREHOUSES = 1000


class Warehouses:
    """Warehouses and product logistics over Postgres."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def import_csv(self, lines: Iterable[str]) -> ImportReport:
        """Import a CSV file of product logistics, if its header has a column `sku`, otherwise of warehouses.

        Wrong lines are reported, all others are imported; a repeat changes nothing. Raises `UnreadableCsv` if the
        header is wrong.
        """
        lines = list(lines)
        rows = (read_product_logistics if "sku" in read_columns(lines) else read_warehouses)(lines)
        report = ImportReport(blank=count_blank_lines(lines))
        with account_for_lines(report, lines):
            while chunk := list(islice(rows, _ROWS_PER_TRANSACTION)):
                async with self._db.transaction() as connection:
                    errors = [row for _, row in chunk if isinstance(row, LineError)]
                    products = [(line, row) for line, row in chunk if isinstance(row, ProductLogistics)]
                    errors += await _reference_errors(connection, products)
                    wrong_lines = {error.line for error in errors}
                    valid = [row for line, row in chunk if line not in wrong_lines]
                    added, changed = await _upsert(connection, valid)
                report.errors += sorted(errors, key=lambda error: error.line)
                report.added += added
                report.changed += changed
                report.unchanged += len(valid) - added - changed
        return report

    async def list_warehouses(self) -> list[WarehouseSummary]:
        """List warehouses by id, with the number of products of each."""
        async with self._db.connection() as connection:
            return await store.list_warehouses(connection, _MAX_WAREHOUSES)

    async def get_product_logistics(self, sku: str) -> ProductLogistics:
        """Read location, weight and size of a product. Raises `NoProductLogistics`."""
        async with self._db.connection() as connection:
            products = await store.product_logistics_of(connection, [sku])
        if sku not in products:
            raise NoProductLogistics(f"there are no logistics of the SKU {sku!r}; run floodgate warehouse import FILE")
        return products[sku]


async def _reference_errors(
    connection: Connection, products: Sequence[tuple[int, ProductLogistics]]
) -> list[LineError]:
    """Return errors of lines whose product or warehouse does not exist."""
    unknown_skus = await store.unknown_skus(connection, [product.sku for _, product in products])
    warehouses = await store.warehouses_of(connection, {product.warehouse_id for _, product in products})
    errors = []
    for line, product in products:
        if product.sku in unknown_skus:
            errors.append(LineError(line, f"no product has the SKU {product.sku}; import the catalog first"))
        elif product.warehouse_id not in warehouses:
            errors.append(LineError(line, f"there is no warehouse {product.warehouse_id}; import the warehouses first"))
    return errors


async def _upsert(connection: Connection, rows: Sequence[ProductLogistics | Warehouse | LineError]) -> tuple[int, int]:
    """Write rows, all of one kind. Returns how many were added and how many changed."""
    products = [row for row in rows if isinstance(row, ProductLogistics)]
    if products:
        return await store.upsert_product_logistics(connection, products)
    return await store.upsert_warehouses(connection, [row for row in rows if isinstance(row, Warehouse)])
