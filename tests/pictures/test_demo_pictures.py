"""The demonstration's pictures: drawn, small, one for each product, once."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from commerce.catalog.model import VariantInput
from commerce.kernel.picture_containers import check_container
from ops.local.demo_pictures import create_demo_pictures, draw
from ops.local.demo_sales import PRODUCTS
from ops.services import CliServices


async def test_each_product_of_the_demonstration_gets_its_own_picture_once(shop: CliServices) -> None:
    await shop.catalog.put_many([(sku, VariantInput(name, price, "CNY")) for sku, name, price, _, _ in PRODUCTS])
    for _ in range(2):
        await create_demo_pictures(shop)
    imports = [item for sku, *_ in PRODUCTS for item in (await shop.pictures.list_of_product(sku)).imports]
    assert [item.product_id for item in imports] == [sku for sku, *_ in PRODUCTS]
    assert len({item.digest for item in imports}) == len(PRODUCTS)


async def test_demonstration_without_its_products_gets_no_pictures(shop: CliServices) -> None:
    await create_demo_pictures(shop)


def test_drawn_picture_is_small() -> None:
    for sku, *_ in PRODUCTS:
        content = draw(sku)
        check_container(content, 50_000_000)
        assert len(content) < 60_000
        with Image.open(BytesIO(content)) as image:
            assert image.size == (1_024, 1_024)
