"""The express lane and aiohttp alone give the same answer to the same request, however odd it is.

Both run over the same databases, each with a sale of its own; every request goes to both over bare connections, and
what comes back must mean the same. `meaning` is the one place that says what may differ, and why.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from random import Random
from typing import Any, cast

import pytest

import lua
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway_pair import ITEMS, GatewayPair, RequestCase, open_gateway_pair, sale_keys
from tests.support.http_framing_cases import (
    disconnect_cases,
    keep_alive_cases,
    mutation_cases,
    pipeline_cases,
    split_cases,
)
from tests.support.order_body_cases import body_cases, random_order_cases, read_cases, refusal_cases
from tests.support.raw_http import RawReplies, RawReply
from tests.support.request_head_cases import request_head_cases

SEED = 20_251_111
_AT_ONCE = 48
_REPORTED, _SHOWN = 300, 500
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_ACCEPTED = re.compile(rb'\{"order_id":"([^"]*)","status":"accepted","sale_id":"[^"]*","total":\{"amount":(\d+),')
_MADE_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{1,6}\b")


@pytest.fixture
async def gateways(settings: Settings, shop: CliServices, sale_prefix: str) -> AsyncIterator[GatewayPair]:
    async with open_gateway_pair(settings, shop, sale_prefix) as found:
        yield found


def meaning(gateways: GatewayPair, heard: list[RawReplies]) -> list[object]:
    """What was heard, without what is new each time: ids and times (numbered as they come), and the sale's name."""
    orders: dict[str, str] = {}

    def plain(text: str) -> str:
        text = _UUID.sub(lambda found: orders.setdefault(found[0], f"<order {len(orders)}>"), text)
        text = _TIME.sub("<time>", _MADE_ID.sub("<made>", text))
        return text.replace(f"{gateways.prefix}-slow", f"{gateways.prefix}-lane")

    def headers(answer: RawReply) -> list[tuple[str, str]]:
        new = {"date", "content-length", "etag"}  # a length may change with the ids; `split_replies` went by it
        return sorted((name, "<new>" if name in new else plain(value)) for name, value in answer.headers)

    def said(answer: RawReply) -> object:
        return answer.version, answer.status, tuple(headers(answer)), plain(answer.body.decode("latin-1"))

    return [[*map(said, one.answers), one.rest, f"closed: {one.closed}"] for one in heard]


def lost_by_aiohttp(mine: list[object], their: list[object]) -> bool:
    """Whether one side's answers are the other's and those that aiohttp loses.

    aiohttp parses all of a read before it handles any of it. Where one read holds good requests and behind them what is
    no HTTP, or anything behind `Connection: close`, it forgets the good ones and answers 400 alone. The lane hands it
    one request at a time: the good ones are answered, then comes the same 400, or after `Connection: close` nothing. It
    is the other way round where the lane has given a connection to aiohttp for good, with all that had arrived till
    then. No client can take this for something else: there are fewer answers than requests, and the connection closes.
    """
    if len(mine) != 1 or len(their) != 1:
        return False
    [ours], [theirs] = cast(list[list[tuple[Any, ...]]], mine), cast(list[list[tuple[Any, ...]]], their)
    if len(theirs) < 3:
        return False
    *ours, _, ours_end = ours
    *good, refusal, _, theirs_end = theirs
    if ours_end != theirs_end or refusal[:2] not in (("HTTP/1.0", 400), ("HTTP/1.0", 431)) or ours[: len(good)] != good:
        return False
    if "Data after `Connection: close`" in refusal[3]:
        version, _, headers, _ = ours[-1]
        return len(ours) > len(good) and (version != "HTTP/1.1" or ("connection", "close") in headers)
    return len(ours) > len(good) + 1 and ours[-1] == refusal


def first_difference(mine: list[object], their: list[object]) -> str:
    """Where two meanings part, for the report."""
    flat = [list(_flat(one)) for one in (mine, their)]
    for number, (left, right) in enumerate(zip_longest(*flat, fillvalue="nothing")):
        if left != right:
            return f"    piece {number}\n    lane {str(left)[:_SHOWN]}\n    slow {str(right)[:_SHOWN]}"
    return "no difference"


def _flat(one: object) -> Iterator[object]:
    if isinstance(one, list):
        for part in one:
            yield from _flat(part)
    else:
        yield one


@dataclass
class OrderTotals:
    """What the clients of one gateway were told: their orders, and what these cost."""

    orders: dict[str, int] = field(default_factory=dict)

    def enter(self, heard: Iterable[RawReplies]) -> None:
        for answer in (answer for one in heard for answer in one.answers):
            if answer.status in (200, 202) and (found := _ACCEPTED.match(answer.body)):
                self.orders[found[1].decode()] = int(found[2])


async def compare(gateways: GatewayPair, cases: Iterable[RequestCase]) -> tuple[int, int, list[OrderTotals]]:
    """Hold every conversation with both. Gives the numbers of requests and answers compared, and the books."""
    gate = asyncio.Semaphore(_AT_ONCE)
    wrong: list[str] = []
    answers = 0
    books = [OrderTotals(), OrderTotals()]

    async def both(case: RequestCase) -> None:
        nonlocal answers
        async with gate:
            ours, theirs = [], []
            for script in case.talks:
                left, right = await gateways.talk(script)
                ours.append(left)
                theirs.append(right)
        answers += sum(len(one.answers) for one in ours)
        books[0].enter(ours)
        books[1].enter(theirs)
        mine, their = meaning(gateways, ours), meaning(gateways, theirs)
        if mine != their and not lost_by_aiohttp(mine, their) and not lost_by_aiohttp(their, mine):
            wrong.append(f"{case.name}\n{first_difference(mine, their)}")

    cases = list(cases)
    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(both(case))
    assert not wrong, f"{len(wrong)} of {len(cases)} differ\n" + "\n".join(wrong[:_REPORTED])
    return sum(case.requests for case in cases), answers, books


def cases_after_an_order(gateways: GatewayPair, cases: Iterable[RequestCase]) -> Iterator[RequestCase]:
    """The same on connections on which a good order with the same names of headers was answered before."""
    for case in cases:
        first, *others = case.talks
        parts, cuts = (gateways.order(), *first.parts), ((), *first.cuts)
        awaited = (1, *(count + 1 for count in first.await_answers))
        talk = replace(first, parts=parts, cuts=cuts, await_answers=awaited, answers=first.answers + 1)
        yield RequestCase(f"{case.name}, after an order", (talk, *others), case.requests + 1)


GROUPS: dict[str, Callable[[GatewayPair, Random], Iterable[RequestCase]]] = {
    "heads": lambda gateways, rng: request_head_cases(gateways),
    "bodies": lambda gateways, rng: [*body_cases(gateways), *refusal_cases(gateways), *read_cases(gateways)],
    "orders": lambda gateways, rng: random_order_cases(gateways, rng, 1_000),
    "splits": split_cases,
    "pipelines": lambda gateways, rng: pipeline_cases(gateways, rng, 300),
    "mutations": lambda gateways, rng: mutation_cases(gateways, rng, 1_200),
    "heads after an order": lambda gateways, rng: cases_after_an_order(gateways, request_head_cases(gateways)),
    "bodies after an order": lambda gateways, rng: cases_after_an_order(
        gateways, [*body_cases(gateways), *refusal_cases(gateways)]
    ),
    "splits after an order": lambda gateways, rng: cases_after_an_order(gateways, split_cases(gateways, rng)),
    "mutations after an order": lambda gateways, rng: cases_after_an_order(
        gateways, mutation_cases(gateways, rng, 1_200)
    ),
    "leaving": lambda gateways, rng: [*disconnect_cases(gateways, rng, 100), *keep_alive_cases(gateways, rng, 50)],
}


@pytest.mark.parametrize("group", GROUPS)
async def test_the_same_answer(
    shop: CliServices, gateways: GatewayPair, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    requests, answers, books = await compare(gateways, GROUPS[group](gateways, Random(f"{SEED} {group}")))
    with capsys.disabled():
        print(f" [{group}: {requests} requests, {answers} answers compared]", end="")
    for keys, told in zip(sale_keys(gateways), books, strict=True):
        cut = await lua.cut(shop.redis, keys)
        assert cut.accepted == len(told.orders)
        sold = sum((units - cut.stock[sku]) * price for sku, (units, price, _) in ITEMS.items())
        assert sold == sum(told.orders.values())
