"""The text on a customer's bill at a provider: the shop, the first product, and the number of others."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 127
"""of UTF-8; the limit of WeChat Pay's `description`, the shortest of all providers"""

_UNPRINTABLE = ("C", "Z")
"""Unicode categories that become blanks: control, format, surrogates, unassigned; separators"""
_REFUSED = re.compile(r"[/=&<>\"'\\`\U00010000-\U0010ffff]")
"""Alipay refuses / = & in a subject; the others, and emoji, are shown wrongly on some bills"""
_ELLIPSIS = "…"


def build_bill_text(shop_name: str, product_name: str, sku: str, quantity: int, other_products: int) -> str:
    """Return a text of at most `MAX_BYTES` bytes, with (+n) for the products after the first.

    Only the product's name is shortened; without a printable one the SKU is used. `other_products` counts the further
    products of the order."""
    shop, product = _clean(shop_name), _clean(product_name) or sku
    head, tail = f"{shop}: " if shop else "", f" ×{quantity}" + (f" (+{other_products})" if other_products else "")
    room = MAX_BYTES - len((head + tail).encode())
    if len(product.encode()) > room:
        product = _truncate(product, room - len(_ELLIPSIS.encode())).rstrip() + _ELLIPSIS
    return head + product + tail


def _clean(text: str) -> str:
    printable = "".join(" " if unicodedata.category(char)[0] in _UNPRINTABLE else char for char in text)
    return " ".join(_REFUSED.sub(" ", printable).split())


def _truncate(text: str, max_bytes: int) -> str:
    return text.encode()[: max(max_bytes, 0)].decode(errors="ignore")
