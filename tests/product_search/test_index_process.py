"""The index in memory as a process: gateways use it while it is there, and Postgres while it is not."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from commerce.kernel.errors import NotReady
from commerce.product_search.errors import CursorOutdated
from commerce.product_search.index_client import RemoteProductIndex, SearchedBy
from commerce.product_search.index_server import IndexServer
from commerce.product_search.index_wire import MAX_FRAME_BYTES, check_socket_path
from commerce.product_search.indexer import ProductIndexer
from commerce.product_search.memory_follower import MemoryIndexFollower
from commerce.product_search.model import AvailableProducts, SearchPosition, SearchTerms
from commerce.product_search.postgres_index import PostgresProductIndex
from config.settings import Settings
from ops.services import CliServices
from tests.product_search.judged_catalog import add_judged_products
from tests.support.processes import run_processes
from tests.support.sales import eventually

_TERMS = SearchTerms(text="耳机", with_facets=True, available=AvailableProducts("1", bytes(20)))


@pytest.fixture
def home() -> Iterator[Path]:
    """Folder with a path that is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="fg-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def judged_shop(shop: CliServices) -> CliServices:
    await add_judged_products(shop)
    await ProductIndexer(shop.db, shop.clock).reindex()
    return shop


class _Searcher:
    """An index over a socket with Postgres behind it, and who has answered."""

    def __init__(self, shop: CliServices, path: Path, timeout_ms: int = 5_000) -> None:
        self.answers: Counter[SearchedBy] = Counter()
        self.postgres = PostgresProductIndex(shop.db, 10_000)
        self.index = RemoteProductIndex(path, self.postgres, timeout_ms, lambda name: self.answers.update([name]))

    async def search(self, terms: SearchTerms = _TERMS) -> SearchedBy:
        """Search, compare with Postgres, and return who has answered."""
        before = self.answers.copy()
        page = await self.index.search(terms)
        wanted = await self.postgres.search(terms)
        assert (page.hits, page.total, page.corrected_text) == (wanted.hits, wanted.total, wanted.corrected_text)
        assert sorted(page.facets, key=str) == sorted(wanted.facets, key=str)
        [(name, _)] = (self.answers - before).items()
        return name


async def test_answers_are_those_of_postgres_with_and_without_the_index(judged_shop: CliServices, home: Path) -> None:
    follower = MemoryIndexFollower(judged_shop.db)
    path = home / "index.sock"
    searcher = _Searcher(judged_shop, path)
    assert await searcher.search() == "postgres_away"
    searcher = _Searcher(judged_shop, path)
    async with IndexServer(lambda: follower.index).listen(path):
        assert await searcher.search() == "postgres_away"  # it has not read anything yet
        await follower.step()
        assert await searcher.search() == "memory"
        assert await searcher.search(SearchTerms(text="headfones")) == "postgres_words"
        assert path.stat().st_mode & 0o777 == 0o600
        first = await searcher.index.search(SearchTerms(text="黑色", limit=5))
        assert first.next is not None
        second = SearchTerms(text="黑色", limit=5, after=first.next)
        assert (await searcher.index.search(second)).hits[0] not in first.hits
    searcher.answers.clear()
    assert await searcher.search() == "postgres_away"
    with pytest.raises(CursorOutdated):
        await searcher.index.search(second)
    async with IndexServer(lambda: follower.index).listen(path):
        place = SearchPosition("postgres", 10.0, 1)
        await searcher.index.search(SearchTerms(text="黑色", after=place))
        assert searcher.answers["postgres_words"] == 1
        await eventually(lambda: _answers(searcher, "memory"), timeout_s=10)
    searcher.index.close()


async def _answers(searcher: _Searcher, name: SearchedBy) -> bool:
    return await searcher.search() == name


@pytest.mark.parametrize(
    "content", [b"\xff\xff\xff\xff", (MAX_FRAME_BYTES + 1).to_bytes(4, "big"), b"\x00\x00\x00\x05hello", b"\x00"]
)
async def test_bad_frame_closes_its_connection_only(judged_shop: CliServices, home: Path, content: bytes) -> None:
    follower = MemoryIndexFollower(judged_shop.db)
    await follower.step()
    path = home / "index.sock"
    searcher = _Searcher(judged_shop, path)
    async with IndexServer(lambda: follower.index).listen(path):
        assert await searcher.search() == "memory"
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(content)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await searcher.search() == "memory"
    searcher.index.close()


async def test_index_that_does_not_answer_in_time_is_left_alone(judged_shop: CliServices, home: Path) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(never, home / "index.sock")
    searcher = _Searcher(judged_shop, home / "index.sock", timeout_ms=50)
    assert [await searcher.search() for _ in range(3)] == ["postgres_away"] * 3
    server.close()


def test_path_that_is_too_long_is_refused() -> None:
    with pytest.raises(NotReady, match=r"catalog\.index_socket"):
        check_socket_path(Path("/", *["long"] * 30))


async def test_killed_process_builds_its_index_again(judged_shop: CliServices, settings: Settings, home: Path) -> None:
    searcher = _Searcher(judged_shop, home / "product_index.sock")
    async with run_processes(settings, home) as processes:
        for _ in range(2):
            worker = await processes.worker("product_index")
            await eventually(lambda: _answers(searcher, "memory"), timeout_s=60)
            os.kill(worker.pid, signal.SIGKILL)
            await eventually(lambda: _answers(searcher, "postgres_away"), timeout_s=10)
    searcher.index.close()
