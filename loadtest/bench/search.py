"""The part `search`: searches of generated products at a fixed pace, alone and beside orders.

The indexes are called in process; their Postgres has the settings of production, and orders go through a gateway.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from commerce.categories.taxonomy import Taxonomy
from commerce.categories.taxonomy_import import TaxonomyImport
from commerce.categories.taxonomy_reader import read_taxonomy
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady, Overloaded
from commerce.product_search.index_client import RemoteProductIndex, SearchedBy
from commerce.product_search.indexer import ProductIndexer
from commerce.product_search.model import PriceRange, SearchTerms
from commerce.product_search.postgres_index import PostgresProductIndex
from commerce.product_search.product_index_port import ProductIndex
from loadtest.bench.comparison import BenchedServer, measure
from loadtest.bench.environment import BenchEnvironment, open_environment
from loadtest.bench.peers import Peers
from loadtest.bench.search_figures import IndexFigures, ProductSearchFigures, SearchLoad, choose_median
from loadtest.bench.support_figures import CallTimes
from loadtest.generated_products import CHINESE, CURRENCY, GeneratedProduct, ProductGenerator
from loadtest.product_loading import load_products
from ops.services import CliServices

_SEED, _TIMEOUT_MS = 1, 2_000
_START_TIMEOUT_S, _POLL_S = 600, 0.2
_SAMPLES, _KEY_READS = 400, 2_000
_VALUES_OF_FILTER, _BRANDS_OF_FILTER, _FILTERS = 6, 40, 8
_ANALYZE_TIMEOUT_S = 600
_LATE_S, _MAX_WAITING = 0.05, 1_000
_ORDER_CONNECTIONS = 64
_READ_BY_KEY = "SELECT product_id, status, category_id, brand, updated_at FROM products WHERE product_id = $1"


class SearchSamples(NamedTuple):
    """Searches by what they measure."""

    words: list[SearchTerms]
    filters: list[SearchTerms]
    category: list[SearchTerms]


async def measure_search(
    figures: ProductSearchFigures, folder: Path, products: int, per_s: float, seconds: float, repeats: int
) -> None:
    """Generate so many products of the taxonomy in a folder, and measure searches of them several times."""
    taxonomy = await asyncio.to_thread(read_taxonomy, folder)
    async with open_environment() as environment, AsyncExitStack() as stack:
        shop = environment.shop
        generator = ProductGenerator(taxonomy, _SEED)
        await _fill(shop, folder, generator, products)
        samples = make_samples(taxonomy, [generator.make(number) for number in range(min(products, _SAMPLES))])
        gateway = await Peers(environment, stack).start_floodgate()
        figures.by_key = choose_median([await _measure_reads(shop, generator, products) for _ in range(repeats)])
        figures.orders = await measure(environment, gateway, _ORDER_CONNECTIONS, seconds)
        for name, index in (await stack.enter_async_context(_open_indexes(environment))).items():
            figures.indexes[name] = await _measure_index(environment, gateway, index, samples, per_s, seconds, repeats)
    figures.ratios = figures.compute_ratios()


@asynccontextmanager
async def _open_indexes(environment: BenchEnvironment) -> AsyncIterator[Mapping[str, ProductIndex]]:
    """Open both indexes; the one in memory is a process that has read everything."""
    postgres = PostgresProductIndex(environment.shop.db, _TIMEOUT_MS)
    answers: Counter[SearchedBy] = Counter()
    memory = RemoteProductIndex(
        environment.settings.product_index_socket(), postgres, _TIMEOUT_MS, lambda name: answers.update([name])
    )
    process = await environment.run_module("product_index", "workers", "product_index")
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            while not answers["memory"]:
                await asyncio.sleep(_POLL_S)
                await memory.search(SearchTerms(limit=1))
        yield {"memory": memory, "postgres": postgres}  # the latter goes on for a while with what was given up
    finally:
        memory.close()
        await process.stop()


async def _fill(shop: CliServices, folder: Path, generator: ProductGenerator, products: int) -> None:
    await TaxonomyImport(shop.db, shop.clock).import_folder(folder, "bench", "for the benchmark")
    now = from_ms(shop.clock.now_ms())
    await load_products(shop.db, generator.generate(products), now, lambda done: None)
    await ProductIndexer(shop.db, shop.clock).reindex()
    async with shop.db.transaction() as connection:
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("ANALYZE", timeout=_ANALYZE_TIMEOUT_S)


def make_samples(taxonomy: Taxonomy, products: Sequence[GeneratedProduct]) -> SearchSamples:
    """Make searches that find the given products, and others like them."""
    words, filters, category = [], [], []
    brands = list(dict.fromkeys(product.brand for product in products if product.brand))
    for number, product in enumerate(products):
        names = taxonomy.categories[product.category_id].names
        word = names[CHINESE if number % 2 else "en"]
        root = product.category_id.split("-")[0]
        words.append(SearchTerms(text=word, with_facets=True))
        category.append(SearchTerms(category_id=root, with_facets=True))
        price = product.variants[0].price
        attributes = {
            key: _with_others(taxonomy, key, value)
            for key, value in {**product.attributes, **product.variants[0].option_values}.items()
        }
        filters.append(
            SearchTerms(
                text=word,
                category_id=root,
                price=PriceRange(CURRENCY, price // 4, price * 4),
                brands=list(dict.fromkeys([*filter(None, [product.brand]), *brands]))[:_BRANDS_OF_FILTER],
                attributes=dict([*attributes.items()][: _FILTERS - 3]),
                with_facets=True,
            )
        )
    # Most products have fewer attributes; those with the most filters are measured.
    filters.sort(key=lambda terms: -len(terms.attributes))
    return SearchSamples(words, filters[: max(1, len(filters) // 4)], category)


def _with_others(taxonomy: Taxonomy, attribute_id: str, value: str | list[str]) -> list[str]:
    """Return chosen values with some others of the attribute."""
    attribute = taxonomy.attributes[attribute_id]
    owner = taxonomy.attributes[attribute.choices_of] if attribute.choices_of else attribute
    chosen = value if isinstance(value, list) else [value]
    return list(dict.fromkeys([*chosen, *owner.choices]))[:_VALUES_OF_FILTER]


async def _measure_reads(shop: CliServices, generator: ProductGenerator, products: int) -> CallTimes:
    keys = [generator.make(number % products).product_id for number in range(_SAMPLES)]
    seconds = []
    for number in range(_KEY_READS):
        started = perf_counter()
        async with shop.db.connection() as connection:
            assert await connection.fetchrow(_READ_BY_KEY, keys[number % len(keys)]) is not None
        seconds.append(perf_counter() - started)
    return CallTimes.of_seconds(seconds[len(seconds) // 10 :])


async def _measure_index(
    environment: BenchEnvironment,
    gateway: BenchedServer,
    index: ProductIndex,
    samples: SearchSamples,
    per_s: float,
    seconds: float,
    repeats: int,
) -> IndexFigures:
    """Measure each kind of searches in turn, several times; that of the median counts."""
    figures = IndexFigures()
    loads: dict[str, list[SearchLoad]] = {kind: [] for kind in samples._fields}
    for _ in range(repeats):
        for kind, terms in samples._asdict().items():
            loads[kind].append(await load_index(index, terms, per_s, seconds))
    for kind, measured in loads.items():
        setattr(figures, kind, choose_median(measured))
    async with _searching(index, samples.filters, per_s):
        figures.orders = await measure(environment, gateway, _ORDER_CONNECTIONS, seconds)
    return figures


@asynccontextmanager
async def _searching(index: ProductIndex, terms: Sequence[SearchTerms], per_s: float) -> AsyncIterator[None]:
    """Search at a pace until the block ends."""
    searches = asyncio.create_task(load_index(index, terms, per_s, float("inf")))
    try:
        yield
    finally:
        searches.cancel()
        await asyncio.gather(searches, return_exceptions=True)


async def load_index(index: ProductIndex, terms: Sequence[SearchTerms], per_s: float, seconds: float) -> SearchLoad:
    """Begin searches at a pace, whether or not the ones before are answered.

    At most `_MAX_WAITING` wait; those beyond count as refused. Times count from the moment at which a search was due.
    """
    times: list[float] = []
    totals: list[int] = []
    failed = 0
    waiting: set[asyncio.Task[None]] = set()

    async def search(terms: SearchTerms, due: float) -> None:
        nonlocal failed
        try:
            page = await index.search(terms)
        except (Overloaded, NotReady):
            failed += 1
            return
        times.append(perf_counter() - due)
        totals.append(page.total)

    began = perf_counter()
    try:
        for number, sample in enumerate(cycle(terms)):
            due = began + number / per_s
            if due - began >= seconds:
                break
            await asyncio.sleep(max(0.0, due - perf_counter()))
            if len(waiting) >= _MAX_WAITING:
                failed += 1
                continue
            task = asyncio.create_task(search(sample, due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    elapsed = perf_counter() - began
    answered = CallTimes.of_seconds(times or [float("inf")])
    return SearchLoad(
        *(len(times), answered.p50_ms, answered.p99_ms),
        per_s=round(len(times) / elapsed, 1),
        failed=failed,
        late=round(sum(time > _LATE_S for time in times) / max(1, len(times)), 4),
        mean_hits=round(sum(totals) / max(1, len(totals)), 1),
    )
