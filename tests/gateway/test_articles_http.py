"""Articles over HTTP: staff write and publish them, customers find, read and rate them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from config.settings import Settings
from tests.support.gateway import GatewayResponse, TestGateway, open_gateway
from tests.support.sales import eventually

ADMIN, PUBLIC = "/v1/admin/articles", "/v1/articles"
TERMS: dict[str, Any] = {
    "audience": "public",
    "owner": "support-lead",
    "review_by": "2027-06-30",
    "reasons": ["defective"],
    "skus": ["MUG-01"],
    "categories": ["kitchen"],
}
TEXT = {"title": "退货的运费谁来出", "search_words": ["邮费"], "body": "质量问题由**商家**承担运费。<script>x</script>"}
ENGLISH = {"title": "Who pays for sending it back", "search_words": [], "body": "The shop does if it is broken."}


async def staff(gateway: TestGateway, method: str, path: str, body: Any = None, user: str = "ann") -> GatewayResponse:
    return await gateway.call(method, path, user=user, roles=["support"], json=body)


async def put_article(gateway: TestGateway, article_id: str, **terms: Any) -> GatewayResponse:
    return await staff(gateway, "PUT", f"{ADMIN}/{article_id}", {"terms": {**TERMS, **terms}})


async def publish(gateway: TestGateway, article_id: str, language: str, text: dict[str, Any]) -> int:
    """Add a version, have it reviewed by somebody else, and wait until it is read."""
    added = await staff(gateway, "POST", f"{ADMIN}/{article_id}/versions", {"language": language, "text": text})
    assert added.status == 201, added.text
    version = int(added.headers["Location"].rpartition("/")[2])
    step = {"language": language, "version": version}
    assert (await staff(gateway, "POST", f"{ADMIN}/{article_id}/review", step)).status == 200
    published = await staff(gateway, "POST", f"{ADMIN}/{article_id}/publish", step, "bea")
    assert published.status == 200, published.text
    await gateway.services.articles.live.refresh()
    return version


async def find(gateway: TestGateway, query: str, path: str = PUBLIC, **more: str) -> list[str]:
    roles = ["support"] if "admin" in path else []
    answer = await gateway.call("GET", path, user="ann" if roles else None, roles=roles, params={"q": query, **more})
    assert answer.status == 200, answer.text
    return [article["article_id"] for article in answer.body["items"]]


async def test_article_is_written_reviewed_published_read_and_retired(gateway: TestGateway) -> None:
    created = await put_article(gateway, "freight")
    assert (created.status, created.body["version"], created.body["versions"]) == (200, 1, []), created.text
    assert (await put_article(gateway, "freight")).body == created.body
    step = {"language": "zh", "version": 1}
    await staff(gateway, "POST", f"{ADMIN}/freight/versions", {"language": "zh", "text": TEXT})
    early = await staff(gateway, "POST", f"{ADMIN}/freight/publish", step, "bea")
    assert (early.status, early.code) == (409, "article_status")
    await staff(gateway, "POST", f"{ADMIN}/freight/review", step)
    own = await staff(gateway, "POST", f"{ADMIN}/freight/publish", step, "ann")
    assert (own.status, own.code) == (409, "reviewer_is_author")
    await gateway.services.articles.live.refresh()
    assert (await gateway.call("GET", f"{PUBLIC}/freight", user=None)).status == 404
    published = await staff(gateway, "POST", f"{ADMIN}/freight/publish", step, "bea")
    [version] = published.body["versions"]
    assert (version["status"], version["author"], version["reviewer"]) == ("published", "staff ann", "staff bea")
    repeated = await staff(gateway, "POST", f"{ADMIN}/freight/publish", step, "bea")
    assert repeated.body == published.body

    async def is_visible() -> bool:  # no refresh: the gateway reads it within a second
        return (await gateway.call("GET", f"{PUBLIC}/freight", user=None)).status == 200

    await eventually(is_visible)
    read = await gateway.call("GET", f"{PUBLIC}/freight?language=en", user=None)
    assert (read.body["language"], read.body["languages"], read.body["body"]) == ("zh", ["zh"], TEXT["body"])
    assert read.body["html"] == "<p>质量问题由<strong>商家</strong>承担运费。&lt;script&gt;x&lt;/script&gt;</p>\n"
    headers = {"If-None-Match": read.headers["ETag"]}
    assert (await gateway.call("GET", f"{PUBLIC}/freight", user=None, headers=headers)).status == 304
    assert "public" in read.headers["Cache-Control"]
    assert await find(gateway, "运费") == ["freight"]
    await staff(gateway, "POST", f"{ADMIN}/freight/retire", step)
    await gateway.services.articles.live.refresh()
    assert await find(gateway, "运费") == []
    assert (await gateway.call("GET", f"{PUBLIC}/freight", user=None)).status == 404


async def test_new_version_takes_the_place_of_the_published_one_and_texts_never_change(
    gateway: TestGateway, database_url: str
) -> None:
    await put_article(gateway, "freight")
    assert await publish(gateway, "freight", "zh", TEXT) == 1
    assert await publish(gateway, "freight", "en", ENGLISH) == 1
    await staff(gateway, "POST", f"{ADMIN}/freight/versions", {"language": "zh", "text": {**TEXT, "title": "暂定"}})
    assert await publish(gateway, "freight", "zh", {**TEXT, "title": "退货邮费"}) == 3
    article = (await staff(gateway, "GET", f"{ADMIN}/freight")).body
    states = [(version["language"], version["version"], version["status"]) for version in article["versions"]]
    assert states == [("zh", 3, "published"), ("zh", 2, "retired"), ("zh", 1, "retired"), ("en", 1, "published")]
    old = (await staff(gateway, "GET", f"{ADMIN}/freight/zh/1")).body
    assert (old["text"]["title"], old["summary"]["status"]) == (TEXT["title"], "retired")
    assert (await staff(gateway, "GET", f"{ADMIN}/freight/zh/4")).status == 404
    assert (await gateway.call("GET", f"{PUBLIC}/freight", user=None)).body["title"] == "退货邮费"
    connection = await asyncpg.connect(database_url)
    with pytest.raises(asyncpg.RaiseError, match="never changes"):
        await connection.execute("UPDATE article_versions SET body = 'x' WHERE version = 1")
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE article_versions SET reviewer = 'cli ann' WHERE status = 'published'")
    await connection.close()


async def test_change_of_terms_needs_the_version_that_was_read(gateway: TestGateway) -> None:
    await put_article(gateway, "freight")
    stale = await put_article(gateway, "freight", owner="other")
    assert (stale.status, stale.code) == (409, "version_conflict")
    body = {"terms": {**TERMS, "owner": "other"}, "version": 1}
    assert (await staff(gateway, "PUT", f"{ADMIN}/freight", body)).body["terms"]["owner"] == "other"
    await publish(gateway, "freight", "zh", TEXT)
    version = (await staff(gateway, "GET", f"{ADMIN}/freight")).body["version"]
    hidden = {"terms": {**TERMS, "audience": "internal"}, "version": version}
    refused = await staff(gateway, "PUT", f"{ADMIN}/freight", hidden)
    assert (refused.status, refused.code) == (409, "article_status")
    assert (await staff(gateway, "PUT", f"{ADMIN}/none", {"terms": TERMS, "version": 1})).status == 404
    assert (await put_article(gateway, "suggest")).status == 405
    for wrong, pointer in (({"review_by": "27-1-1"}, "/terms/review_by"), ({"audience": "all"}, "/terms/audience")):
        answer = await put_article(gateway, "freight", **wrong)
        assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, pointer)
    control = {"language": "zh", "text": {**TEXT, "body": "a\x1bb"}}
    assert (await staff(gateway, "POST", f"{ADMIN}/freight/versions", control)).status == 422
    assert (await gateway.call("PUT", f"{ADMIN}/freight", roles=["catalog"], json=body)).status == 403


async def test_customers_do_not_find_internal_articles(gateway: TestGateway) -> None:
    await put_article(gateway, "limits", audience="internal")
    await publish(gateway, "limits", "zh", {**TEXT, "title": "客服的运费额度"})
    assert await find(gateway, "运费额度") == []
    assert (await gateway.call("GET", f"{PUBLIC}/limits", user=None)).status == 404
    assert (await gateway.call("GET", PUBLIC, user=None)).body["items"] == []
    rated = await gateway.call("POST", f"{PUBLIC}/limits/feedback", user=None, json={"helped": True})
    assert rated.status == 404
    suggested = await gateway.call("POST", f"{PUBLIC}/suggest", user=None, json={"reason": "defective", "text": "运费"})
    assert suggested.body["items"] == []
    assert await find(gateway, "运费额度", "/v1/admin/published-articles") == ["limits"]
    situation = {"reason": "defective", "text": "运费"}
    answer = await staff(gateway, "POST", f"{ADMIN}/suggest", situation)
    assert [article["article_id"] for article in answer.body["items"]] == ["limits"]


async def test_searches_of_any_length_and_characters_have_a_sane_answer(gateway: TestGateway) -> None:
    await put_article(gateway, "freight")
    await publish(gateway, "freight", "zh", TEXT)
    await publish(gateway, "freight", "en", ENGLISH)
    assert await find(gateway, "谁") == ["freight"]
    assert await find(gateway, "sending", language="zh") == ["freight"]
    for query in ("😡", "?"):
        assert await find(gateway, query) == []
    for query in ("x" * 501, "谁" * 501, "", " ", "\u200b", "\0"):
        answer = await gateway.call("GET", PUBLIC, user=None, params={"q": query})
        assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "q")
        assert "few words" in answer.body["detail"]
    longer = await gateway.call("GET", PUBLIC, user=None, params={"q": "x" * 10_000})
    assert (longer.status, longer.code) == (431, "header_too_large")
    too_long = await gateway.call("POST", f"{PUBLIC}/suggest", user=None, json={"text": "x" * 5_001})
    assert (too_long.status, too_long.body["errors"][0]["pointer"]) == (422, "/text")


async def test_articles_are_listed_by_links_and_pages(gateway: TestGateway) -> None:
    for article_id, skus in (("a", ["MUG-01"]), ("b", []), ("c", ["MUG-01"])):
        await put_article(gateway, article_id, skus=skus)
        await publish(gateway, article_id, "zh", TEXT)

    async def page(**parameters: str) -> tuple[list[str], str | None]:
        answer = await gateway.call("GET", PUBLIC, user=None, params=parameters)
        return [article["article_id"] for article in answer.body["items"]], answer.body["next"]

    assert await page() == (["a", "b", "c"], None)
    assert await page(limit="2") == (["a", "b"], "b")
    assert await page(limit="2", cursor="b") == (["c"], None)
    assert await page(sku="MUG-01") == (["a", "c"], None)
    assert await page(reason="other") == ([], None)
    assert await page(category="kitchen", language="en") == ([], None)
    by_sku = await gateway.call("POST", f"{PUBLIC}/suggest", user=None, json={"skus": ["MUG-01"], "language": "zh"})
    assert [article["article_id"] for article in by_sku.body["items"]] == ["a", "c"]
    listed = await staff(gateway, "GET", f"{ADMIN}?status=published&limit=2")
    assert ([article["article_id"] for article in listed.body["items"]], listed.body["next"]) == (["a", "b"], "b")
    assert (await staff(gateway, "GET", f"{ADMIN}?overdue=true")).body["items"] == []


async def test_voter_counts_once_per_day_and_moves_the_order_a_little(gateway: TestGateway, database_url: str) -> None:
    for article_id in ("a", "b"):
        await put_article(gateway, article_id)
        await publish(gateway, article_id, "zh", TEXT)
    connection = await asyncpg.connect(database_url)

    async def count() -> tuple[int, int, int]:
        row = await connection.fetchrow("SELECT clicks, helped, not_helped FROM article_usage WHERE article_id = 'a'")
        assert row is not None
        return row["clicks"], row["helped"], row["not_helped"]

    first = (await find(gateway, "运费"))[0]
    other = "b" if first == "a" else "a"
    for user in ("u1", "u1", "u2", None, None):
        for helped in (True, False):
            body = {"helped": helped}
            assert (await gateway.call("POST", f"{PUBLIC}/a/feedback", user=user, json=body)).status == 204
        assert (await gateway.call("POST", f"{PUBLIC}/a/clicks", user=user)).status == 204
    assert await count() == (3, 3, 0)
    assert await connection.fetchval("SELECT count(*) FROM article_votes WHERE voter::text LIKE '%u1%'") == 0
    await connection.execute("DELETE FROM article_usage")
    for number in range(5):
        await gateway.call("POST", f"{PUBLIC}/{other}/feedback", user=f"fan{number}", json={"helped": True})
    await gateway.services.articles.live.refresh_usage()
    assert (await find(gateway, "运费"))[0] == other
    assert (await gateway.call("POST", f"{PUBLIC}/none/clicks", user=None)).status == 404
    wrong = {"Authorization": "Bearer none"}
    assert (await gateway.call("POST", f"{PUBLIC}/a/clicks", user=None, headers=wrong)).status == 401
    await connection.close()


async def test_missed_searches_are_listed_without_numbers_and_addresses(gateway: TestGateway) -> None:
    live = gateway.services.articles.live
    await live.refresh()
    for query in ("GIFT Card", "gift  card", "call 13800138000 or ann@example.com", "😡"):
        assert await find(gateway, query) == []

    async def list_misses() -> list[dict[str, Any]] | None:
        items: list[dict[str, Any]] = (await staff(gateway, "GET", "/v1/admin/missed-searches")).body["items"]
        return items if len(items) == 3 else None

    items = await eventually(list_misses)
    assert items is not None
    counts = {item["query"]: item["searches"] for item in items}
    assert counts == {"gift card": 2, "call #or #": 1, "😡": 1}
    await staff(gateway, "DELETE", "/v1/admin/missed-searches?language=en&q=gift card")
    left = (await staff(gateway, "GET", "/v1/admin/missed-searches?language=en")).body["items"]
    assert "gift card" not in [item["query"] for item in left]
    await put_article(gateway, "a")
    await publish(gateway, "a", "zh", TEXT)
    body = {"helped": False, "query": "礼品卡"}
    await gateway.call("POST", f"{PUBLIC}/a/feedback", user=None, json=body)
    await live.store_misses()
    chinese = (await staff(gateway, "GET", "/v1/admin/missed-searches?language=zh")).body["items"]
    assert [item["query"] for item in chinese] == ["礼品卡"]


async def test_searches_of_an_address_are_limited(make_settings: Callable[..., Settings], sale_prefix: str) -> None:
    limits = {"article_calls_per_address_per_s": 0.05, "article_calls_per_address_burst": 2}
    async with open_gateway(make_settings(http={"proxy_networks": []}, limits=limits)) as gateway:
        await gateway.services.articles.live.refresh()
        for _ in range(2):
            await find(gateway, "x")
        refused = await gateway.call("GET", PUBLIC, user=None, params={"q": "x"})
        assert (refused.status, refused.body["limit"]) == (429, "articles")
        assert (await gateway.call("POST", f"{PUBLIC}/suggest", user=None, json={})).status == 429
        assert (await gateway.call("GET", PUBLIC, user=None)).status == 200


async def test_articles_are_read_again_after_another_database_was_restored(
    gateway: TestGateway, database_url: str
) -> None:
    await put_article(gateway, "a")
    await publish(gateway, "a", "zh", TEXT)
    connection = await asyncpg.connect(database_url)
    await connection.execute("DELETE FROM article_versions; UPDATE article_changes SET change_no = 1")
    await connection.execute("UPDATE articles SET change_no = 1")
    await connection.close()

    async def is_gone() -> bool:
        answer = await gateway.call("GET", PUBLIC, user=None, params={"q": "运费"})
        return answer.status == 200 and answer.body["items"] == []

    await eventually(is_gone)
