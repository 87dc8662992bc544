"""Reads and changes the products of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from commerce.catalog import store
from commerce.catalog.errors import NoSuchProduct
from commerce.catalog.model import Product, ProductInput, VersionedProduct
from commerce.catalog.product_csv import read_products
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

_ROWS_PER_STATEMENT = 500


class Catalog:
    """The products of the catalog, over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def get(self, sku: str) -> Product:
        """Read a product. Raises `NoSuchProduct`."""
        async with self._db.connection() as connection:
            product = await store.get(connection, sku)
        if product is None:
            raise NoSuchProduct(f"no product has the SKU {sku!r}")
        return product

    async def refresh(self, previous: Mapping[str, VersionedProduct | None]) -> dict[str, VersionedProduct]:
        """Return the products with these SKUs as they are now; unknown SKUs are left out.

        `previous` has what the caller read before, None if nothing: only products that have changed since are sent.
        """
        versions = {sku: None if product is None else product.version for sku, product in previous.items()}
        async with self._db.connection() as connection:
            changed = await store.read_changed(connection, versions)
        products = {**previous, **changed}
        return {sku: product for sku, product in products.items() if product is not None}

    async def list_products(self, after: str | None, size: int) -> Page[Product]:
        """List products ordered by SKU."""
        async with self._db.connection() as connection:
            products = await store.list_after(connection, after or "", size + 1)
        return to_page(products, size, lambda product: product.sku)

    async def put(self, sku: str, product: ProductInput) -> Product:
        """Create or change a product. Raises `Invalid` if its currency is unknown."""
        _check_currency(product)
        async with self._db.connection() as connection:
            await store.upsert(connection, [(sku, product)], from_ms(self._clock.now_ms()))
        return await self.get(sku)

    async def put_many(self, products: Sequence[tuple[str, ProductInput]]) -> ImportReport:
        """Create or change products in one transaction. Each SKU may occur once."""
        for _, product in products:
            _check_currency(product)
        async with self._db.transaction() as connection:
            added, changed = await store.upsert(connection, products, from_ms(self._clock.now_ms()))
        return ImportReport(added, changed, len(products) - added - changed)

    async def import_csv(
        self, lines: Iterable[str], progress: Callable[[int], None] = lambda line: None
    ) -> ImportReport:
        """Import a CSV file with the columns sku, name, price, currency.

        A wrong line is reported with its number and reason; all other lines are imported. `progress` is called with
        the number of the last line that was read. Raises `UnreadableCsv` if the header is wrong.
        """
        lines = list(lines)
        report = ImportReport(blank=count_blank_lines(lines))
        rows = read_products(lines)
        with account_for_lines(report, lines):
            while part := list(islice(rows, _ROWS_PER_STATEMENT)):
                if products := [(row[0], row[1]) for _, row in part if not isinstance(row, LineError)]:
                    part_report = await self.put_many(products)
                    report.added += part_report.added
                    report.changed += part_report.changed
                    report.unchanged += part_report.unchanged
                report.errors += [row for _, row in part if isinstance(row, LineError)]
                progress(part[-1][0])
        return report


def _check_currency(product: ProductInput) -> None:
    try:
        minor_digits(product.currency)
    except MoneyError as error:
        raise Invalid(str(error)) from None
