"""The `type` of every problem leads to an anchor on /docs, whichever part of the server answers."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable

import orjson
import pytest

from commerce.kernel.errors import ProblemError
from config.settings import Settings
from gateway import problems
from gateway.app import ADMIN, PUBLIC
from gateway.operations import Operation
from tests.style.repository import ROOT
from tests.support.gateway import TestGateway, open_gateway

REQUESTS = {
    "method_not_allowed": b"PUT /v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "expectation_failed": b"GET /v1/sales HTTP/1.1\r\nHost: x\r\nExpect: the-impossible\r\n\r\n",
    "header_too_large": b"GET /v1/sales HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 9_000 + b"\r\n\r\n",
    "internal_error": b"GET /v1/variants HTTP/1.1\r\nHost: x\r\n\r\n",
    "not_found": b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad_request": b"hello\r\n\r\n",
    "unauthorized": b"GET /v1/orders HTTP/1.1\r\nHost: x\r\n\r\n",
}


def test_members_that_problems_are_raised_with_are_those_of_the_answer() -> None:
    members, names, unvisited = set(problems.Problem.__struct_fields__), set[str](), [ProblemError]
    while unvisited:
        problem = unvisited.pop()
        names.add(problem.__name__)
        unvisited += problem.__subclasses__()
    unnamed = set[str]()
    for folder in ("commerce", "gateway"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                    unnamed |= {
                        f"{file.name} {word.arg}" for word in node.keywords if word.arg and word.arg not in members
                    }
    assert unnamed == set(), "raw_problem leaves these out"


def find_anchors(page: str) -> set[str]:
    return set(re.findall(r'id="([^"]+)"', page))


@pytest.mark.parametrize("parts", [PUBLIC, ADMIN], ids=["public", "admin"])
async def test_every_problem_code_has_anchor_on_docs_page(
    make_settings: Callable[..., Settings], sale_prefix: str, parts: list[Operation]
) -> None:
    async with open_gateway(make_settings(), parts) as gateway:
        page = (await gateway.call("GET", "/docs", user=None)).text
    assert {anchor for anchor in find_anchors(page) if anchor.startswith("problem-")} == {
        f"problem-{code}" for code in problems.problem_codes()
    }


@pytest.mark.parametrize("code", REQUESTS)
async def test_problem_type_leads_to_anchor_on_docs_page(
    gateway: TestGateway, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(gateway.services.catalog, "list_variants", broken)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(REQUESTS[code])
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode()
    length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
    assert length
    problem = orjson.loads(await reader.readexactly(int(length[1])))
    writer.close()
    assert problem["code"] == code
    path, _, anchor = problem["type"].partition("#")
    assert anchor in find_anchors((await gateway.call("GET", path, user=None)).text)
