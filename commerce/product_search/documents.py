"""Documents of the index: the terms of a product with weights, and properties to filter by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Literal, NamedTuple

from commerce.catalog.model import Product
from commerce.categories.model import AttributeKind
from commerce.product_search.category_phrases import list_name_phrases
from commerce.text_search.spelling import is_corrected
from commerce.text_search.terms import list_spellings, split

CATEGORY, BRAND, CURRENCY = "*category", "*brand", "*currency"
"""Names of properties that are no attributes, whose ids never begin with a star."""
_MAX_TITLE_TERMS, _MAX_TERMS = 600, 4_000
_MAX_VALUES = 500
"""Most values of one attribute, over all variants."""
Weight = Literal["A", "B", "C"]


class AttributeNames(NamedTuple):
    """An attribute of a product, with all its names."""

    kind: AttributeKind
    names: list[str]


class Vocabulary(NamedTuple):
    """Paths and names of categories, attributes, and names of choices, to which products refer."""

    paths: Mapping[str, list[str]]
    category_names: Mapping[str, list[str]]
    attributes: Mapping[str, AttributeNames]
    choice_names: Mapping[str, list[str]]


class ProductDocument(NamedTuple):
    """A product as the index has it. All is empty if it is not listed.

    `title` has the weight of each term: A in a name, and for the whole name of the category; B in search words, brand,
    SKUs and barcodes; C in names of categories and in attributes. `body` has the further terms of descriptions.
    `filters` has `name=value`, and the id of each attribute alone. `spellings` has words of the title by their
    stems."""

    product_id: str
    is_listed: bool
    names: dict[str, str]
    category_id: str | None
    brand: str | None
    currency: str | None
    prices: list[int]
    skus: list[str]
    numbers: dict[str, list[float]]
    filters: list[str]
    title: dict[str, Weight]
    body: list[str]
    spellings: dict[str, str]


def build_document(product: Product, vocabulary: Vocabulary) -> ProductDocument:
    """Return a product as the index has it. Takes about a millisecond per page of text."""
    if product.status != "on_sale" or not product.variants:
        return build_unlisted(product.product_id)
    values = _collect_values(product)
    path = [] if product.category_id is None else vocabulary.paths.get(product.category_id, [])
    parts = _list_title_parts(product, path, values, vocabulary)
    title = _list_category_phrases(path, vocabulary)
    spellings: dict[str, str] = {}
    for weight, texts in parts:
        for text in texts:
            terms, corrected = _analyse_title_text(text)
            for term in terms:
                title.setdefault(term, weight)
            add_spellings(spellings, corrected)
    title = dict(islice(title.items(), _MAX_TITLE_TERMS))
    return ProductDocument(
        product_id=product.product_id,
        is_listed=True,
        names={language: text.name for language, text in product.texts.items()},
        category_id=product.category_id,
        brand=product.brand,
        currency=product.variants[0].currency,
        prices=sorted({variant.price for variant in product.variants}),
        skus=[variant.sku for variant in product.variants],
        numbers=_list_numbers(values),
        filters=_list_filters(product, path, values, vocabulary),
        title=title,
        body=_list_body(product, title),
        spellings={stem: word for stem, word in spellings.items() if stem in title},
    )


def build_unlisted(product_id: str) -> ProductDocument:
    """Return the empty document of a product that no search finds."""
    return ProductDocument(product_id, False, {}, None, None, None, [], [], {}, [], {}, [], {})


def add_spellings(spellings: dict[str, str], words: Iterable[tuple[str, str]]) -> None:
    """Add words by their stems, and keep the shortest of each: a singular rather than a plural."""
    for stem, word in words:
        spellings[stem] = min(spellings.get(stem, word), word, key=len)


def _collect_values(product: Product) -> dict[str, list[Any]]:
    """Return the values of each attribute, of the product and of its variants, each once."""
    values: dict[str, dict[tuple[type, Any], None]] = {}
    for source in (product.attributes, *(variant.option_values for variant in product.variants)):
        for attribute_id, value in source.items():
            kept = values.setdefault(attribute_id, {})
            for part in value if isinstance(value, list) else [value]:
                if len(kept) < _MAX_VALUES:
                    kept[type(part), part] = None
    return {attribute_id: [part for _, part in kept] for attribute_id, kept in values.items()}


def _list_title_parts(
    product: Product, path: list[str], values: Mapping[str, list[Any]], vocabulary: Vocabulary
) -> list[tuple[Weight, list[str]]]:
    """Return the texts of the title, those that count most first."""
    texts = product.texts.values()
    codes = [code for variant in product.variants for code in (variant.sku, variant.barcode) if code is not None]
    described = [product.product_id, *([product.brand] if product.brand else []), *codes]
    return [
        ("A", [text.name for text in texts]),
        ("B", [*(word for text in texts for word in text.search_words), *described]),
        ("C", [name for category_id in path for name in vocabulary.category_names.get(category_id, [])]),
        ("C", list(_list_value_texts(values, vocabulary))),
        ("C", [variant.name for variant in product.variants]),
    ]


def _list_category_phrases(path: list[str], vocabulary: Vocabulary) -> dict[str, Weight]:
    """Return the names of the categories as terms: A for that of the product, C for those above it."""
    phrases: dict[str, Weight] = {}
    for category_id in reversed(path):
        for name in vocabulary.category_names.get(category_id, []):
            for phrase in list_name_phrases(name):
                phrases.setdefault(phrase, "A" if category_id == path[-1] else "C")
    return phrases


def _list_value_texts(values: Mapping[str, list[Any]], vocabulary: Vocabulary) -> Iterator[str]:
    """Yield attributes as texts: the names of choices, numbers, texts, and the name of what is true."""
    for attribute_id, parts in values.items():
        attribute = vocabulary.attributes.get(attribute_id)
        if attribute is None:
            continue
        for part in parts:
            if part is True:
                yield from attribute.names
            elif attribute.kind in ("choice", "choices"):
                yield from vocabulary.choice_names.get(str(part), [])
            elif part is not False:
                yield f"{part:g}" if isinstance(part, float) else str(part)


def _list_filters(
    product: Product, path: list[str], values: Mapping[str, list[Any]], vocabulary: Vocabulary
) -> list[str]:
    filters = [f"{CATEGORY}={category_id}" for category_id in path]
    filters += [f"{BRAND}={product.brand}"] if product.brand else []
    filters.append(f"{CURRENCY}={product.variants[0].currency}")
    for attribute_id, parts in values.items():
        filters.append(attribute_id)
        attribute = vocabulary.attributes.get(attribute_id)
        if attribute is None:
            continue
        if attribute.kind in ("choice", "choices"):
            filters += [f"{attribute_id}={part}" for part in parts]
        elif attribute.kind == "boolean":
            filters += [f"{attribute_id}={'true' if part else 'false'}" for part in parts]
    return filters


def _list_numbers(values: Mapping[str, list[Any]]) -> dict[str, list[float]]:
    numbers = {
        attribute_id: [part for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
        for attribute_id, parts in values.items()
    }
    return {attribute_id: sorted(parts) for attribute_id, parts in numbers.items() if parts}


def _list_body(product: Product, title: Mapping[str, Weight]) -> list[str]:
    """Return the terms of descriptions that the title does not have."""
    descriptions = (text.description for text in product.texts.values() if text.description)
    terms = dict.fromkeys(term for text in descriptions for term in _list_terms(text) if term not in title)
    return list(islice(terms, _MAX_TERMS))


@lru_cache(maxsize=20_000)
def _analyse_title_text(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the terms of a text, and its words that are corrected, with their stems.

    Products of a category repeat its names and those of its choices."""
    return _list_terms(text), [entry for entry in list_spellings(text) if is_corrected(entry[0])]


def _list_terms(text: str) -> list[str]:
    """Return the terms of a text, without those of synonyms, which are about orders."""
    words, pairs, characters = split(text)
    return [term for terms in (words, pairs, characters) for term in terms if not term.startswith("=")]
