"""The text on the customer's bill."""

from __future__ import annotations

import pytest

from commerce.payments.bill_text import MAX_BYTES, build_bill_text


@pytest.mark.parametrize(
    ("shop", "product", "quantity", "others", "text"),
    [
        ("Tea House", "Blue mug", 2, 0, "Tea House: Blue mug ×2"),
        ("Tea House", "Blue mug", 2, 3, "Tea House: Blue mug ×2 (+3)"),
        ("", "Blue mug", 1, 0, "Blue mug ×1"),
        ("茶馆", "青花瓷杯", 1, 0, "茶馆: 青花瓷杯 ×1"),
        ("Tea & Co", "a/b=c&d <x> \"y\" 'z' `q` \\", 1, 0, "Tea Co: a b c d x y z q ×1"),
        ("Shop", "two\nlines\x00\x1b[31m\u200b\u202e end", 1, 0, "Shop: two lines [31m end ×1"),
        ("Shop", "half \ud83c tea 🍵", 1, 0, "Shop: half tea ×1"),
        ("Shop", "🍵🍵", 1, 0, "Shop: M-1 ×1"),
    ],
)
def test_bill_text_with_any_name_has_no_refused_character(
    shop: str, product: str, quantity: int, others: int, text: str
) -> None:
    assert build_bill_text(shop, product, "M-1", quantity, others) == text


@pytest.mark.parametrize("product", ["x" * 200, "茶" * 200, "é" * 200, "茶x" * 100])
def test_long_product_name_is_shortened_and_count_stays(product: str) -> None:
    text = build_bill_text("茶" * 20, product, "M-1", 100_000, 99)
    assert MAX_BYTES - 6 <= len(text.encode()) <= MAX_BYTES
    assert text.startswith(f"{'茶' * 20}: {product[0]}")
    assert text.endswith("… ×100000 (+99)")
