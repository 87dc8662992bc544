"""Pictures of products over HTTP: imported by a job, served for ever, ordered, described, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from commerce.kernel.clock import from_ms
from commerce.kernel.file_store_port import FileFolder
from commerce.pictures.model import SIZES
from commerce.pictures.service import ProductPictures
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.picture_shop import (
    OTHER_PRODUCT,
    PRODUCT,
    STAFF,
    create_products,
    ended,
    files_without,
    list_digests,
    list_files,
    picture,
    pictures_path,
    upload,
)


@pytest.fixture
async def staff(gateway: TestGateway, shop: CliServices) -> TestGateway:
    await create_products(shop)
    return gateway


@pytest.fixture
async def worker(staff: TestGateway, settings: Settings) -> AsyncIterator[None]:
    async with run_workers(settings, "picture_worker"):
        yield


@pytest.mark.usefixtures("worker")
async def test_uploaded_picture_is_served_in_all_sizes_without_metadata(staff: TestGateway) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    content = picture((3_000, 1_000), exif=exif.tobytes())
    item = await upload(staff, content)
    assert (item["status"], item["digest"]) == ("stored", sha256(content).hexdigest())
    listed = (await staff.call("GET", pictures_path(), **STAFF)).body
    assert listed["imports"] == []
    assert [file["size"] for file in listed["pictures"][0]["files"]] == list(SIZES)
    for file in listed["pictures"][0]["files"]:
        async with staff.client.get(staff.base + file["url"]) as answer:
            body, headers = await answer.read(), answer.headers
        with Image.open(BytesIO(body)) as image:
            assert (image.format, image.size) == ("WEBP", (file["width_px"], file["height_px"]))
            assert image.height == file["size"], "upright"
            assert abs(image.width - file["size"] / 3) <= 1
            assert not image.getexif()
        assert b"camera" not in body
        assert headers["Content-Type"] == "image/webp"
        assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        async with staff.client.get(staff.base + file["url"], headers={"If-None-Match": headers["ETag"]}) as answer:
            assert (answer.status, await answer.read(), answer.headers["ETag"]) == (304, b"", headers["ETag"])
        async with staff.client.get(staff.base + file["url"], headers={"If-None-Match": '"other"'}) as answer:
            assert answer.status == 200


@pytest.mark.usefixtures("worker")
async def test_small_picture_with_transparency_is_neither_enlarged_nor_filled(staff: TestGateway) -> None:
    item = await upload(staff, picture((40, 30), "PNG", color="#00ff0000"))
    async with staff.client.get(f"{staff.base}/v1/pictures/{item['digest']}/2048.webp") as answer:
        with Image.open(BytesIO(await answer.read())) as image:
            assert (image.mode, image.size, image.getchannel("A").getextrema()) == ("RGBA", (40, 30), (0, 0))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{'0' * 64}/256.webp", 404),
        (f"{'0' * 64}/257.webp", 422),
        (f"{'0' * 64}/256.jpg", 422),
        (f"{'0' * 63}/256.webp", 422),
        (f"{'G' * 64}/256.webp", 422),
        ("..%2f..%2fetc%2fpasswd/256.webp", 422),
    ],
)
async def test_unknown_picture_is_not_found(gateway: TestGateway, path: str, status: int) -> None:
    assert (await gateway.call("GET", f"/v1/pictures/{path}", user=None)).status == status


@pytest.mark.usefixtures("worker")
async def test_same_file_twice_is_one_picture_and_one_set_of_files(staff: TestGateway, settings: Settings) -> None:
    content = picture((400, 300))
    first = await upload(staff, content)
    files = await files_without(settings, content)
    assert len(files) == 2, "256.webp, and one file for three sizes that are not enlarged"
    for product_id in (PRODUCT, OTHER_PRODUCT):
        answer = await staff.call("POST", pictures_path(product_id), data=content, **STAFF)
        assert (answer.status, answer.body["status"]) == (200, "stored")
        assert await list_digests(staff, product_id) == [first["digest"]]
    assert list_files(settings) == files


async def test_one_file_uploaded_for_two_products_before_a_job_ran_is_one_picture(
    staff: TestGateway, settings: Settings
) -> None:
    content = picture()
    answers = [
        await staff.call("POST", pictures_path(product_id), data=content, **STAFF)
        for product_id in (PRODUCT, OTHER_PRODUCT, PRODUCT)
    ]
    assert [answer.status for answer in answers] == [202] * 3
    assert await list_digests(staff) == []
    async with run_workers(settings, "picture_worker"):
        for answer in answers:
            assert (await ended(staff, answer.headers["Location"]))["status"] == "stored"
    assert await list_digests(staff) == await list_digests(staff, OTHER_PRODUCT) == [sha256(content).hexdigest()]
    assert len(await files_without(settings, content)) == 1


@pytest.mark.usefixtures("worker")
async def test_pictures_are_ordered_described_and_deleted(staff: TestGateway) -> None:
    red, green, blue = [(await upload(staff, picture(color=color)))["digest"] for color in ("red", "green", "blue")]
    assert await list_digests(staff) == [red, green, blue], "in the sequence of the uploads"

    async def order(*digests: str) -> int:
        return (
            await staff.call("PUT", pictures_path(rest="/picture-order"), json={"digests": digests}, **STAFF)
        ).status

    assert await order(blue, red, green) == 200
    assert await list_digests(staff) == [blue, red, green]
    for wrong in ((blue, red), (blue, red, red), (blue, red, green, "0" * 64)):
        assert await order(*wrong) == 409
    white = (await upload(staff, picture(color="white")))["digest"]
    assert await list_digests(staff) == [blue, red, green, white]

    texts = {"en": "A red tin", "zh-CN": "红色罐子"}
    path = pictures_path(rest=f"/pictures/{red}/alt-texts")
    answer = await staff.call("PUT", path, json={"alt_texts": texts}, **STAFF)
    assert [item["alt_texts"] for item in answer.body["pictures"]] == [{}, texts, {}, {}]
    for bad in ({"en": ""}, {"en": "\x00"}, {"English!": "tin"}, {"en": "x" * 301}):
        assert (await staff.call("PUT", path, json={"alt_texts": bad}, **STAFF)).status == 422

    assert (await staff.call("DELETE", pictures_path(rest=f"/pictures/{blue}"), **STAFF)).status == 204
    assert (await staff.call("DELETE", pictures_path(rest=f"/pictures/{blue}"), **STAFF)).status == 404
    assert await list_digests(staff) == [red, green, white]


async def test_unknown_product_wrong_role_and_too_many_pictures_are_refused(
    make_settings: Callable[..., Settings], shop: CliServices
) -> None:
    await create_products(shop)
    async with open_gateway(make_settings(pictures={"per_product": 2, "max_bytes": 2_000})) as staff:
        content = picture()
        assert (await staff.call("POST", pictures_path("unknown"), data=content, **STAFF)).status == 404
        assert (await staff.call("GET", pictures_path("unknown"), **STAFF)).status == 404
        assert (await staff.call("POST", pictures_path(), data=content, user="kim", roles=["support"])).status == 403
        assert (await staff.call("POST", pictures_path(), data=content, user=None)).status == 401
        answer = await staff.call("POST", pictures_path(), data=b"\xff\xd8\xff" + bytes(2_000), **STAFF)
        assert (answer.status, answer.code) == (413, "body_too_large")
        gzipped = {"Content-Encoding": "gzip"}
        assert (await staff.call("POST", pictures_path(), data=content, headers=gzipped, **STAFF)).status == 415
        answers = await asyncio.gather(
            *(
                staff.call("POST", pictures_path(), data=picture(color=color), **STAFF)
                for color in ("red", "green", "blue", "white")
            )
        )
        assert sorted(answer.status for answer in answers) == [202, 202, 409, 409]
        assert {answer.code for answer in answers if answer.status == 409} == {"too_many_product_pictures"}


@pytest.mark.usefixtures("worker")
async def test_dropped_picture_leaves_storage_when_no_product_has_it(
    staff: TestGateway, shop: CliServices, settings: Settings
) -> None:
    shared, single = picture(color="red"), picture(color="blue")
    for content, product_id in ((shared, PRODUCT), (shared, OTHER_PRODUCT), (single, PRODUCT)):
        await upload(staff, content, product_id)
    both = await files_without(settings, shared, single)
    files = FileFolder(settings.data_dir / "pictures")
    pictures = ProductPictures(shop.db, shop.clock, shop.ids, settings.pictures, files)
    later = from_ms(shop.clock.now_ms()) + timedelta(days=1)
    for content in (shared, single):
        await pictures.remove(PRODUCT, sha256(content).hexdigest())
    assert await pictures.delete_unused(later - timedelta(days=2), 100) == 0, "not yet"
    assert list_files(settings) == both
    assert await pictures.delete_unused(later, 100) == 1
    left = list_files(settings)
    assert len(left) < len(both)
    await upload(staff, single)
    assert await files_without(settings, single) == both, "it is rendered again, to the same files"
    await pictures.remove(OTHER_PRODUCT, sha256(shared).hexdigest())
    await upload(staff, shared, OTHER_PRODUCT)
    assert await pictures.delete_unused(later, 100) == 0, "a product has it again"


async def test_import_without_its_upload_is_refused(staff: TestGateway, settings: Settings) -> None:
    answer = await staff.call("POST", pictures_path(), data=picture(), **STAFF)
    for file in (settings.data_dir / "pictures").rglob("*"):
        if file.is_file():
            file.unlink()
    async with run_workers(settings, "picture_worker"):
        assert (await ended(staff, answer.headers["Location"]))["reason"] == "file_missing"


async def test_files_in_memory_are_bounded(
    make_settings: Callable[..., Settings], shop: CliServices, tmp_path: Path
) -> None:
    await create_products(shop)
    settings = make_settings(pictures={"cache_bytes": 2_000})
    async with open_gateway(settings) as staff, run_workers(settings, "picture_worker"):
        digests = [(await upload(staff, picture(color=f"#{n}{n}{n}")))["digest"] for n in range(5)]
        served = staff.services.pictures.served
        for digest in digests * 2:
            assert (await served.read(digest, 256)).content
        assert 0 < served.cached_bytes <= 2_000
