"""`floodgate catalog quality` and `floodgate report quality` as staff have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commerce.catalog.model import VariantInput
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.product_shop import add_categories, make_product
from tests.support.sales import make_sale


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def test_quality_is_counted_listed_shown_and_reported(
    shop: CliServices, floodgate: Command, tmp_path: Path
) -> None:
    await add_categories(shop)
    await make_product(shop)
    await shop.catalog.put("sock", VariantInput("Sock [bold]x", 9, "CNY"))
    status, output = await floodgate("catalog", "quality", "recount")
    assert (status, "2 products are looked at" in output) == (0, True), output
    status, output = await floodgate("catalog", "quality", "list", "--json")
    assert [item["product_id"] for item in json.loads(output)] == ["sock", "shirt"]
    status, output = await floodgate("catalog", "quality", "list", "--reason", "no_category", "--on-sale")
    assert (status, "Sock [bold]x" in output, "shirt" in output) == (0, True, False), output
    status, output = await floodgate("catalog", "quality", "list", "--category", "mugs", "--grade", "A")
    assert (status, "no product is like that" in output) == (0, True), output
    status, output = await floodgate("catalog", "quality", "show", "shirt")
    assert (status, "shirt has the grade E with 47 points" in output, "upload a picture" in output) == (0, True, True)
    status, output = await floodgate("catalog", "quality", "show", "none")
    assert (status, "none has no grade" in output) == (1, True), output
    files = tmp_path / "quality.csv", tmp_path / "quality.svg"
    status, output = await floodgate("report", "quality", "--csv", files[0], "--picture", files[1])
    assert (status, "100" not in output) == (0, True), output
    [row] = csv.DictReader(files[0].read_text().splitlines())
    assert (row["products"], row["E"], files[1].stat().st_size > 5_000) == ("1", "1", True)
    status, output = await floodgate("report", "quality", "--drafts", "--by", "category", "--json")
    assert [row["category_id"] for row in json.loads(output)["rows"]] == ["shirts"]
    status, output = await floodgate("report", "quality", "--picture", "quality.pdf")
    assert (status, "the file must end in .svg or .png" in output) == (1, True), output


async def test_product_of_a_low_grade_is_published_anyway(shop: CliServices, floodgate: Command) -> None:
    await add_categories(shop)
    await make_product(shop)
    status, output = await floodgate("catalog", "publish", "shirt", "--reason", "season begins")
    assert (status, "its grade is E with 47 points" in output, "upload a picture" in output) == (1, True, True), output
    status, output = await floodgate(
        "catalog", "publish", "shirt", "--reason", "season begins", "--anyway", "pictures on Monday"
    )
    assert (status, "shirt is on_sale" in output) == (0, True), output
    status, output = await floodgate("catalog", "changes", "shirt", "--json")
    assert json.loads(output)[0]["diff"]["anyway"] == [None, "pictures on Monday"]


async def test_retiring_a_product_of_an_open_sale_warns(shop: CliServices, floodgate: Command, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"sock": (5, 100, None)})
    status, output = await floodgate("catalog", "retire", "sock", "--reason", "out of season")
    assert (status, f"{sale_id} goes on selling it" in output, "sock is retired" in output) == (0, True, True), output
