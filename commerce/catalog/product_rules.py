"""Rules of products and their variants, and the differences that a change makes. They read nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Mapping
from typing import Any

import msgspec

from commerce.catalog.errors import BadProduct, DuplicateVariant
from commerce.catalog.model import Product, ProductContent, ProductPatch, Variant
from commerce.categories.attribute_values import AttributeDefinition, validate_attributes

_MAX_DIFF_CHARS = 200
Errors = list[dict[str, str]]


def merge(product: Product, patch: ProductPatch) -> ProductContent:
    """Return the content of a product after a change. Raises `BadProduct` if no text is left."""
    texts = {language: text for language, text in {**product.texts, **patch.texts}.items() if text is not None}
    if not texts:
        raise BadProduct("a product needs a name in one language at least")
    attributes = {**product.attributes, **patch.attributes}
    try:
        return msgspec.convert(
            {
                "texts": texts,
                "category_id": product.category_id if patch.category_id is msgspec.UNSET else patch.category_id,
                "brand": product.brand if patch.brand is msgspec.UNSET else patch.brand,
                "attributes": {name: value for name, value in attributes.items() if value is not None},
                "options": product.options if patch.options is msgspec.UNSET else patch.options,
            },
            ProductContent,
        )
    except msgspec.ValidationError as error:  # together they may be too many
        raise BadProduct(str(error)) from None


def content_of(product: Product) -> ProductContent:
    """Return what a product has besides its status and its variants."""
    return ProductContent(
        texts=product.texts,
        category_id=product.category_id,
        brand=product.brand,
        attributes=product.attributes,
        options=product.options,
    )


def check_content(
    content: ProductContent,
    definitions: Mapping[str, AttributeDefinition],
    kept: Mapping[str, Any],
    *,
    must_be_complete: bool,
) -> Errors:
    """Return what is wrong with attributes and options, by JSON pointer.

    `definitions` are those of the category, none without one. What stands in `kept` is right.
    """
    errors = []
    for place, option in enumerate(content.options):
        if content.options.index(option) < place:
            errors.append({"pointer": f"/options/{place}", "detail": "the option is named twice"})
        elif option in content.attributes:
            detail = "the variants have a value each: leave it out of the attributes"
            errors.append({"pointer": f"/options/{place}", "detail": detail})
        elif option not in definitions and option not in kept:
            detail = "the category has no such attribute" if content.category_id else "choose a category first"
            errors.append({"pointer": f"/options/{place}", "detail": detail})
    own = {name: definition for name, definition in definitions.items() if name not in content.options}
    values = {name: value for name, value in content.attributes.items() if name not in content.options}
    return errors + validate_attributes(own, values, kept=kept, must_be_complete=must_be_complete)


def check_option_values(
    options: list[str],
    values: Mapping[str, Any],
    definitions: Mapping[str, AttributeDefinition],
    kept: Mapping[str, Any],
    pointer: str,
) -> Errors:
    """Return what is wrong with the option values of a variant, by JSON pointer."""
    missing = [option for option in options if option not in values]
    errors = [{"pointer": pointer, "detail": f"the option {option} has no value"} for option in missing]
    unknown = [name for name in values if name not in options]
    errors += [{"pointer": pointer, "detail": f"{name} is no option of the product"} for name in unknown]
    chosen = {name: value for name, value in values.items() if name in options}
    return errors + validate_attributes(definitions, chosen, kept=kept, must_be_complete=False, pointer=pointer)


def check_distinct(variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `DuplicateVariant` if two variants have the same option values.

    Case, blanks and the width of characters do not tell them apart.
    """
    skus: dict[Hashable, str] = {}
    for sku, values in variants.items():
        other = skus.setdefault(_key(values), sku)
        if other != sku:
            raise DuplicateVariant(
                f"{sku} would be like {other}: give it other option values, or the product a further option", sku=other
            )


def _key(values: Mapping[str, Any]) -> Hashable:
    return tuple(sorted((name, _fold(value)) for name, value in values.items()))


def _fold(value: Any) -> str:
    """Return a value as it is compared with others of its attribute."""
    if isinstance(value, str):
        return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    if isinstance(value, list):
        return "\n".join(sorted(value))
    return str(float(value))


def describe_product_changes(before: Product | None, after: ProductContent) -> dict[str, list[Any]]:
    """Return the fields that differ, each with [before, after]."""
    old = _flatten(content_of(before)) if before is not None else {}
    return _differences(old, _flatten(after))


def describe_variant_changes(sku: str, before: Variant | None, after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the fields of a variant that differ, each with [before, after].

    Prices have a history of their own.
    """
    names = ("name", "option_values", "barcode")
    old = {} if before is None else {f"variants/{sku}/{name}": getattr(before, name) for name in names}
    return _differences(old, {f"variants/{sku}/{name}": after[name] for name in names})


def _flatten(content: ProductContent) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "category_id": content.category_id,
        "brand": content.brand,
        "options": content.options,
        **{f"attributes/{name}": value for name, value in content.attributes.items()},
    }
    for language, text in content.texts.items():
        flat.update({f"texts/{language}/{name}": value for name, value in msgspec.structs.asdict(text).items()})
    return flat


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: [_shorten(before.get(name)), _shorten(after.get(name))]
        for name in sorted({*before, *after})
        if _none_if_empty(before.get(name)) != _none_if_empty(after.get(name))
    }


def _none_if_empty(value: Any) -> Any:
    return None if value in ("", [], {}) else value


def _shorten(value: Any) -> Any:
    """Return a value as it stands in the history of changes, which keeps no long texts."""
    if isinstance(value, str) and len(value) > _MAX_DIFF_CHARS:
        return value[:_MAX_DIFF_CHARS] + "…"
    if isinstance(value, list | dict) and len(text := msgspec.json.encode(value).decode()) > _MAX_DIFF_CHARS:
        return text[:_MAX_DIFF_CHARS] + "…"
    return value
