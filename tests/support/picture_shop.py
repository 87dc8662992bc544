"""A shop with products, and what tests send as pictures of them."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from typing import Any

from PIL import Image

from commerce.catalog.model import VariantInput
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import TestGateway
from tests.support.sales import eventually

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


def pictures_path(product_id: str = PRODUCT, rest: str = "/pictures") -> str:
    return f"/v1/admin/products/{product_id}{rest}"


async def upload(staff: TestGateway, content: bytes, product_id: str = PRODUCT) -> dict[str, Any]:
    """Upload a file and wait until its import has ended."""
    answer = await staff.call("POST", pictures_path(product_id), data=content, **STAFF)
    assert answer.status in (200, 202), answer.text
    return await ended(staff, answer.headers["Location"])


async def ended(staff: TestGateway, path: str) -> dict[str, Any]:
    async def read() -> dict[str, Any] | None:
        body = (await staff.call("GET", path, **STAFF)).body
        return body if body["status"] != "pending" else None

    return await eventually(read)


async def list_digests(staff: TestGateway, product_id: str = PRODUCT) -> list[str]:
    answer = await staff.call("GET", pictures_path(product_id), **STAFF)
    return [item["digest"] for item in answer.body["pictures"]]


def list_files(settings: Settings) -> set[str]:
    return {file.name for file in (settings.data_dir / "pictures").rglob("*") if file.is_file()}


async def files_without(settings: Settings, *uploads: bytes) -> set[str]:
    """Wait until the uploads themselves are gone, and return the files that are left."""

    async def read() -> set[str]:
        files = list_files(settings)
        return set() if files & {sha256(content).hexdigest() for content in uploads} else files

    return await eventually(read)
