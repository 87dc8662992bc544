"""The part `support`: the queue, taking the next conversation, search of articles, views of orders.

Services are called in process; their Postgres has the settings of production. The rows are made by SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter, process_time
from typing import TypeVar
from uuid import UUID

import msgspec

import ops
from commerce.conversations import store
from commerce.conversations.support_model import QueueFilter
from commerce.kernel.errors import NotReady
from commerce.knowledge.article_files import import_articles, read_folder
from commerce.knowledge.article_index import CUSTOMERS
from commerce.knowledge.live_articles import LiveArticles
from commerce.knowledge.model import VersionStep
from commerce.order_search.whole_orders import WholeOrders
from loadtest.bench.environment import ADDRESS, SALE_ID, open_environment
from loadtest.bench.support_figures import CallTimes, SearchTimes, SupportLoadFigures
from ops.services import CliServices

ARTICLES = Path(ops.__file__).parent / "local" / "articles"
_PAGE, _PAGES, _TAKERS, _TAKES_OF_EACH, _SEARCHES = 50, 1_000, 20, 50, 2_000
_ORDERS, _TEAMS, _FILL_TIMEOUT_S = 400, 4, 600
_Item = TypeVar("_Item")
_AUTHOR, _REVIEWER = "staff author", "staff reviewer"
# Nine of ten are unassigned, and as many wait for staff as for customers. Due times spread over three days.
_INSERT_TEAMS = """
INSERT INTO support_teams (team_id, name, changed_at, actor)
SELECT 'team-' || n, 'Team ' || n, now(), 'bench' FROM generate_series(1, $1) AS n
"""
_INSERT_CONVERSATIONS = """
INSERT INTO conversations (conversation_id, user_id, kind, subject, language, status, priority, team_id, assignee,
                           created_at, active_at, due_at, due_kind)
SELECT md5('conversation ' || n)::uuid, 'user-' || n % 50000, 'question', 'Question ' || n,
       CASE WHEN n % 3 = 0 THEN 'en' ELSE 'zh' END,
       (ARRAY['new', 'open', 'waiting_customer', 'waiting_carrier'])[1 + n % 4],
       1 + n * 7919 % 4, CASE WHEN n % 5 > 0 THEN 'team-' || n % 5 END,
       CASE WHEN n % 10 = 0 THEN 'agent-' || n % 20 END, at, at,
       CASE WHEN n % 4 < 2 THEN at + interval '2 hours' END, CASE WHEN n % 4 < 2 THEN 'first_response' END
FROM generate_series(1, $1::bigint) AS n,
     LATERAL (SELECT now() - n * 104729 % 259200 * interval '1 second' AS at) AS made
"""
_INSERT_ORDERS = """
INSERT INTO orders (order_id, user_id, idempotency_key, body_digest, sale_id, generation, currency, total_minor,
                    ship_to, payment_plan, accepted_at, entry_seq, persisted_at, pay_by)
SELECT md5('order ' || n)::uuid, 'user-' || n, 'key-' || n, decode(repeat('00', 16), 'hex'), $2, 1, 'CNY', 255,
       $3::jsonb, '[]', now(), n, now(), now() + interval '1 day'
FROM generate_series(1, $1) AS n
"""
_INSERT_LINES = """
INSERT INTO order_lines (order_id, line_no, address_no, sku, quantity, unit_price_minor)
SELECT order_id, 0, 0, 'BENCH-0', 1, total_minor FROM orders
"""
_LINK_ORDERS = "UPDATE conversations SET order_id = md5('order ' || substr(subject, 10))::uuid WHERE subject = ANY($1)"


async def measure_support(figures: SupportLoadFigures, conversations: int) -> None:
    """Make so many open conversations, and measure what staff do most."""
    async with open_environment() as environment:
        shop = environment.shop
        await _fill(shop, conversations)
        step = max(1, conversations // _PAGES)
        await _measure_queue(figures, shop, list(range(1, conversations + 1, step)))
        figures.take = await _measure_takes(shop)
        figures.search = await _measure_search(shop)
        whole_orders = WholeOrders(shop.db, shop.clock, shop.orders, shop.payments, shop.shipping)
        async with shop.db.connection() as connection:
            order_ids = [row["order_id"] for row in await connection.fetch("SELECT order_id FROM orders")]
        figures.order_view = await _time(order_ids, lambda id_: whole_orders.read(id_, [SALE_ID], "staff bench"))
    figures.ratios = figures.compute_ratios()


async def _fill(shop: CliServices, conversations: int) -> None:
    async with shop.db.connection() as connection:
        await connection.execute(_INSERT_TEAMS, _TEAMS)
        await connection.execute(_INSERT_CONVERSATIONS, conversations, timeout=_FILL_TIMEOUT_S)
        ship_to = msgspec.json.encode([ADDRESS]).decode()
        await connection.execute(_INSERT_ORDERS, _ORDERS, SALE_ID, ship_to)
        await connection.execute(_INSERT_LINES)
        await connection.execute(_LINK_ORDERS, [f"Question {number}" for number in range(1, _ORDERS + 1)])
        await connection.execute("VACUUM ANALYZE", timeout=_FILL_TIMEOUT_S)


async def _time(items: Iterable[_Item], call: Callable[[_Item], Awaitable[object]]) -> CallTimes:
    """Time calls one after the other. The first tenth warms up, and is left out."""
    seconds = []
    for item in items:
        started = perf_counter()
        await call(item)
        seconds.append(perf_counter() - started)
    return CallTimes.of_seconds(seconds[len(seconds) // 10 :])


async def _measure_queue(figures: SupportLoadFigures, shop: CliServices, numbers: list[int]) -> None:
    """Read single conversations, first pages, and pages that follow them, of all and of one team."""

    async def read(conversation_id: UUID) -> None:
        async with shop.db.connection() as connection:
            await store.get(connection, conversation_id)

    async with shop.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT md5('conversation ' || n)::uuid AS id FROM unnest($1::integer[]) AS n", numbers
        )
    figures.by_key = await _time([row["id"] for row in rows], read)
    for name, filter_ in (("queue", QueueFilter()), ("queue_of_team", QueueFilter(team_id="team-1"))):
        cursors: list[str | None] = [None]

        async def turn(number: int, filter_: QueueFilter = filter_, cursors: list[str | None] = cursors) -> None:
            page = await shop.conversations.list_queue(filter_, cursors[number % len(cursors)], _PAGE)
            if page.next is not None and len(cursors) < _PAGES // 2:
                cursors.append(page.next)

        setattr(figures, name, await _time(range(_PAGES), turn))


async def _measure_takes(shop: CliServices) -> CallTimes:
    seconds: list[float] = []
    taken: set[UUID] = set()

    async def take(staff: str) -> None:
        for _ in range(_TAKES_OF_EACH):
            started = perf_counter()
            conversation_id = await shop.conversations.actions.take("team-1", staff, f"staff {staff}")
            seconds.append(perf_counter() - started)
            assert conversation_id is not None
            assert conversation_id not in taken
            taken.add(conversation_id)

    await asyncio.gather(*(take(f"taker-{number}") for number in range(_TAKERS)))
    return CallTimes.of_seconds(seconds)


async def _measure_search(shop: CliServices) -> SearchTimes | None:
    """Search the starter articles by words of their titles. None without the libraries of the search."""
    files, _ = read_folder(ARTICLES)
    await import_articles(shop.knowledge, files, _AUTHOR, is_dry_run=False)
    for file in files:
        await shop.knowledge.publish(file.article_id, VersionStep(language=file.language, version=1), _REVIEWER)
    live = LiveArticles(shop.db, shop.clock, b"bench")
    try:
        await live.refresh()
    except NotReady:
        return None
    seconds, cpu = [], process_time()
    began = perf_counter()
    for file in islice(cycle(files), _SEARCHES):
        started = perf_counter()
        await live.search(file.text.title, file.language, CUSTOMERS, 10)
        seconds.append(perf_counter() - started)
    cpu, total = process_time() - cpu, perf_counter() - began
    times = CallTimes.of_seconds(seconds)
    return SearchTimes(
        *(times.count, times.p50_ms, times.p99_ms),
        per_s=round(_SEARCHES / total, 1),
        cpu_us=round(cpu / _SEARCHES * 1e6, 1),
    )
