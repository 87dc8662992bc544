"""Reads variants, and creates or changes those that are a product of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice

from commerce.catalog import price_store, product_store, store
from commerce.catalog.errors import NoSuchVariant
from commerce.catalog.model import ProductAction, Variant, VariantInput, VersionedVariant
from commerce.catalog.prices import apply_due_plans
from commerce.catalog.store import RefusedVariant
from commerce.catalog.variant_csv import read_variants
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.csv_rows import ImportReport, LineError, account_for_lines, count_blank_lines
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.money import MoneyError, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database
from commerce.text_search.terms import detect_language

_ROWS_PER_STATEMENT = 500
_OWN_ACTOR = "system"
_Line = tuple[int, tuple[str, VariantInput] | LineError]


class Catalog:
    """The variants of the catalog, over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def get(self, sku: str) -> Variant:
        """Read a variant, also one whose product is not on sale. Raises `NoSuchVariant`."""
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
        """List the variants of products on sale, ordered by SKU."""
        async with self._db.connection() as connection:
            variants = await store.list_after(connection, after or "", size + 1)
        return to_page(variants, size, lambda variant: variant.sku)

    async def put(self, sku: str, variant: VariantInput, actor: str = _OWN_ACTOR, reason: str = "entered") -> Variant:
        """Create or change a variant as `put_many` does."""
        await self.put_many([(sku, variant)], actor, reason)
        return await self.get(sku)

    async def put_many(
        self, variants: Sequence[tuple[str, VariantInput]], actor: str = _OWN_ACTOR, reason: str = "entered"
    ) -> ImportReport:
        """Create or change variants in one transaction. Each SKU may occur once.

        A new one becomes a product on sale with one variant. Raises `Invalid` if a currency is unknown,
        and `Conflict` if a product would have two currencies, or a new SKU is the id of a product with other variants.
        """
        for _, variant in variants:
            check_currency(variant.currency)
        if not variants:
            return ImportReport()
        async with self._db.transaction() as connection:
            return await _put(connection, dict(variants), actor, reason, from_ms(self._clock.now_ms()))

    async def import_csv(
        self,
        lines: Iterable[str],
        progress: Callable[[int], None] = lambda line: None,
        actor: str = _OWN_ACTOR,
        reason: str = "imported",
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
                part = await self._refuse(part)
                if variants := [(row[0], row[1]) for _, row in part if not isinstance(row, LineError)]:
                    part_report = await self.put_many(variants, actor, reason)
                    report.added += part_report.added
                    report.changed += part_report.changed
                    report.unchanged += part_report.unchanged
                report.errors += [row for _, row in part if isinstance(row, LineError)]
                progress(part[-1][0])
        return report

    async def _refuse(self, part: Sequence[_Line]) -> list[_Line]:
        """Replace lines that `find_refused` names by their reasons."""
        variants = {row[0]: row[1] for _, row in part if not isinstance(row, LineError)}
        async with self._db.connection() as connection:
            reasons = _explain(await store.find_refused(connection, variants))
        return [
            (line, row if isinstance(row, LineError) or row[0] not in reasons else LineError(line, reasons[row[0]]))
            for line, row in part
        ]


async def _put(
    connection: Connection, variants: Mapping[str, VariantInput], actor: str, reason: str, now: datetime
) -> ImportReport:
    """Create or change variants, with the histories of prices and products."""
    skus = sorted(variants)
    await store.lock_products_of_skus(connection, skus)
    products = await store.insert_own_products(connection, skus, now)
    if reasons := _explain(await store.find_refused(connection, variants)):
        raise Conflict("; ".join(list(reasons.values())[:10]), skus=list(reasons)[:100])
    names = {sku: (detect_language(variants[sku].name), variants[sku].name) for sku in products}
    await store.insert_own_texts(connection, names)
    added = await store.insert_own_variants(connection, variants, now)
    before = await store.lock_variants(connection, [sku for sku in skus if sku not in set(added)])
    await apply_due_plans(connection, list(before), now)
    before = await store.lock_variants(connection, list(before))
    changed = {
        sku: variants[sku]
        for sku, old in before.items()
        if (old.name, old.price, old.currency) != (variants[sku].name, variants[sku].price, variants[sku].currency)
    }
    await store.update_variants(connection, changed, now)
    await price_store.add_price_changes(
        connection,
        {
            sku: (variants[sku].price, variants[sku].currency)
            for sku in skus
            if sku not in before
            or (before[sku].price, before[sku].currency) != (variants[sku].price, variants[sku].currency)
        },
        *(actor, reason, now),
    )
    renamed = [before[sku] for sku, variant in changed.items() if variant.name != before[sku].name]
    await store.rename_products(connection, [(old.product_id, old.name, variants[old.sku].name) for old in renamed])
    await _add_changes(connection, variants, products, added, renamed, actor, reason, now)
    return ImportReport(len(added), len(changed), len(before) - len(changed))


async def _add_changes(
    connection: Connection,
    variants: Mapping[str, VariantInput],
    products: Collection[str],
    added: Iterable[str],
    renamed: Iterable[Variant],
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Record new products, new variants of products that there were, and new names."""
    changes: dict[str, tuple[ProductAction, dict[str, list[str | None]]]] = {}
    for sku in added:
        action: ProductAction = "created" if sku in products else "variant_added"
        changes[sku] = (action, {f"variants/{sku}/name": [None, variants[sku].name]})
    for old in renamed:
        _, diff = changes.setdefault(old.product_id, ("variant_changed", {}))
        diff[f"variants/{old.sku}/name"] = [old.name, variants[old.sku].name]
    rows = [(product_id, action, diff) for product_id, (action, diff) in sorted(changes.items())]
    await product_store.add_changes(connection, rows, actor, reason, now)


def _explain(refused: Mapping[str, RefusedVariant]) -> dict[str, str]:
    """Return why variants cannot be stored, by SKU, and what to do."""
    return {
        sku: f"the product {sku} has other variants or options: add {sku} as a variant of a product"
        if refusal == "taken"
        else f"other variants of the product of {sku} have another currency: import all of them in one file"
        for sku, refusal in refused.items()
    }


def check_currency(currency: str) -> None:
    """Raise `Invalid` if a currency is unknown."""
    try:
        minor_digits(currency)
    except MoneyError as error:
        raise Invalid(str(error)) from None
