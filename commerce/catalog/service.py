"""Reads and changes the variants of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from commerce.catalog import store
from commerce.catalog.errors import NoSuchVariant
from commerce.catalog.model import Variant, VariantInput, VersionedVariant
from commerce.catalog.variant_csv import read_variants
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

_ROWS_PER_STATEMENT = 500


class Catalog:
    """The variants of the catalog, over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def get(self, sku: str) -> Variant:
        """Read a variant. Raises `NoSuchVariant`."""
        async with self._db.connection() as connection:
            variant = await store.get(connection, sku)
        if variant is None:
            raise NoSuchVariant(f"no variant has the SKU {sku!r}")
        return variant

    async def refresh(self, previous: Mapping[str, VersionedVariant | None]) -> dict[str, VersionedVariant]:
        """Return the variants with these SKUs as they are now; unknown SKUs are left out.

        `previous` has what the caller read before, None if nothing: only variants that have changed since are sent.
        """
        versions = {sku: None if variant is None else variant.version for sku, variant in previous.items()}
        async with self._db.connection() as connection:
            changed = await store.read_changed(connection, versions)
        variants = {**previous, **changed}
        return {sku: variant for sku, variant in variants.items() if variant is not None}

    async def list_variants(self, after: str | None, size: int) -> Page[Variant]:
        """List variants ordered by SKU."""
        async with self._db.connection() as connection:
            variants = await store.list_after(connection, after or "", size + 1)
        return to_page(variants, size, lambda variant: variant.sku)

    async def put(self, sku: str, variant: VariantInput) -> Variant:
        """Create or change a variant. Raises `Invalid` if its currency is unknown."""
        _check_currency(variant)
        async with self._db.transaction() as connection:
            await store.upsert(connection, [(sku, variant)], from_ms(self._clock.now_ms()))
        return await self.get(sku)

    async def put_many(self, variants: Sequence[tuple[str, VariantInput]]) -> ImportReport:
        """Create or change variants in one transaction. Each SKU may occur once."""
        for _, variant in variants:
            _check_currency(variant)
        async with self._db.transaction() as connection:
            added, changed = await store.upsert(connection, variants, from_ms(self._clock.now_ms()))
        return ImportReport(added, changed, len(variants) - added - changed)

    async def import_csv(
        self, lines: Iterable[str], progress: Callable[[int], None] = lambda line: None
    ) -> ImportReport:
        """Import a CSV file with the columns sku, name, price, currency.

        A wrong line is reported with its number and reason; all other lines are imported. `progress` is called with
        the number of the last line that was read. Raises `UnreadableCsv` if the header is wrong.
        """
        lines = list(lines)
        report = ImportReport(blank=count_blank_lines(lines))
        rows = read_variants(lines)
        with account_for_lines(report, lines):
            while part := list(islice(rows, _ROWS_PER_STATEMENT)):
                if variants := [(row[0], row[1]) for _, row in part if not isinstance(row, LineError)]:
                    part_report = await self.put_many(variants)
                    report.added += part_report.added
                    report.changed += part_report.changed
                    report.unchanged += part_report.unchanged
                report.errors += [row for _, row in part if isinstance(row, LineError)]
                progress(part[-1][0])
        return report


def _check_currency(variant: VariantInput) -> None:
    try:
        minor_digits(variant.currency)
    except MoneyError as error:
        raise Invalid(str(error)) from None
