"""Grades products whose quality may have changed. Several processes may: one of them works at a time.

A note is deleted in the transaction that stores the grade, whose facts are read after its lock was taken. So a grade
is never older than the notes that are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from commerce.catalog import product_store
from commerce.catalog.model import Product
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.outages import log_failure
from commerce.kernel.postgres import Connection, Database
from commerce.product_quality import store
from commerce.product_quality.fact_reader import read_facts
from commerce.product_quality.model import ProductFacts, QualityResult
from commerce.product_quality.quality_rules import QualityPolicy, assess
from commerce.product_quality.store import NewGrade

_logger = logging.getLogger(__name__)
_PRODUCTS_PER_PAGE = 200


class GradingPolicy(QualityPolicy, Protocol):
    """The section `quality` of the settings, with the pace of grading."""

    @property
    def debounce_s(self) -> float: ...
    @property
    def price_level_age_s(self) -> float: ...
    @property
    def regrade_days(self) -> float: ...
    @property
    def products_per_step(self) -> int: ...


class ProductGrading:
    """Grades products over Postgres.

    `count_failed` is called for each one that a defect kept from being graded."""

    def __init__(
        self, db: Database, clock: Clock, policy: GradingPolicy, count_failed: Callable[[], None] = lambda: None
    ) -> None:
        self._db = db
        self._clock = clock
        self._policy = policy
        self._count_failed = count_failed

    async def step(self) -> int:
        """Grade the products of the oldest notes, then those of a category, then some with an old grade.

        Returns how many were looked at, 0 also while another process grades."""
        async with self._db.transaction() as connection:
            if not await store.lock(connection, wait=False):
                return 0
            count = self._policy.products_per_step
            product_ids = await store.take_products(connection, self._policy.debounce_s, count)
            if not product_ids:
                note = await store.find_category(connection, self._policy.debounce_s)
                if note is not None and note.with_descendants:
                    await store.replace_by_descendants(connection, note.category_id)
                    return 1
                if note is not None:
                    product_ids = await store.list_of_category(connection, note.category_id, note.after_product, count)
                    is_done = len(product_ids) < count
                    await store.go_on_after(connection, note.note_no, None if is_done else product_ids[-1])
                    await self._grade(connection, product_ids)
                    return max(1, len(product_ids))
                before = self._now() - timedelta(days=self._policy.regrade_days)
                product_ids = await store.list_outdated(connection, before, count)
            await self._grade(connection, product_ids)
        return len(product_ids)

    async def recount(self, progress: Callable[[int], None] = lambda count: None) -> int:
        """Grade all products, in steps. Returns their number. Safe to repeat, and beside workers."""
        after, total = "", 0
        while True:
            async with self._db.transaction() as connection:
                await store.lock(connection, wait=True)
                product_ids = await store.list_after(connection, after, _PRODUCTS_PER_PAGE)
                await self._grade(connection, product_ids)
            if not product_ids:
                return total
            after = product_ids[-1]
            total += len(product_ids)
            progress(total)

    async def assess(self, connection: Connection, product: Product) -> QualityResult:
        """Return the quality that a product has now, without storing it. Call inside a transaction.

        It writes nothing: a caller who has locked the product must not wait for a worker that has a price level locked
        and grades it."""
        products = {product.product_id: product}
        facts = await read_facts(connection, products, None, self._now())
        return assess(facts[product.product_id].facts, self._policy)

    async def measure_lag(self) -> float:
        """Return the seconds since the oldest change that no grade knows."""
        async with self._db.connection() as connection:
            return await store.measure_lag(connection)

    async def _grade(self, connection: Connection, product_ids: Sequence[str]) -> None:
        """Store the grades of products. Call inside a transaction that holds the lock of grading."""
        if not product_ids:
            return
        before = await store.list_duplicates(connection, product_ids)
        rows = await product_store.read(connection, product_ids)
        products = {key: row.product for key, row in rows.items() if row.product.status != "retired"}
        facts = await read_facts(connection, products, self._policy.price_level_age_s, self._now())
        grades, after = list[NewGrade](), dict[str, set[str]]({key: set() for key in product_ids})
        for product_id, product in products.items():
            result = self._assess(product_id, facts[product_id].facts)
            if result is None:
                after.pop(product_id)
                continue
            duplicates, bands = facts[product_id].facts.duplicates, facts[product_id].bands
            is_on_sale = product.status == "on_sale"
            grades.append(NewGrade(product_id, is_on_sale, product.category_id, result, duplicates, bands))
            after[product_id] = set(duplicates)
        await store.put_grades(connection, grades, self._now())
        await store.delete_grades(connection, [key for key in product_ids if key not in products])
        changed = {other for key, of_product in after.items() for other in before.get(key, set()) ^ of_product}
        await self._note_others(connection, changed - after.keys(), after)

    def _assess(self, product_id: str, facts: ProductFacts) -> QualityResult | None:
        """Assess a product. A defect leaves it with its earlier grade, and the others go on."""
        try:
            return assess(facts, self._policy)
        except Exception as error:  # noqa: BLE001  # log_failure tells outages from bugs
            log_failure(_logger, "cannot grade a product", error, product_id=product_id)
            self._count_failed()
            return None

    async def _note_others(self, connection: Connection, others: set[str], after: Mapping[str, set[str]]) -> None:
        """Note the products that have a duplicate more or less now and do not know it.

        `after` has the duplicates of the products that were graded."""
        outdated = [
            other
            for other, duplicates in (await store.list_duplicates(connection, sorted(others))).items()
            if any((other in of_product) != (product_id in duplicates) for product_id, of_product in after.items())
        ]
        await store.note_products(connection, outdated)

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
