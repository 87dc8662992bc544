"""The document is valid OpenAPI 3.1, and the gateway conforms to it: schemathesis with all checks."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from config.settings import Settings
from gateway.app import ADMIN, PUBLIC
from gateway.operations import Operation
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, token
from tests.support.generated_input import input_count
from tests.support.sales import make_sale

CONFIG = Path(__file__).with_name("schemathesis.toml")


def _iter_texts(part: object) -> Iterator[str]:
    """Yield each summary and description of a document."""
    if isinstance(part, dict):
        for name, value in part.items():
            if name in ("summary", "description") and isinstance(value, str):
                yield value
            else:
                yield from _iter_texts(value)
    elif isinstance(part, list):
        for item in part:
            yield from _iter_texts(item)


async def test_openapi_document_is_valid(gateway: TestGateway) -> None:
    answer = await gateway.call("GET", "/openapi.json", user=None)
    assert answer.body["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(answer.body).validate()
    ids = [operation["operationId"] for path in answer.body["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    assert [text for text in _iter_texts(answer.body) if "  " in text] == []
    limits = gateway.settings.limits
    order = answer.body["components"]["schemas"]["PlaceOrder"]["properties"]
    assert order["lines"]["maxItems"] == limits.lines_per_order


async def test_docs_page_needs_no_network(gateway: TestGateway) -> None:
    answer = await gateway.call("GET", "/docs", user=None)
    assert answer.headers["Content-Type"].startswith("text/html")
    assert not re.search(r"""(href|src|url)[=(]["']?(https?:)?//""", answer.text)
    assert "<script" not in answer.text
    for part in ("/v1/orders", "PlaceOrder", "problem-sold_out", "problem-outcome_unknown"):
        assert part in answer.text


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("parts", "roles", "examples"), [(PUBLIC, (), 4), (ADMIN, ("operator",), 2)], ids=["public", "admin"]
)
async def test_gateway_conforms_to_openapi_document(
    make_settings: Callable[..., Settings],
    shop: CliServices,
    sale_prefix: str,
    tmp_path: Path,
    parts: list[Operation],
    roles: tuple[str, ...],
    examples: int,
) -> None:
    await make_sale(shop, f"{sale_prefix}-sale", {"85123A": (50, 255, 5)})
    async with open_gateway(make_settings(limits={"event_stream_max_s": 0.3}), parts) as gateway:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(CONFIG),
            "run",
            f"{gateway.base}/openapi.json",
            "--header",
            f"Authorization: Bearer {token(gateway.settings, 'tester', roles=roles)}",
            "--checks=all",
            f"--max-examples={input_count(examples)}",
            "--continue-on-failure",
            "--seed=1",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    # Sales that schemathesis created have ids of their own.
    async for key in shop.redis.scan_iter("{sale:*"):
        if not key.startswith(f"{{sale:{sale_prefix}".encode()):
            await shop.redis.delete(key)
