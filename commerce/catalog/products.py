"""Products with their texts and attributes, as staff change them and as customers read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from commerce.catalog import product_store
from commerce.catalog.errors import BadProduct, NoSuchProduct, ProductChanged, ProductNotReady
from commerce.catalog.model import (
    ListedProduct,
    Product,
    ProductAction,
    ProductChange,
    ProductContent,
    ProductInput,
    ProductPatch,
    ProductStatus,
    ProductStep,
    ProductSummary,
    PublicProduct,
    PublishStep,
    VersionedProduct,
)
from commerce.catalog.product_rules import (
    Errors,
    check_content,
    check_distinct,
    check_option_values,
    content_of,
    describe_product_changes,
    merge,
)
from commerce.categories.assignment import lock_category, read_definitions
from commerce.categories.attribute_values import AttributeDefinition
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.languages import choose_language
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

_LAST_VERSION = 2**31 - 1
_FROM: dict[ProductStatus, ProductAction] = {"on_sale": "published", "retired": "retired"}


PublicationCheck = Callable[[Connection, Product, str | None], Awaitable[Mapping[str, Any]]]
"""Returns what the change is to keep. The text is the reason to publish a product all the same."""


async def check_nothing(connection: Connection, product: Product, anyway: str | None) -> Mapping[str, Any]:
    """Stand in for the check of a product's quality."""
    return {}


class Products:
    """The products of the catalog, over Postgres.

    `check_publication` may refuse a product that is to go on sale."""

    def __init__(self, db: Database, clock: Clock, check_publication: PublicationCheck = check_nothing) -> None:
        self._db = db
        self._clock = clock
        self._check_publication = check_publication

    async def get(self, product_id: str) -> Product:
        """Read a product of any status with its variants. Raises `NoSuchProduct`."""
        async with self._db.snapshot() as connection:
            products = await product_store.read(connection, [product_id])
        if product_id not in products:
            raise no_product(product_id)
        return products[product_id].product

    async def refresh(self, previous: Mapping[str, VersionedProduct | None]) -> dict[str, VersionedProduct]:
        """Return the products with these ids as they are now, of any status; unknown ids are left out.

        `previous` has what the caller read before, None if nothing: only what has changed since is read whole.
        """
        async with self._db.snapshot() as connection:
            versions = await product_store.read_versions(connection, list(previous))
            changed = [
                product_id
                for product_id, version in versions.items()
                if (old := previous[product_id]) is None or old.version != version
            ]
            products = {**previous, **await product_store.read(connection, changed)}
        return {
            product_id: product
            for product_id, product in products.items()
            if product is not None and product_id in versions
        }

    async def list_products(
        self, after: str | None, size: int, status: ProductStatus | None = None, category_id: str | None = None
    ) -> Page[ProductSummary]:
        """List products by id, all or those of a status or a category."""
        async with self._db.connection() as connection:
            products = await product_store.list_products(connection, after or "", size + 1, status, category_id)
        return to_page(products, size, lambda product: product.product_id)

    async def list_changes(self, product_id: str, before: int | None, size: int) -> Page[ProductChange]:
        """List the changes of a product and its variants, newest first. Raises `NoSuchProduct`."""
        async with self._db.snapshot() as connection:
            if not await product_store.read_versions(connection, [product_id]):
                raise no_product(product_id)
            changes = await product_store.list_changes(connection, product_id, before or _LAST_VERSION, size + 1)
        return to_page(changes, size, lambda change: str(change.version))

    async def put(self, product_id: str, new: ProductInput, actor: str) -> Product:
        """Create a product as a draft, or replace one in the version that was read. A repeat changes nothing.

        Raises `ProductChanged` if it has another version or exists already, `NoSuchProduct` if a version is given and
        there is none, `BadProduct` with a pointer for each fault, `DuplicateVariant`, and what `lock_category` raises.
        """
        content = ProductContent(**{name: getattr(new, name) for name in ProductContent.__struct_fields__})
        async with self._db.transaction() as connection:
            category_id = await self._find_category(connection, product_id)
            if content.category_id is not None and content.category_id != category_id:
                await lock_category(connection, content.category_id)
            product = (await product_store.lock(connection, product_id)).get(product_id)
            if product is not None:
                await self._change(connection, product, content, new, actor)
            elif new.version is not None:
                raise no_product(product_id)
            else:
                await self._create(connection, product_id, content, new, actor)
        return await self.get(product_id)

    async def change(self, product_id: str, patch: ProductPatch, actor: str) -> Product:
        """Change what a patch names of a product. Raises as `put` does."""
        async with self._db.transaction() as connection:
            category_id = await self._find_category(connection, product_id)
            if isinstance(patch.category_id, str) and patch.category_id != category_id:
                await lock_category(connection, patch.category_id)
            product = (await product_store.lock(connection, product_id)).get(product_id)
            if product is None:
                raise no_product(product_id)
            check_version(product, patch.version)
            await self._change(connection, product, merge(product, patch), patch, actor)
        return await self.get(product_id)

    async def publish(self, product_id: str, step: PublishStep, actor: str) -> Product:
        """Put a draft or a retired product on sale. A repeat changes nothing.

        Raises `NoSuchProduct`, `ProductChanged`, `ProductNotReady` if it lacks a variant or a required attribute, and
        what `check_publication` raises.
        """
        return await self._set_status(product_id, step, "on_sale", actor)

    async def retire(self, product_id: str, step: ProductStep, actor: str) -> Product:
        """Take a product off the shop: customers do not find it, and no sale may add its variants.

        Sales that offer them go on. A repeat changes nothing. Raises `NoSuchProduct` or `ProductChanged`.
        """
        return await self._set_status(product_id, step, "retired", actor)

    async def _set_status(self, product_id: str, step: ProductStep, status: ProductStatus, actor: str) -> Product:
        async with self._db.transaction() as connection:
            product = (await product_store.lock(connection, product_id)).get(product_id)
            if product is None:
                raise no_product(product_id)
            if product.status != status:
                check_version(product, step.version)
                diff: dict[str, Any] = {"status": [product.status, status]}
                if isinstance(step, PublishStep):
                    await _check_can_publish(connection, product)
                    diff.update(await self._check_publication(connection, product, step.anyway))
                now = from_ms(self._clock.now_ms())
                await product_store.set_status(connection, product_id, status, now)
                change = product_id, _FROM[status], diff
                await product_store.add_changes(connection, [change], actor, step.reason, now)
        return await self.get(product_id)

    async def _find_category(self, connection: Connection, product_id: str) -> str | None:
        """Return the category as it was a moment ago: a category is locked before its products."""
        products = await product_store.read(connection, [product_id])
        return products[product_id].product.category_id if product_id in products else None

    async def _create(
        self, connection: Connection, product_id: str, content: ProductContent, new: ProductInput, actor: str
    ) -> None:
        _raise_faults(check_content(content, await _read_definitions(connection, content), {}, must_be_complete=False))
        now = from_ms(self._clock.now_ms())
        if not await product_store.insert(connection, product_id, content, now):
            raise ProductChanged(f"{product_id} was created meanwhile; read it and repeat the change", version=1)
        diff = describe_product_changes(None, content)
        await product_store.add_changes(connection, [(product_id, "created", diff)], actor, new.reason, now)

    async def _change(
        self,
        connection: Connection,
        product: Product,
        content: ProductContent,
        new: ProductInput | ProductPatch,
        actor: str,
    ) -> None:
        """Store the new content of a locked product, and the option values of its variants."""
        values = {variant.sku: variant.option_values for variant in product.variants}
        diff: dict[str, Any] = describe_product_changes(product, content)
        for sku, option_values in new.option_values.items():
            if values.get(sku) != option_values:
                diff[f"variants/{sku}/option_values"] = [values.get(sku), option_values]
        if not diff:
            return
        check_version(product, new.version)
        if unknown := [sku for sku in new.option_values if sku not in values]:
            pointer = f"/option_values/{unknown[0]}"
            _raise_faults([{"pointer": pointer, "detail": f"{product.product_id} has no variant with this SKU"}])
        values.update(new.option_values)
        await _check_change(connection, product, content, values)
        now = from_ms(self._clock.now_ms())
        await product_store.update(connection, product.product_id, content)
        if new.option_values:
            await product_store.set_option_values(connection, new.option_values, now)
        change: tuple[str, ProductAction, Mapping[str, Any]] = (product.product_id, "changed", diff)
        await product_store.add_changes(connection, [change], actor, new.reason, now)


async def _check_change(
    connection: Connection, product: Product, content: ProductContent, values: Mapping[str, Mapping[str, Any]]
) -> None:
    """Check attributes and options as they will be. Raises `BadProduct` or `DuplicateVariant`."""
    before = content_of(product)
    is_same_kind = (content.category_id, content.options) == (before.category_id, before.options)
    definitions = await _read_definitions(connection, content)
    kept = before.attributes if content.category_id == before.category_id else {}
    must_be_complete = product.status == "on_sale" and (not is_same_kind or content.attributes != before.attributes)
    errors = check_content(
        content,
        definitions,
        {**kept, **(dict.fromkeys(before.options) if is_same_kind else {})},
        must_be_complete=must_be_complete,
    )
    for variant in product.variants:
        is_kept = is_same_kind and values[variant.sku] == variant.option_values
        if not is_kept:
            pointer = f"/option_values/{variant.sku}"
            kept_values = variant.option_values if content.category_id == before.category_id else {}
            errors += check_option_values(content.options, values[variant.sku], definitions, kept_values, pointer)
    _raise_faults(errors)
    check_distinct(values)


async def _check_can_publish(connection: Connection, product: Product) -> None:
    """Raise `ProductNotReady` if a product lacks a variant, or an attribute that its category requires."""
    if not product.variants:
        raise ProductNotReady(f"cannot publish {product.product_id}: it has no variant; add one with a SKU and a price")
    content = content_of(product)
    definitions = await _read_definitions(connection, content)
    errors = check_content(content, definitions, content.attributes, must_be_complete=True)
    errors = [error for error in errors if not error["pointer"].startswith("/options/")]
    if errors:
        places = ", ".join(error["pointer"].removeprefix("/attributes/") for error in errors[:10])
        raise ProductNotReady(f"cannot publish {product.product_id}: set {places} first", errors=errors)


async def _read_definitions(connection: Connection, content: ProductContent) -> dict[str, AttributeDefinition]:
    if content.category_id is None:
        return {}
    return (await read_definitions(connection, [content.category_id])).get(content.category_id, {})


def check_version(product: Product, version: int | None) -> None:
    """Raise `ProductChanged` unless a change was made from the present version."""
    if version != product.version:
        raise ProductChanged(
            f"{product.product_id} has version {product.version}; read it and repeat the change",
            version=product.version,
        )


def no_product(product_id: str) -> NoSuchProduct:
    """Return the refusal of an unknown product."""
    return NoSuchProduct(f"there is no product {product_id!r}")


def _raise_faults(errors: Errors) -> None:
    if errors:
        raise BadProduct(f"{errors[0]['pointer']}: {errors[0]['detail']}", errors=errors)


def to_public(product: Product, wanted: Sequence[str]) -> PublicProduct:
    """Return a product in the best of its languages for a reader."""
    language = choose_language(product.texts, wanted)
    text = product.texts[language]
    return PublicProduct(
        product_id=product.product_id,
        name=text.name,
        description=text.description,
        language=language,
        languages=sorted(product.texts),
        category_id=product.category_id,
        brand=product.brand,
        attributes=product.attributes,
        options=product.options,
        variants=product.variants,
        updated_at=product.updated_at,
    )


def to_listed(summary: ProductSummary, wanted: Sequence[str]) -> ListedProduct | None:
    """Return a product of a list in the best of its languages; None without variants."""
    if summary.min_price is None or summary.max_price is None or summary.currency is None:
        return None
    language = choose_language(summary.names, wanted)
    return ListedProduct(
        product_id=summary.product_id,
        name=summary.names[language],
        language=language,
        category_id=summary.category_id,
        brand=summary.brand,
        min_price=summary.min_price,
        max_price=summary.max_price,
        currency=summary.currency,
    )
