"""Sample catalogs of other shop systems, imported and exported whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from loadtest.sample_catalogs import SampleCatalog, read_retail, read_saleor, read_spree
from ops.services import CliServices
from tests.support.product_files import apply, changes, check, export, faults
from tests.support.product_shop import ACTOR

FOLDER = Path(os.environ.get("FLOODGATE_TEST_CATALOGS", ""))
"""folder with the catalogs of Spree and Saleor, and the baskets of Online Retail, if named"""
CATALOGS: dict[str, tuple[Callable[[Path], SampleCatalog], str, int, int]] = {
    "Spree": (read_spree, "spree", 37, 0),
    "Saleor": (read_saleor, "saleor/populatedb_data.json.gz", 32, 0),
    "Online Retail": (read_retail, "online-retail-2010-12-01to03.csv.gz", 2_000, 0),
}


@pytest.mark.skipif(not FOLDER.name, reason="FLOODGATE_TEST_CATALOGS does not name the folder of the catalogs")
@pytest.mark.parametrize("name", CATALOGS)
async def test_sample_catalog_is_imported_and_exported_whole(shop: CliServices, name: str) -> None:
    read, path, min_products, refused = CATALOGS[name]
    catalog = read(FOLDER / path)
    await catalog.store_categories(shop.categories, ACTOR)
    content = catalog.encode()
    current = await check(shop, content, "jsonl")
    assert (current.lines, current.created, current.refused) == (
        len(catalog.products),
        current.lines - refused,
        refused,
    ), await faults(shop, current)
    assert current.lines >= min_products
    applied = await apply(shop, current)
    assert (applied.applied_products, applied.failed_products) == (current.created, 0)
    variants = sum(len(product["variants"]) for product in catalog.products.values())
    print(f"{name}: {current.lines} products with {variants} variants; left out: {dict(catalog.left_out)}")
    for raw, file_format in (
        (content, "jsonl"),
        (await export(shop, "jsonl"), "jsonl"),
        (await export(shop, "csv"), "csv"),
    ):
        again = await check(shop, raw, file_format)  # type: ignore[arg-type]
        assert (again.created, again.changed, again.refused) == (0, 0, 0), (
            await changes(shop, again),
            await faults(shop, again),
        )
        assert again.unchanged > 0


def test_spree_rows_become_products_with_variants(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(
        "slug,sku,name,price,currency,description,category1,option1_name,option1_value,custom_field.custom.wattage\n"
        "lamp,LAMP,Lamp,0,USD,Bright,Home -> Lamps,,,5W\nlamp,LAMP-R,,9.5,USD,,,Color,Red,\nlamp,LAMP-R,,8,EUR,,,,,\n"
    )
    (tmp_path / "product_translations.csv").write_text("slug,locale,name,description\nlamp,de,Lampe,\nno,de,N,\n")
    catalog = read_spree(tmp_path)
    assert catalog.categories == {"home": ("Home", None), "home-lamps": ("Lamps", "home")}
    [lamp] = catalog.products.values()
    assert (lamp["status"], lamp["attributes"], lamp["options"]) == ("on_sale", {"wattage": "5W"}, ["color"])
    assert lamp["texts"]["de"] == {"name": "Lampe", "description": None}
    assert [(v["sku"], v["price"], v["option_values"]) for v in lamp["variants"]] == [
        ("LAMP-R", 950, {"color": "color__red"})
    ]
    assert catalog.left_out == {"prices in EUR": 1, "translations of other products": 1}
