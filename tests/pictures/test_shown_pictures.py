"""Pictures as customers see them: on the page of a product, in lists and in searches, from memory."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from commerce.kernel.clock import SystemClock
from commerce.pictures.model import SIZES, ProductPicture, file_url
from commerce.pictures.shown_pictures import ShownPictures
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, run_workers
from tests.support.picture_shop import OTHER_PRODUCT, PRODUCT, STAFF, create_products, picture, pictures_path, upload
from tests.support.sales import eventually
from tests.support.search_shop import index_all

PAGE, LIST, SEARCH = f"/v1/products/{PRODUCT}", "/v1/products", "/v1/product-search?q=tea"


@pytest.fixture
async def staff(gateway: TestGateway, shop: CliServices, settings: Settings) -> AsyncIterator[TestGateway]:
    await create_products(shop)
    await index_all(shop)
    async with run_workers(settings, "picture_worker"):
        yield gateway


async def read(gateway: TestGateway, path: str, **headers: str) -> GatewayResponse:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await gateway.call("GET", path, user=None, headers=sent)
    assert answer.status in (200, 304), answer.text
    return answer


def digest_of(shown: dict[str, Any]) -> str:
    return str(shown["files"][0]["url"].split("/")[3])


async def read_shown(gateway: TestGateway) -> dict[str, list[str]]:
    """Return the digests that each page shows of the product, and check that the other has none."""
    shown = {"page": [digest_of(item) for item in (await read(gateway, PAGE)).body["pictures"]]}
    for name, path in (("list", LIST), ("search", SEARCH)):
        covers = {item["product_id"]: item["cover"] for item in (await read(gateway, path)).body["items"]}
        assert covers.pop(OTHER_PRODUCT) is None
        shown[name] = [digest_of(cover) for cover in covers.values() if cover is not None]
    return shown


async def show(gateway: TestGateway, *digests: str) -> None:
    """Wait until customers see these pictures, and the first of them as the cover."""
    wanted = {"page": list(digests), "list": list(digests[:1]), "search": list(digests[:1])}

    async def is_shown() -> bool:
        return await read_shown(gateway) == wanted

    await eventually(is_shown)


async def test_customers_see_pictures_as_staff_change_them(staff: TestGateway) -> None:
    await show(staff)
    tags = {path: [(await read(staff, path)).headers["ETag"]] for path in (PAGE, LIST, SEARCH)}

    async def note_tags() -> None:
        for path, noted in tags.items():
            assert (await read(staff, path, If_None_Match=noted[-1])).status == 200
            noted.append((await read(staff, path)).headers["ETag"])
            assert (await read(staff, path, If_None_Match=noted[-1])).status == 304

    red, green = [(await upload(staff, picture((400, 300), color=color)))["digest"] for color in ("red", "green")]
    await show(staff, red, green)
    await note_tags()
    order = {"digests": [green, red]}
    assert (await staff.call("PUT", pictures_path(rest="/picture-order"), json=order, **STAFF)).status == 200
    await show(staff, green, red)
    await note_tags()
    assert (await staff.call("DELETE", pictures_path(rest=f"/pictures/{green}"), **STAFF)).status == 204
    await show(staff, red)
    await note_tags()
    blue = (await upload(staff, picture((400, 300), color="blue")))["digest"]
    assert (await staff.call("DELETE", pictures_path(rest=f"/pictures/{red}"), **STAFF)).status == 204
    await show(staff, blue)
    await note_tags()
    assert (await staff.call("DELETE", pictures_path(rest=f"/pictures/{blue}"), **STAFF)).status == 204
    await show(staff)
    assert [(await read(staff, path)).headers["ETag"] for path in tags] == [noted[0] for noted in tags.values()]


async def test_shown_picture_has_files_of_each_size_and_a_text_for_the_reader(staff: TestGateway) -> None:
    digest = (await upload(staff, picture((600, 300))))["digest"]
    await show(staff, digest)
    [shown] = (await read(staff, PAGE)).body["pictures"]
    assert shown == {
        "alt_text": None,
        "files": [
            {"size": size, "url": file_url(digest, size), "width_px": width, "height_px": width // 2}
            for size, width in zip(SIZES, (256, 512, 600, 600), strict=True)
        ],
    }
    async with staff.client.get(staff.base + shown["files"][0]["url"]) as file:
        assert file.status == 200
    texts = {"alt_texts": {"en": "A red tin", "zh-CN": "红色罐子"}}
    path = pictures_path(rest=f"/pictures/{digest}/alt-texts")
    assert (await staff.call("PUT", path, json=texts, **STAFF)).status == 200

    async def read_texts(wanted: str) -> list[str]:
        page = (await read(staff, PAGE, Accept_Language=wanted)).body["pictures"]
        lists = [(await read(staff, path, Accept_Language=wanted)).body["items"] for path in (LIST, SEARCH)]
        covers = [item["cover"] for items in lists for item in items if item["product_id"] == PRODUCT]
        return [item["alt_text"] for item in (*page, *covers)]

    for wanted, text in (("zh", "红色罐子"), ("de", "A red tin")):

        async def is_described(wanted: str = wanted, text: str = text) -> bool:
            return await read_texts(wanted) == [text] * 3

        await eventually(is_described)


class _StoppedClock(SystemClock):
    def monotonic(self) -> float:
        return 1.0


async def test_pictures_in_memory_are_not_read_again_for_each_request(
    shop: CliServices, gateway: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create_products(shop)
    await index_all(shop)
    calls = Counter[str]()

    def count(name: str) -> Callable[[Iterable[str]], Awaitable[object]]:
        read_pictures = getattr(ShownPictures(shop.db), name)

        async def read_counted(product_ids: Iterable[str]) -> object:
            calls[name] += 1
            return await read_pictures(product_ids)

        return read_counted

    pages = gateway.services.public_pages
    monkeypatch.setattr(pages._pictures, "_read", count("read"))
    monkeypatch.setattr(pages._covers, "_read", count("read_covers"))
    for cache in (pages._pictures, pages._covers):
        monkeypatch.setattr(cache, "_clock", _StoppedClock())
    for path in (PAGE, SEARCH, LIST):
        await read(gateway, path)
    await asyncio.gather(*(read(gateway, path) for path in (PAGE, SEARCH, LIST) for _ in range(4)))
    assert calls == {"read": 1, "read_covers": 1}


async def test_unreadable_covers_are_null_and_those_in_memory_stay(
    staff: TestGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = (await upload(staff, picture()))["digest"]
    await show(staff, digest)
    pages = staff.services.public_pages

    async def fail(product_ids: Iterable[str]) -> dict[str, list[ProductPicture]]:
        raise ConnectionResetError("no database")

    monkeypatch.setattr(pages._covers, "_read", fail)
    covers = await pages.read_covers([PRODUCT, "never read"])
    assert {product_id: [item.digest for item in cover] for product_id, cover in covers.items()} == {PRODUCT: [digest]}
    await show(staff, digest)
    pages._covers._entries.clear()
    assert [item["cover"] for item in (await read(staff, SEARCH)).body["items"]] == [None, None]
