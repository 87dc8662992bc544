"""Variants that staff add to products, change, or move from one product to another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncpg import UniqueViolationError

from commerce.catalog import price_store, product_store, store
from commerce.catalog.errors import BadProduct, BarcodeTaken, SkuOfOtherProduct
from commerce.catalog.model import MAX_VARIANTS, Product, ProductAction, ProductVariantInput, Variant
from commerce.catalog.prices import apply_due_plans
from commerce.catalog.product_rules import check_distinct, check_option_values, describe_variant_changes
from commerce.catalog.products import check_version, no_product
from commerce.catalog.service import check_currency
from commerce.categories.assignment import read_definitions
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict
from commerce.kernel.postgres import Connection, Database


class ProductVariants:
    """Changes of the variants of products, over Postgres."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def put(self, product_id: str, sku: str, new: ProductVariantInput, actor: str) -> Variant:
        """Add a variant to a product, replace it, or move it here from another product.

        A repeat changes nothing. A product that loses its last variant is retired. Raises `NoSuchProduct`,
        `ProductChanged`, `SkuOfOtherProduct` if the SKU belongs to one that `moved_from` does not name,
        `DuplicateVariant`, `BarcodeTaken`, `BadProduct` if the option values do not fit, `Conflict` if the product has
        too many variants or another currency.
        """
        check_currency(new.currency)
        async with self._db.transaction() as connection:
            now = from_ms(self._clock.now_ms())
            present = await store.get(connection, sku)
            owners = {product_id, new.moved_from or product_id, present.product_id if present else product_id}
            products = await product_store.lock(connection, *owners)
            product = products.get(product_id)
            if product is None:
                raise no_product(product_id)
            await store.lock_variants(connection, [sku])
            await apply_due_plans(connection, [sku], now)
            present = await store.get(connection, sku)
            _check_owner(product_id, sku, present, new)
            if present is not None and _is_same(present, product_id, new):
                return present
            if new.version is not None:
                check_version(product, new.version)
            await _check(connection, product, sku, present, new)
            await _store(connection, product_id, sku, new, now)
            await _record(connection, products, product_id, sku, present, new, actor, now)
            stored = await store.get(connection, sku)
        assert stored is not None
        return stored


def _check_owner(product_id: str, sku: str, present: Variant | None, new: ProductVariantInput) -> None:
    if present is not None and present.product_id not in (product_id, new.moved_from):
        raise SkuOfOtherProduct(
            f"{sku} is a variant of {present.product_id}; to move it, send moved_from with that id",
            product_id=present.product_id,
        )


def _is_same(present: Variant, product_id: str, new: ProductVariantInput) -> bool:
    stored = present.name, present.price, present.currency, present.option_values, present.barcode, present.product_id
    return stored == (new.name, new.price, new.currency, new.option_values, new.barcode, product_id)


async def _check(
    connection: Connection, product: Product, sku: str, present: Variant | None, new: ProductVariantInput
) -> None:
    others = {variant.sku: variant for variant in product.variants if variant.sku != sku}
    if len(others) >= MAX_VARIANTS:
        raise Conflict(f"{product.product_id} has {MAX_VARIANTS} variants, the most that a product can have")
    if mixed := next((other for other in others.values() if other.currency != new.currency), None):
        raise Conflict(f"{mixed.sku} is priced in {mixed.currency}: all variants of a product have one currency")
    definitions = {}
    if product.category_id is not None:
        definitions = (await read_definitions(connection, [product.category_id])).get(product.category_id, {})
    kept = present.option_values if present is not None and present.product_id == product.product_id else {}
    errors = check_option_values(product.options, new.option_values, definitions, kept, "/option_values")
    if errors:
        raise BadProduct(f"{errors[0]['pointer']}: {errors[0]['detail']}", errors=errors)
    check_distinct({**{other.sku: other.option_values for other in others.values()}, sku: new.option_values})
    if new.barcode is not None:
        owner = await product_store.find_sku_of_barcode(connection, new.barcode)
        if owner not in (None, sku):
            raise _barcode_taken(new.barcode, owner)


async def _store(connection: Connection, product_id: str, sku: str, new: ProductVariantInput, now: datetime) -> None:
    """Store the variant of a locked product. Raises `BarcodeTaken` if another writer was faster."""
    try:
        async with connection.transaction():
            await product_store.put_variant(connection, product_id, sku, new, now)
    except UniqueViolationError as error:
        if error.constraint_name != product_store.BARCODE_INDEX or new.barcode is None:
            raise
        raise _barcode_taken(new.barcode, await product_store.find_sku_of_barcode(connection, new.barcode)) from None


def _barcode_taken(barcode: str, sku: str | None) -> BarcodeTaken:
    return BarcodeTaken(f"{sku} has the barcode {barcode}: each variant has its own", sku=sku)


async def _record(
    connection: Connection,
    products: Mapping[str, Product],
    product_id: str,
    sku: str,
    present: Variant | None,
    new: ProductVariantInput,
    actor: str,
    now: datetime,
) -> None:
    """Record the change of the product, of the one that the variant comes from, and of the price."""
    action: ProductAction = "variant_added" if present is None else "variant_changed"
    is_move = present is not None and present.product_id != product_id
    diff: dict[str, Any] = describe_variant_changes(sku, present, vars_of(new))
    changes: list[tuple[str, ProductAction, Mapping[str, Any]]] = []
    if is_move and present is not None:
        action = "moved"
        diff[f"variants/{sku}/product_id"] = [present.product_id, product_id]
        source = products[present.product_id]
        left: dict[str, Any] = {f"variants/{sku}/product_id": [present.product_id, product_id]}
        if len(source.variants) == 1 and source.status != "retired":
            await product_store.set_status(connection, source.product_id, "retired", now)
            left["status"] = [source.status, "retired"]
        changes.append((source.product_id, "moved", left))
    if diff:
        changes.append((product_id, action, diff))
    if changes:
        await product_store.add_changes(connection, changes, actor, new.reason, now)
    if present is None or (present.price, present.currency) != (new.price, new.currency):
        prices = {sku: (new.price, new.currency)}
        await price_store.add_price_changes(connection, prices, actor, new.reason, now)


def vars_of(new: ProductVariantInput) -> dict[str, Any]:
    """Return what a variant has besides its price."""
    return {"name": new.name, "option_values": new.option_values, "barcode": new.barcode}
