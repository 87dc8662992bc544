"""Pictures: judged by content, written again without metadata, read by their customer and staff only."""

from __future__ import annotations

import struct
import zlib
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from PIL import Image

from commerce.aftersales.case_evidence import CaseEvidence
from commerce.aftersales.errors import NoSuchEvidence, TooManyPictures
from commerce.kernel.errors import NotAPicture
from commerce.kernel.file_store_port import FileFolder
from commerce.kernel.pictures import rewrite_picture
from config.aftersales import AftersalesSettings
from tests.support.case_shop import CLAIM, CaseShop, open_case_shop
from tests.support.gateway import TestGateway, bearer
from tests.support.shipping_shop import ShippingShop


def picture(size: tuple[int, int] = (40, 30), form: str = "JPEG", **options: Any) -> bytes:
    written = BytesIO()
    Image.new("RGBA" if form == "PNG" else "RGB", size, "red").save(written, form, **options)
    return written.getvalue()


def bomb(side: int) -> bytes:
    """Return a tiny PNG that says it has so many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_picture_is_written_again_as_jpeg(form: str) -> None:
    rewritten = rewrite_picture(picture((400, 100), form), 1_000_000, 200)
    with Image.open(BytesIO(rewritten.content)) as image:
        assert (image.format, image.size, image.getexif()) == ("JPEG", (200, 50), {})
    assert (rewritten.width_px, rewritten.height_px) == (200, 50)


def test_metadata_is_dropped_and_the_picture_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera that knows the customer's home"
    rewritten = rewrite_picture(picture((400, 100), exif=exif.tobytes()), 1_000_000, 2_000)
    assert (rewritten.width_px, rewritten.height_px) == (100, 400)
    assert b"camera" not in rewritten.content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a" + bytes(100),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture()[:200],
        picture(form="GIF"),
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        bomb(60_000),
        bomb(2_000),  # few enough pixels, most of which are missing
    ],
)
def test_upload_that_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(NotAPicture, match="send a"):
        rewrite_picture(content, 50_000_000, 2_048)


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


def open_evidence(cases: CaseShop, folder: Path) -> CaseEvidence:
    shop = cases.ship.shop
    return CaseEvidence(shop.db, shop.clock, shop.ids, AftersalesSettings(evidence_per_order=2), folder)


async def test_picture_is_used_by_one_case(cases: CaseShop, tmp_path: Path) -> None:
    evidence = open_evidence(cases, tmp_path)
    order_id, other = await cases.add_delivered(("a", 3, 0)), await cases.add_delivered()
    first, second = [(await evidence.upload(order_id, "user", picture())).evidence_id for _ in range(2)]
    with pytest.raises(TooManyPictures):
        await evidence.upload(order_id, "user", picture())
    case_id = await cases.request(order_id, 1, kind=CLAIM, evidence=[first])
    assert [item.evidence_id for item in (await cases.get(case_id)).evidence] == [first]

    async def codes(order: UUID, *ids: UUID) -> list[str]:
        return [obstacle.code for obstacle in (await cases.preview(order, 1, evidence=list(ids))).obstacles]

    assert await codes(order_id, first) == await codes(other, second) == ["no_such_picture"]
    assert await codes(order_id, second, second) == ["no_such_picture"]
    await cases.actions.add_evidence(case_id, 1, "user", [second])
    with pytest.raises(NoSuchEvidence):
        await cases.actions.add_evidence(case_id, 2, "user", [second])
    assert len((await cases.get(case_id)).evidence) == 2


async def test_policy_may_need_a_picture_of_a_claim(cases: CaseShop, tmp_path: Path) -> None:
    await cases.ship.fetch_rows("UPDATE return_policies SET needs_evidence = true RETURNING 1")
    order_id = await cases.add_delivered(("a", 1, 0))
    preview = await cases.preview(order_id, kind=CLAIM)
    assert [obstacle.code for obstacle in preview.obstacles] == ["evidence_needed"]
    stored = await open_evidence(cases, tmp_path).upload(order_id, "user", picture())
    await cases.request(order_id, kind=CLAIM, evidence=[stored.evidence_id])


async def test_unused_pictures_are_deleted_with_files_that_nobody_shares(cases: CaseShop, tmp_path: Path) -> None:
    evidence = open_evidence(cases, tmp_path)
    order_id = await cases.add_delivered(("a", 1, 0))
    used = await evidence.upload(order_id, "user", picture())
    same, other = await evidence.upload(order_id, "user", picture()), picture((9, 9))
    await cases.request(order_id, evidence=[used.evidence_id])
    unused = await evidence.upload(order_id, "user", other)
    assert await evidence.delete_unused(datetime.now(UTC) - timedelta(days=1), 10) == 0
    assert await evidence.delete_unused(datetime.now(UTC) + timedelta(days=1), 10) == 2
    assert await evidence.read(used.evidence_id, "user")
    for gone in (same, unused):
        with pytest.raises(NoSuchEvidence):
            await evidence.read(gone.evidence_id, "user")
    assert len([file for file in (tmp_path / "evidence").rglob("*") if file.is_file()]) == 1


async def test_pictures_over_http_are_private(cases: CaseShop, gateway: TestGateway) -> None:
    order_id = await cases.add_delivered()
    path = f"/v1/orders/{order_id}/evidence"
    large = picture((500, 500), "PNG", compress_level=0)  # larger than other bodies may be
    assert len(large) > gateway.settings.limits.body_bytes
    created = await gateway.call("POST", path, user="user", data=BytesIO(large), headers={"Content-Type": "image/png"})
    assert created.status == 201, created.text
    assert created.body["media_type"] == "image/jpeg"
    location = created.headers["Location"]
    for name, status in (("user", 200), ("mallory", 404)):
        async with gateway.client.get(f"{gateway.base}{location}", headers=bearer(gateway.settings, name)) as answer:
            assert answer.status == status
            if status == 200:
                assert answer.headers["Content-Type"] == "image/jpeg"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await gateway.call("POST", path, user="mallory", data=BytesIO(large))).status == 404
    assert (await gateway.call("POST", path.replace(str(order_id), str(uuid4())), data=BytesIO(large))).status == 404
    for data, status, code in ((b"no picture", 422, "not_a_picture"), (bytes(9_000_000), 413, "body_too_large")):
        refused = await gateway.call("POST", path, user="user", data=BytesIO(data))
        assert (refused.status, refused.body["code"]) == (status, code)


async def test_file_that_cannot_be_deleted_is_not_forgotten(
    cases: CaseShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evidence, tomorrow = open_evidence(cases, tmp_path), datetime.now(UTC) + timedelta(days=1)
    await evidence.upload(await cases.add_delivered(), "user", picture())

    def fail(self: FileFolder, sha256: bytes) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(FileFolder, "delete", fail)
        with pytest.raises(OSError, match="full"):
            await evidence.delete_unused(tomorrow, 10)
    assert await evidence.delete_unused(tomorrow, 10) == 1
    assert [file for file in (tmp_path / "evidence").rglob("*") if file.is_file()] == []


async def test_pictures_of_a_resolved_case_do_not_delay_its_money(cases: CaseShop, tmp_path: Path) -> None:
    order_id = await cases.add_delivered()
    case_id = await cases.request(order_id, kind=CLAIM)
    await cases.approve(case_id)
    await cases.act("resolve", case_id)
    stored = await open_evidence(cases, tmp_path).upload(order_id, "user", picture())
    version = (await cases.get(case_id)).case.version
    await cases.actions.add_evidence(case_id, version, "user", [stored.evidence_id])
    query = "SELECT due_at - now() < interval '1 hour' FROM jobs WHERE queue = 'cases' AND subject = $1"
    assert await cases.ship.fetch_value(query, case_id)
