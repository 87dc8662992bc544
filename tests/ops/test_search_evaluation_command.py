"""`floodgate catalog evaluate` over the judged queries."""

from __future__ import annotations

import json
from pathlib import Path

from commerce.product_search.indexer import ProductIndexer
from config.settings import Settings
from ops.services import CliServices
from tests.product_search.judged_catalog import FOLDER, QUERY_FILES, add_judged_products
from tests.support.commands import make_command
from tests.support.processes import Processes


async def test_search_of_products_is_evaluated_by_file_and_language(
    settings: Settings, shop: CliServices, tmp_path: Path
) -> None:
    floodgate = make_command(Processes(settings, tmp_path).environment())
    await add_judged_products(shop)
    await ProductIndexer(shop.db, shop.clock).reindex()
    files = [FOLDER / name for name in QUERY_FILES]
    status, output = await floodgate("catalog", "evaluate", *files, "--json", "--min-ndcg", "0.5")
    assert status == 0, output
    for name, file in zip(QUERY_FILES, json.loads(output), strict=True):
        assert (file["file"], file["total"]["queries"]) == (name, 100)
        assert {language: part["queries"] for language, part in file["languages"].items()} == {"en": 50, "zh": 50}
        assert {"type", "typo", "traditional", "mixed"} <= file["kinds"].keys()
    status, output = await floodgate("catalog", "evaluate", *files, "--min-ndcg", "1")
    assert status == 1
    assert "below 1" in output
    assert "nDCG@10" in output
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("query,language,products\nmug,en,mug\n", encoding="utf-8")
    status, output = await floodgate("catalog", "evaluate", wrong)
    assert status == 1
    assert "line 2" in output
