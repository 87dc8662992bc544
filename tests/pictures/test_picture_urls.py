"""Pictures by URL: fetched by a job from a server, refused for what it answers or where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import pytest
from aiohttp import web

from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.picture_shop import STAFF, create_products, ended, list_digests, list_files, picture, pictures_path

PICTURE = picture((400, 300), "PNG")
ANSWERS = {
    "/picture": (200, PICTURE),
    "/page": (200, b"<!doctype html><script>alert(1)</script>"),
    "/gone": (410, b""),
    "/long": (200, bytes(100_001)),
    "/broken": (200, PICTURE[:-20]),
}


class PictureServer:
    """A server of files; its requests are counted by path."""

    def __init__(self) -> None:
        self.port = 0
        self.requests = Counter[str]()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.requests[request.path] += 1
        if request.path == "/redirect":
            return web.Response(status=301, headers={"Location": f"http://127.0.0.1:{self.port}/picture"})
        if request.path == "/busy":
            is_first = self.requests[request.path] == 1
            return web.Response(status=503) if is_first else web.Response(body=PICTURE)
        if request.path == "/never":
            return web.Response(status=500)
        status, body = ANSWERS[request.path]
        return web.Response(status=status, body=body, content_type="image/png")


@pytest.fixture
async def server() -> AsyncIterator[PictureServer]:
    server = PictureServer()
    runner = web.ServerRunner(web.Server(server.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@pytest.fixture
async def staff(
    make_settings: Callable[..., Settings], shop: CliServices, server: PictureServer
) -> AsyncIterator[TestGateway]:
    """A gateway and a worker that may fetch from this machine, which is refused otherwise."""
    await create_products(shop)
    pictures = {"fetch_networks": ["127.0.0.0/8"], "fetch_ports": [80, server.port], "max_bytes": 100_000}
    settings = make_settings(pictures=pictures)
    async with open_gateway(settings) as gateway, run_workers(settings, "picture_worker"):
        yield gateway


async def test_picture_is_fetched_and_stored_under_the_digest_of_its_file(
    staff: TestGateway, server: PictureServer
) -> None:
    body = {"url": f"http://127.0.0.1:{server.port}/picture", "alt_texts": {"en": "Tea"}}
    key = {"Idempotency-Key": "once"}
    answers = [
        await staff.call("POST", pictures_path(rest="/picture-imports"), json=body, headers=key, **STAFF)
        for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].body == answers[1].body
    item = await ended(staff, answers[0].headers["Location"])
    assert (item["status"], item["digest"]) == ("stored", sha256(PICTURE).hexdigest())
    assert await list_digests(staff) == [item["digest"]]
    listed = (await staff.call("GET", pictures_path(), **STAFF)).body
    assert listed["pictures"][0]["alt_texts"] == {"en": "Tea"}
    assert server.requests == {"/picture": 1}


async def test_answers_that_are_no_picture_are_refused_with_the_reason(
    staff: TestGateway, server: PictureServer
) -> None:
    reasons = {
        "page": "unknown_type",
        "gone": "not_found",
        "long": "too_large",
        "broken": "unreadable",
        "redirect": "redirect",
        "never": "no_answer",
    }
    locations = {}
    for path in (*reasons, "busy"):
        url = f"http://127.0.0.1:{server.port}/{path}"
        answer = await staff.call("POST", pictures_path(rest="/picture-imports"), json={"url": url}, **STAFF)
        locations[path] = answer.headers["Location"]
    for path, reason in reasons.items():
        item = await ended(staff, locations[path])
        assert (path, item["status"], item["reason"]) == (path, "refused", reason)
    assert (await ended(staff, locations["busy"]))["status"] == "stored", "it is tried again"
    assert server.requests["/never"] == 5
    assert server.requests["/picture"] == 0, "the redirect was not followed"
    listed = (await staff.call("GET", pictures_path(), **STAFF)).body
    assert {item["reason"] for item in listed["imports"]} == set(reasons.values())


async def test_url_that_leads_inside_is_refused_at_once_or_by_the_job(
    settings: Settings, shop: CliServices, server: PictureServer
) -> None:
    await create_products(shop)
    async with open_gateway(settings) as staff, run_workers(settings, "picture_worker"):
        for url in (
            *("http://127.0.0.1/picture", "http://[::ffff:127.0.0.1]/picture", "http://2130706433/picture"),
            *(
                "http://169.254.169.254/latest/meta-data",
                f"http://example.com:{server.port}/",
                "http://a:b@example.com/",
            ),
        ):
            answer = await staff.call("POST", pictures_path(rest="/picture-imports"), json={"url": url}, **STAFF)
            assert (answer.status, answer.code in ("address_not_public", "invalid")) == (422, True), answer.text
        body = {"url": "http://localhost/picture"}
        answer = await staff.call("POST", pictures_path(rest="/picture-imports"), json=body, **STAFF)
        assert (await ended(staff, answer.headers["Location"]))["reason"] == "address_not_public"
        assert await list_digests(staff) == []
    assert server.requests == {}
    assert not list_files(settings)
