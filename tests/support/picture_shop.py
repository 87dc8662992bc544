"""A shop with products, and what tests send as pictures of them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from PIL import Image

from commerce.catalog.model import VariantInput
from ops.services import CliServices

PRODUCT, OTHER_PRODUCT = "TEA-1", "TEA-2"
STAFF = {"user": "kim", "roles": ["catalog"]}


async def create_products(shop: CliServices) -> None:
    """Create two products."""
    await shop.catalog.put_many([(sku, VariantInput("Tea", 100, "CNY")) for sku in (PRODUCT, OTHER_PRODUCT)])


def picture(size: tuple[int, int] = (40, 30), form: str = "JPEG", color: str = "red", **options: Any) -> bytes:
    """Return a picture of one colour."""
    written = BytesIO()
    Image.new("RGBA" if form == "PNG" else "RGB", size, color).save(written, form, **options)
    return written.getvalue()


def pictures_path(product_id: str = PRODUCT, rest: str = "") -> str:
    return f"/v1/admin/products/{product_id}/pictures{rest}"
