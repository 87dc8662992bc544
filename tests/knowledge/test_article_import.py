"""Imports of articles that were interrupted."""

from __future__ import annotations

from typing import Any

import pytest

from commerce.knowledge.article_files import import_articles, parse_article
from commerce.knowledge.model import VersionStep
from commerce.knowledge.service import Knowledge
from ops.services import CliServices

_CONTENT = "---\ntitle: Freight\naudience: public\nowner: lead\nreview_by: 2027-06-30\n---\nThe shop pays."


async def test_import_submits_a_draft_that_an_interrupted_one_has_left(
    shop: CliServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = parse_article("freight.en.md", _CONTENT)

    async def statuses() -> list[str]:
        return [version.status for version in (await shop.knowledge.get("freight")).versions]

    async def run(**options: bool) -> str:
        [imported] = await import_articles(shop.knowledge, [file], "staff ann", **{"is_dry_run": False, **options})
        return imported.effect

    async def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Knowledge, "submit", interrupt)
        with pytest.raises(KeyboardInterrupt):
            await run()
    assert await statuses() == ["draft"]
    assert await run(is_dry_run=True) == "changed"
    assert await run() == "changed"
    assert await statuses() == ["in_review"]
    assert await run() == "unchanged"
    await shop.knowledge.publish("freight", VersionStep("en", 1), "staff ben")
    assert await run() == "unchanged"
    assert await statuses() == ["published"]
