"""The second step of an import: products are created and changed, each in a transaction of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import UniqueViolationError

from commerce.catalog import price_store, product_store
from commerce.catalog import store as variant_store
from commerce.catalog.model import Product, ProductAction
from commerce.catalog.prices import apply_due_plans
from commerce.catalog.products import PublicationCheck
from commerce.categories.assignment import lock_category
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, ProblemError
from commerce.kernel.failpoints import failpoint
from commerce.kernel.outages import explain_defect, is_outage, log_failure
from commerce.kernel.postgres import Connection, Database
from commerce.product_imports import store
from commerce.product_imports.file_parts import read_groups
from commerce.product_imports.model import ImportedProduct, ProductResult
from commerce.product_imports.present_products import digest_product, read_present
from commerce.product_imports.product_plan import Facts, ProductPlan, plan_product
from commerce.product_imports.store import LockedImport

_logger = logging.getLogger(__name__)
_PRODUCTS_PER_SLICE = 100
_CHANGED = "somebody changed the product after the report: check the file again"


class ProductApplier:
    """Creates and changes the products of checked imports.

    `check_publication` may refuse a product that is to go on sale; then nothing of it is stored."""

    def __init__(self, db: Database, clock: Clock, check_publication: PublicationCheck) -> None:
        self._db = db
        self._clock = clock
        self._check_publication = check_publication

    async def apply_slice(self, import_id: UUID) -> bool:
        """Create or change the next products of an import. Returns whether some are left.

        One that cannot be stored has its result, and does not stop the others."""
        async with self._db.connection() as connection:
            current = await store.read_import(connection, import_id)
            if current is None or current.status != "applying":
                return False
            first_line = current.applied_lines + 1
            groups, is_end = await read_groups(connection, current, first_line, _PRODUCTS_PER_SLICE)
            last_line = groups[-1].last_line if groups else current.lines
            items = await store.list_open_items(connection, import_id, first_line, last_line)
            products = [group.product for group in groups if group.product is not None and group.product.line in items]
            _, facts = await read_present(connection, products)
        for product in products:
            await self._apply(current, product, items[product.line], facts)
        async with self._db.transaction() as connection:
            is_done = await store.set_applied_lines(connection, import_id, first_line, last_line, self._now())
            if is_end and is_done:
                await store.end_apply(connection, import_id, self._now())
                return False
        return True

    async def _apply(self, current: LockedImport, product: ImportedProduct, digest: bytes | None, facts: Facts) -> None:
        """Create or change one product, and record its result in the same transaction."""
        try:
            async with self._db.transaction() as connection:
                if not await store.lock_item(connection, current.import_id, product.line):
                    return
                result, detail = await self._write(connection, current, product, digest, facts)
                await store.end_item(connection, current.import_id, product.line, result, detail)
                failpoint("product_import.before_commit")
            failpoint("product_import.after_commit")
            return
        except UniqueViolationError as error:
            is_barcode = error.constraint_name == product_store.BARCODE_INDEX
            result = "refused" if is_barcode else "failed"
            detail = "another variant has one of its barcodes" if is_barcode else explain_defect(error)
        except ProblemError as error:
            if is_outage(error):
                raise
            result, detail = "refused", error.detail
        except Exception as error:
            if is_outage(error):
                raise
            log_failure(_logger, "cannot import a product", error, import_id=current.import_id, line=product.line)
            result, detail = "failed", explain_defect(error)
        async with self._db.connection() as connection:
            await store.end_item(connection, current.import_id, product.line, result, detail)

    async def _write(
        self,
        connection: Connection,
        current: LockedImport,
        read: ImportedProduct,
        digest: bytes | None,
        facts: Facts,
    ) -> tuple[ProductResult, str | None]:
        if isinstance(category_id := read.values.get("category_id"), str) and category_id in facts.categories:
            await lock_category(connection, category_id)
        now = self._now()
        present = await _lock(connection, read.product_id, now)
        if digest_product(present) != digest:
            return "changed_meanwhile", _CHANGED
        plan = plan_product(read, present, facts)
        if plan.faults:
            return "refused", "; ".join(f"{fault.column}: {fault.reason}" for fault in plan.faults[:5])
        assert current.applied_by is not None
        actor, reason = current.applied_by, f"imported from {current.file_name}"
        if not await _store(connection, read.product_id, present, plan, now):
            return "changed_meanwhile", _CHANGED
        kept: Mapping[str, Any] = {}
        if plan.status == "on_sale" and (present is None or present.status != "on_sale"):
            kept = await self._check_stored(connection, read.product_id, current.anyway)
        await _record(connection, read.product_id, present, plan, kept, actor, reason, now)
        return "applied", None

    async def _check_stored(self, connection: Connection, product_id: str, anyway: str | None) -> Mapping[str, Any]:
        """Check a product whose rows are stored before it goes on sale. Returns what its change is to keep."""
        stored = await product_store.read(connection, [product_id])
        return await self._check_publication(connection, stored[product_id].product, anyway)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


async def _lock(connection: Connection, product_id: str, now: datetime) -> Product | None:
    """Lock a product and its variants, whose planned prices are set if their time has come."""
    product = (await product_store.lock(connection, product_id)).get(product_id)
    if product is None:
        return None
    skus = [variant.sku for variant in product.variants]
    if skus:
        await variant_store.lock_variants(connection, skus)
        await apply_due_plans(connection, skus, now)
    locked = await variant_store.lock_variants(connection, skus)
    return msgspec.structs.replace(product, variants=[locked[sku] for sku in skus])


async def _store(
    connection: Connection, product_id: str, present: Product | None, plan: ProductPlan, now: datetime
) -> bool:
    """Write the rows of a product and its variants. Returns False if somebody else has just created it."""
    if present is None:
        if not await product_store.insert(connection, product_id, plan.content, now):
            return False
    elif any(not name.startswith(("variants/", "status")) for name in plan.diff):
        await product_store.update(connection, product_id, plan.content)
    if plan.variants:
        kept = {} if present is None else {variant.sku: variant.barcode for variant in present.variants}
        given_up = [
            sku for sku, variant in plan.variants.items() if kept.get(sku) is not None and kept[sku] != variant.barcode
        ]
        stored = await store.put_variants(connection, product_id, plan.variants, given_up, now)
        if lost := sorted(set(plan.variants) - set(stored)):
            raise Conflict(f"another product has got the SKU {lost[0]} meanwhile")
    if plan.status != ("draft" if present is None else present.status):
        await product_store.set_status(connection, product_id, plan.status, now)
    return True


async def _record(
    connection: Connection,
    product_id: str,
    present: Product | None,
    plan: ProductPlan,
    kept: Mapping[str, Any],
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Record the change of a product, as one version, with what the check kept, and new prices."""
    action: ProductAction = "created" if present is None else "changed"
    if present is not None and set(plan.diff) == {"status"}:
        action = "published" if plan.status == "on_sale" else "retired"
    if plan.diff:
        await product_store.add_changes(
            connection, [(product_id, action, {**plan.diff, **kept})], actor, reason[:200], now
        )
    old: dict[str, tuple[int, str]] = (
        {} if present is None else {variant.sku: (variant.price, variant.currency) for variant in present.variants}
    )
    prices = {
        sku: (variant.price, variant.currency)
        for sku, variant in plan.variants.items()
        if old.get(sku) != (variant.price, variant.currency)
    }
    if prices:
        await price_store.add_price_changes(connection, prices, actor, reason[:200], now)
