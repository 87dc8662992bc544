"""A gateway that searches in memory answers as one that searches in Postgres."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commerce.product_search.index_server import IndexServer
from commerce.product_search.memory_follower import MemoryIndexFollower
from config.settings import Settings
from gateway import metrics
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway
from tests.support.search_shop import make_search_shop

_QUERIES = [
    [("q", "jacket"), ("facets", "true")],
    [("q", "外套"), ("attribute", "color:blue"), ("facets", "true")],
    [("category_id", "clothing"), ("sort", "price_up"), ("limit", "1")],
    [("q", "jaket")],
    [("q", "nothing like it")],
]


@pytest.fixture
def socket_path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fg-"))
    yield folder / "index.sock"
    shutil.rmtree(folder)


async def read_answers(gateway: TestGateway) -> list[object]:
    answers = []
    for params in _QUERIES:
        answer = await gateway.call("GET", "/v1/product-search", user=None, params=params)
        assert answer.status == 200, answer.text
        answers.append({name: value for name, value in answer.body.items() if name != "next"})
    return answers


def count_answers(name: str) -> float:
    return float(metrics.PRODUCT_SEARCHES.labels(name)._value.get())


async def test_answers_are_the_same_with_and_without_the_index(
    shop: CliServices, gateway: TestGateway, make_settings: Callable[..., Settings], socket_path: Path
) -> None:
    await make_search_shop(shop)
    wanted = await read_answers(gateway)
    settings = make_settings(catalog={"search": "memory", "index_socket": str(socket_path), "index_timeout_ms": 20_000})
    follower = MemoryIndexFollower(shop.db)
    await follower.step()
    before = {name: count_answers(name) for name in ("memory", "postgres_words", "postgres_away")}
    async with open_gateway(settings) as with_memory:
        async with IndexServer(lambda: follower.index).listen(socket_path):
            assert await read_answers(with_memory) == wanted
        assert count_answers("memory") - before["memory"] == 3
        assert count_answers("postgres_words") - before["postgres_words"] == 2
        assert await read_answers(with_memory) == wanted
    assert count_answers("postgres_away") - before["postgres_away"] == len(_QUERIES)
