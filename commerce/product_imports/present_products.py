"""Reads the present products with which imported ones are compared, and categories, SKUs and barcodes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from commerce.catalog import product_store
from commerce.catalog.model import Product
from commerce.categories.assignment import build_retired, read_definitions
from commerce.kernel.postgres import Connection
from commerce.kernel.spreadsheets import list_padded
from commerce.product_imports import store
from commerce.product_imports.model import ImportedProduct
from commerce.product_imports.product_plan import Facts
from commerce.product_imports.variant_plan import VariantFacts


async def read_present(connection: Connection, products: Sequence[ImportedProduct]) -> tuple[dict[str, Product], Facts]:
    """Read the products that a file names, by id, and what their plans need to know."""
    ids = _storable(product.product_id for product in products)
    present = {product_id: item.product for product_id, item in (await product_store.read(connection, ids)).items()}
    return present, await read_facts(connection, products, present)


async def read_facts(connection: Connection, products: Sequence[ImportedProduct], present: dict[str, Product]) -> Facts:
    """Read what the plans of products need to know beside the present products."""
    categories = _storable(
        category for product in products if isinstance(category := product.values.get("category_id"), str)
    )
    states = await store.list_categories(connection, categories)
    kept = {product.category_id for product in present.values() if product.category_id is not None}
    skus = _storable(variant.sku for product in products for variant in product.variants)
    barcodes = [
        barcode.rjust(14, "0")
        for product in products
        for variant in product.variants
        if isinstance(barcode := variant.values.get("barcode"), str) and barcode.isascii() and len(barcode) <= 14
    ]
    new_ids = [product.product_id for product in products if product.product_id not in present]
    return Facts(
        definitions=await read_definitions(connection, {*states, *kept}),
        categories={
            category_id: "" if status == "active" else build_retired(category_id, merged_into).detail
            for category_id, (status, merged_into) in states.items()
        },
        product_ids=await store.list_product_ids(connection, _with_zeros(new_ids)),
        variants=VariantFacts(
            owners=await store.list_owners(connection, [*skus, *_with_zeros(skus)]),
            barcodes=await store.list_barcodes(connection, _storable(barcodes)),
        ),
    )


def digest_product(product: Product | None) -> bytes | None:
    """Return a digest of all that an import may change of a product; None if there is none."""
    if product is None:
        return None
    variants = [msgspec.structs.replace(variant, updated_at=product.created_at) for variant in product.variants]
    content = msgspec.structs.replace(product, updated_at=product.created_at, variants=variants)
    return sha256(msgspec.json.encode(content, order="deterministic")).digest()


def _with_zeros(values: Sequence[str]) -> list[str]:
    return [padded for value in values for padded in list_padded(value)]


def _storable(values: object) -> list[str]:
    """Return those of the values that can be the text of a row."""
    return [value for value in values if "\0" not in value and len(value) <= 100]  # type: ignore[attr-defined]
