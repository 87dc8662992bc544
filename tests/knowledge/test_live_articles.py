"""Articles in the memory of a gateway: searched beside requests, and suggested without a look at each."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, date, datetime
from time import process_time
from typing import Any

import pytest

from commerce.knowledge.article_index import CUSTOMERS, ArticleIndex, ArticleLinks, weigh_article
from commerce.knowledge.live_articles import LiveArticles
from commerce.knowledge.model import (
    ArticleInput,
    ArticleTerms,
    ArticleText,
    PublishedArticle,
    PublishedText,
    SuggestionInput,
    VersionStep,
)
from ops.services import CliServices

_AUTHOR, _REVIEWER = "staff ann", "staff ben"


def _terms(**fields: Any) -> ArticleTerms:
    return ArticleTerms(**{"audience": "public", "owner": "lead", "review_by": date(2027, 6, 30), **fields})


def _article(article_id: str, title: str = "Freight", **fields: Any) -> PublishedArticle:
    text = PublishedText(1, datetime(2026, 11, 11, tzinfo=UTC), ArticleText(title=title, body="The shop pays."))
    return PublishedArticle(article_id, _terms(**fields), {"en": text})


async def _publish(shop: CliServices, article_id: str, title: str) -> None:
    article = await shop.knowledge.find(article_id)
    version = article.version if article else None
    await shop.knowledge.put(article_id, ArticleInput(_terms(), version), _AUTHOR)
    number = await shop.knowledge.add_version(article_id, "en", ArticleText(title=title, body="Text"), _AUTHOR)
    await shop.knowledge.submit(article_id, VersionStep("en", number), _AUTHOR)
    await shop.knowledge.publish(article_id, VersionStep("en", number), _REVIEWER)


def _put(index: ArticleIndex, article: PublishedArticle) -> None:
    index.put(article, weigh_article(article))


def test_links_follow_changes_of_an_article() -> None:
    index = ArticleIndex()
    _put(index, _article("freight", reasons=["defective"], skus=["A"], categories=["shoes"]))
    _put(index, _article("other", reasons=["defective"], skus=["A", "B"]))

    def listed(**links: str) -> list[str]:
        return [each.article_id for each in index.list_articles(None, 9, "en", ArticleLinks(**links), CUSTOMERS)]

    def suggested(**situation: Any) -> list[str]:
        return [each.article_id for each in index.suggest(SuggestionInput(**situation, language="en"), CUSTOMERS, 9)]

    assert listed(reason="defective") == listed(sku="A") == listed() == ["freight", "other"]
    assert listed(reason="defective", category="shoes") == ["freight"]
    assert listed(reason="defective", category="hats") == []
    assert suggested(reason="defective", skus=["B"]) == ["other", "freight"]
    _put(index, _article("freight", skus=["B"]))
    assert listed(reason="defective") == ["other"]
    assert listed(sku="B") == ["freight", "other"]
    assert suggested(skus=["A", "B"]) == ["freight", "other"]
    index.remove("other")
    assert (listed(sku="B"), listed(reason="defective"), suggested(reason="defective")) == (["freight"], [], [])
    _put(index, _article("hats", title="Freight", categories=["hats"]))
    matches = index.search("freight", "en", CUSTOMERS, 9, ArticleLinks(category="hats"))
    assert [each.article_id for each in matches] == ["hats"]
    assert index.search("freight", "en", CUSTOMERS, 9, ArticleLinks(category="hats", sku="B")) == []
    _put(index, _article("staff", audience="internal", reasons=["defective"]))
    assert (listed(reason="defective"), suggested(reason="defective")) == ([], [])


def test_suggestion_for_many_products_reads_only_linked_articles() -> None:
    index = ArticleIndex()
    for number in range(2_000):
        _put(index, _article(f"a{number}", skus=[f"s{number}-{place}" for place in range(300)]))
    situation = SuggestionInput(skus=[*(f"none-{number}" for number in range(99)), "s7-7"], language="en")
    began = process_time()
    matches = index.suggest(situation, CUSTOMERS, 5)
    assert [article.article_id for article in matches] == ["a7"]
    assert process_time() - began < 0.3


async def test_searches_run_beside_the_event_loop(shop: CliServices, monkeypatch: pytest.MonkeyPatch) -> None:
    await _publish(shop, "freight", "Who pays freight")
    live = LiveArticles(shop.db, shop.clock, b"key")
    await live.refresh()
    threads = set[int]()

    def note_thread(name: str) -> None:
        wrapped = getattr(ArticleIndex, name)

        def call(*arguments: Any) -> Any:
            threads.add(threading.get_ident())
            return wrapped(*arguments)

        monkeypatch.setattr(ArticleIndex, name, call)

    note_thread("search")
    note_thread("suggest")
    assert [hit.article_id for hit in await live.search("freight", None, CUSTOMERS, 5)] == ["freight"]
    await live.suggest(SuggestionInput(text="freight"), CUSTOMERS, 5)
    assert threads
    assert threading.get_ident() not in threads


async def test_searches_find_articles_while_they_change(shop: CliServices) -> None:
    for number in range(10):
        await _publish(shop, f"a{number}", f"Freight {number}")
    live = LiveArticles(shop.db, shop.clock, b"key")
    await live.refresh()
    stop = asyncio.Event()

    async def search() -> int:
        searches = 0
        while not stop.is_set():
            assert len(await live.search("freight", "en", CUSTOMERS, 20)) >= 9
            assert (await live.read("a0", "en", CUSTOMERS)).article_id == "a0"
            searches += 1
        return searches

    async def change() -> None:
        for number in range(10):
            await _publish(shop, "a0", f"Freight again {number}")
            await shop.knowledge.retire("a1", VersionStep("en", number + 1), _AUTHOR)
            await live.refresh()
            await _publish(shop, "a1", f"Freight {number}")
            await live.refresh()
        stop.set()

    searches = await asyncio.gather(change(), *(search() for _ in range(3)))
    assert min(number for number in searches if number is not None) > 0
    assert (await live.read("a0", "en", CUSTOMERS)).title == "Freight again 9"
