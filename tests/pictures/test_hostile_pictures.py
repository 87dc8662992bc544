"""Hostile files: none is stored, and the gateway answers others meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import REGISTRY

from commerce.kernel.errors import NotAPicture
from commerce.kernel.picture_containers import check_container
from commerce.pictures.picture_rendering import render
from config.pictures import PictureSettings
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.hostile_pictures import HostileFile, make_hostile_files, whole
from tests.support.picture_shop import STAFF, create_products, ended, list_digests, list_files, picture, pictures_path
from tests.support.sales import eventually

MAX_PIXELS = 50_000_000


async def test_no_hostile_file_is_stored_and_the_gateway_answers_meanwhile(
    make_settings: Callable[..., Settings], shop: CliServices
) -> None:
    files = make_hostile_files()
    assert len(files) >= 200
    await create_products(shop)
    settings = make_settings(pictures={"per_product": 1_000})
    async with open_gateway(settings) as staff:
        healthy = await _call_health_while(staff, _send_all(staff, files))
        assert healthy.served >= len(files), "at least one answer for each hostile file"
        assert set(healthy.statuses) == {200}
        before = _count_refused()
        async with run_workers(settings, "picture_worker"):
            for file, location in healthy.accepted:
                item = await ended(staff, location)
                assert (item["status"], item["reason"] in file.reasons) == ("refused", True), (file.name, item)
                assert item["detail"]
        assert _count_refused() - before == len(healthy.accepted) > 0
        assert await list_digests(staff) == []
        assert await eventually(lambda: _is_empty(settings))
    async with shop.db.connection() as connection:
        for table in ("pictures", "picture_files", "product_pictures"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0


class _Answers:
    """Answers of the gateway: to calls of its health, and to hostile files that need a job."""

    def __init__(self) -> None:
        self.statuses = Counter[int]()
        self.accepted = list[tuple[HostileFile, str]]()

    @property
    def served(self) -> int:
        return sum(self.statuses.values())


async def _call_health_while(staff: TestGateway, sending: asyncio.Task[list[tuple[HostileFile, str]]]) -> _Answers:
    answers = _Answers()
    while not sending.done():
        answers.statuses[(await staff.call("GET", "/health/live", user=None)).status] += 1
    answers.accepted = await sending
    return answers


def _send_all(staff: TestGateway, files: list[HostileFile]) -> asyncio.Task[list[tuple[HostileFile, str]]]:
    """Upload files, four at a time. The task returns those that need a job, with the path of the import."""
    waiting = list(files)
    accepted = list[tuple[HostileFile, str]]()

    async def send() -> None:
        while waiting:
            file = waiting.pop()
            answer = await staff.call("POST", pictures_path(), data=BytesIO(file.content), **STAFF)
            if answer.status == 202:
                accepted.append((file, answer.headers["Location"]))
            else:
                assert (answer.status, answer.code) == (422, "not_a_picture"), (file.name, answer.text)
                assert answer.body["reason"] in file.reasons, (file.name, answer.text)
                assert "send" in answer.body["detail"]

    async def send_all() -> list[tuple[HostileFile, str]]:
        await asyncio.gather(*(send() for _ in range(4)))
        return accepted

    return asyncio.create_task(send_all())


def _count_refused() -> float:
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "floodgate_refused_pictures_total"
    )


async def _is_empty(settings: Settings) -> bool:
    return not list_files(settings)


@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.data())
def test_changed_picture_is_accepted_or_refused_and_nothing_else(form: str, data: st.DataObject) -> None:
    """Whatever is changed, cut out or put in, no other error comes out."""
    content = bytearray(whole(form))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        content[start:end] = data.draw(st.binary(max_size=40))
    assert _check(bytes(content)) in (
        *(None, "unreadable", "unknown_type", "too_many_pixels", "moving", "hidden_content"),
    )


def _check(content: bytes) -> str | None:
    """Return the reason for which a file is refused, None if it is not."""
    try:
        check_container(content, MAX_PIXELS)
    except NotAPicture as error:
        return error.reason
    return None


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"quality": 30, "progressive": True, "lossless": True, "compress_level": 0}])
def test_pictures_of_all_kinds_are_accepted(form: str, options: dict[str, object]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "A description, as cameras write it"
    for extra in ({}, {"exif": exif.tobytes()}, {"icc_profile": bytes(10_000)}):
        check_container(whole(form, **options, **extra), MAX_PIXELS)
    check_container(whole("JPEG") + whole("JPEG", (8, 8)), MAX_PIXELS)  # a camera's preview
    check_container(whole("JPEG") + bytes(100), MAX_PIXELS)  # filled up to the end of a block


async def test_picture_that_needs_too_much_memory_or_time_is_refused() -> None:
    content = picture((6_000, 6_000), "PNG")
    with pytest.raises(NotAPicture) as refusal:
        await render(content, PictureSettings(render_memory_bytes=268_435_456))
    assert refusal.value.reason == "too_costly"
    written = BytesIO()
    Image.effect_noise((7_000, 7_000), 90).convert("RGB").save(written, "PNG", compress_level=1)
    with pytest.raises(NotAPicture) as refusal:
        await render(written.getvalue(), PictureSettings(render_cpu_s=1))
    assert refusal.value.reason == "too_costly"


async def test_rendering_that_does_not_end_in_time_is_no_fault_of_the_picture() -> None:
    with pytest.raises(RuntimeError, match="busy"):
        await render(picture(), PictureSettings(render_timeout_s=0.001))
