"""Generated bodies, paths and queries of every operation: none ends in a server error."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from config.settings import Settings
from gateway.app import ADMIN, PUBLIC
from gateway.operations import Operation
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.generated_input import (
    UNEXPECTED,
    damage_bytes,
    encode_document,
    generate_value,
    input_count,
    input_random,
    vary,
)
from tests.support.sales import make_sale, order_body

UNIQUE = {(operation.method, operation.path): operation for operation in (*PUBLIC, *ADMIN)}
WITH_BODY = [operation for operation in UNIQUE.values() if operation.body is not None]
ALL = [operation for operation in UNIQUE.values() if "events" not in operation.path and operation.path != "/metrics"]
LIMITS = {"orders_per_user_per_s": 1_000_000, "orders_per_user_burst": 1_000_000}


def _path(random: Random, operation: Operation, sale_id: str) -> str:
    """Fill in the path's parameters, mostly with values that exist or could."""
    path = operation.path
    for parameter in operation.parameters:
        if parameter.location == "path":
            texts = [sale_id, "a", "0192f7c5-0000-7000-8000-000000000001", "alipay", "sf_express"]
            value = random.choice([*texts, *texts, *texts, "\u200b", "a\0", "x" * 500, "..", "%ff", "é"])
            path = path.replace(f"{{{parameter.name}}}", quote(value, safe="") or "-")
    query = {
        parameter.name: str(random.choice(UNEXPECTED)).encode("utf-8", "replace")[:200]
        for parameter in operation.parameters
        if parameter.location == "query" and random.random() < 0.3
    }
    return path + (f"?{urlencode(query)}" if query else "")


async def _send(gateway: TestGateway, random: Random, operation: Operation, sale_id: str, body: bytes | None) -> int:
    roles = () if operation.access in ("anyone", "customer") else ("operator", "support", "catalog")
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"k{random.randrange(10**9)}"}
    answer = await gateway.call(
        operation.method, _path(random, operation, sale_id), roles=roles, headers=headers, data=body
    )
    return answer.status


def _check(answers: Counter[tuple[str, int]], caplog: pytest.LogCaptureFixture) -> None:
    failed = {answer: count for answer, count in answers.items() if answer[1] >= 500}
    assert failed == {}
    assert [record.message for record in caplog.records if record.exc_info] == []
    assert len({status for _, status in answers}) > 3  # it is not one early refusal that answers all


@pytest.fixture
async def sale(shop: CliServices, sale_id: str) -> str:
    await make_sale(shop, sale_id, {"a": (1_000_000, 100, None), "b": (1_000_000, 255, None)})
    return sale_id


@pytest.mark.timeout(3_600)
async def test_generated_bodies_end_in_no_server_error(
    make_settings: Callable[..., Settings], sale: str, sale_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    random, answers = input_random("bodies"), Counter[tuple[str, int]]()
    _, schemas = msgspec.json.schema_components([operation.body for operation in WITH_BODY])
    async with open_gateway(make_settings(limits=LIMITS)) as gateway:
        with caplog.at_level(logging.WARNING):
            for _ in range(input_count(600)):
                operation = random.choice(WITH_BODY)
                document = vary(random, lambda: _document(random, operation, schemas, sale, sale_prefix))  # noqa: B023
                status = await _send(gateway, random, operation, sale, encode_document(random, document))
                answers[f"{operation.method} {operation.path}", status] += 1
    _check(answers, caplog)


def _document(random: Random, operation: Operation, schemas: dict[str, Any], sale: str, sale_prefix: str) -> Any:
    if operation.path == "/v1/orders" and random.random() < 0.5:
        return order_body(sale, ("a", 1), ("b", 1))
    schema = msgspec.json.schema(operation.body)
    document = generate_value(random, schema, {**schemas, **schema.get("$defs", {})})
    if isinstance(document, dict) and isinstance(document.get("sale_id"), str):
        document["sale_id"] = sale if operation.path == "/v1/orders" else f"{sale_prefix}-{random.randrange(10**6)}"
    return document


@pytest.mark.timeout(3_600)
async def test_generated_paths_and_queries_end_in_no_server_error(
    make_settings: Callable[..., Settings], sale: str, caplog: pytest.LogCaptureFixture
) -> None:
    random, answers = input_random("paths"), Counter[tuple[str, int]]()
    async with open_gateway(make_settings(limits=LIMITS)) as gateway:
        with caplog.at_level(logging.WARNING):
            for _ in range(input_count(300)):
                operation = random.choice(ALL)
                body = None if operation.method == "GET" else damage_bytes(random, b'{"reason": "x", "units": 1}')
                status = await _send(gateway, random, operation, sale, body)
                answers[f"{operation.method} {operation.path}", status] += 1
    _check(answers, caplog)
