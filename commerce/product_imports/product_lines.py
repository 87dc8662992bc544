"""Reads products from JSON Lines: each line is a product with its variants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET

from commerce.kernel.csv_records import NumberedLine
from commerce.kernel.text_files import has_surrogates
from commerce.kernel.types import explain_mismatch
from commerce.product_imports.model import (
    MAX_LINE_CHARS,
    Fault,
    ImportedProduct,
    ImportedVariant,
    ProductLine,
    ProductLines,
)

_decoder = msgspec.json.Decoder(ProductLine)


def read_product_lines(lines: Iterable[NumberedLine]) -> Iterator[ProductLines]:
    """Yield the product of each line, or why it cannot be read."""
    for line, text in lines:
        if not text.strip():
            yield ProductLines([], line, 1, None, [])
            continue
        try:
            product = _read(line, text)
            faults = _find_repeated(product)
        except msgspec.MsgspecError as error:
            reason, _, path = explain_mismatch(msgspec.ValidationError(str(error))).partition(" - at `$")
            product, faults = None, [Fault(line, path.strip("`").lstrip("."), reason)]
        except ValueError as error:
            product, faults = None, [Fault(line, "", str(error))]
        yield ProductLines([line], line, 0, product, faults)


def _find_repeated(product: ImportedProduct) -> list[Fault]:
    skus = [variant.sku for variant in product.variants]
    repeated = {sku for sku, count in Counter(skus).items() if count > 1}
    return [Fault(product.line, "sku", f"the SKU {sku[:80]} is there twice") for sku in sorted(repeated)]


def _read(line: int, text: str) -> ImportedProduct:
    if len(text) > MAX_LINE_CHARS:
        raise ValueError(f"it is longer than {MAX_LINE_CHARS} characters")
    if has_surrogates(text):
        raise ValueError("it is not UTF-8")
    read = _decoder.decode(text)
    return ImportedProduct(
        line,
        read.product_id,
        _pick(read, "status", "category_id", "brand", "options"),
        {
            language: None if words is None else _pick(words, *words.__struct_fields__)
            for language, words in read.texts.items()
        },
        dict(read.attributes),
        [
            ImportedVariant(line, variant.sku, _pick(variant, "name", "price", "currency", "barcode", "option_values"))
            for variant in read.variants
        ],
    )


def _pick(read: msgspec.Struct, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(read, name)) is not UNSET}
