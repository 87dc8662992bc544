"""The fast path and aiohttp alone answer every request alike, however unusual it is.

Both run over the same databases, each with a sale of its own. Every request goes to both over bare connections, and the
responses must be equal after `normalise`. That function alone defines the allowed differences.
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
from tests.support.memory_read_cases import memory_read_cases, own_order_cases
from tests.support.order_body_cases import body_cases, random_order_cases, read_cases, refusal_cases
from tests.support.raw_http import RawReplies, RawReply
from tests.support.request_head_cases import request_head_cases

SEED = 20_251_111
_CONCURRENT_CASES = 48
_MAX_REPORTED_CASES, _MAX_REPORTED_CHARS = 300, 500
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_ACCEPTED = re.compile(rb'\{"order_id":"([^"]*)","status":"accepted","sale_id":"[^"]*","total":\{"amount":(\d+),')
_GENERATED_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{1,6}\b")


@pytest.fixture
async def gateways(settings: Settings, shop: CliServices, sale_prefix: str) -> AsyncIterator[GatewayPair]:
    async with open_gateway_pair(settings, shop, sale_prefix) as pair:
        yield pair


def normalise(gateways: GatewayPair, replies: list[RawReplies]) -> list[object]:
    """Replace values that are new each time: ids by numbers, times, and the sale's name."""
    orders: dict[str, str] = {}

    def replace_new_values(text: str) -> str:
        text = _UUID.sub(lambda match: orders.setdefault(match[0], f"<order {len(orders)}>"), text)
        text = _TIME.sub("<time>", _GENERATED_ID.sub("<generated>", text))
        return text.replace(f"{gateways.prefix}-slow", f"{gateways.prefix}-fast")

    def headers(answer: RawReply) -> list[tuple[str, str]]:
        new = {"date", "content-length", "etag"}  # a length may change with the ids; `split_replies` has used it
        return sorted((name, "<new>" if name in new else replace_new_values(value)) for name, value in answer.headers)

    def normalise_reply(answer: RawReply) -> object:
        return answer.version, answer.status, tuple(headers(answer)), replace_new_values(answer.body.decode("latin-1"))

    return [[*map(normalise_reply, reply.answers), reply.incomplete, f"closed: {reply.closed}"] for reply in replies]


def is_lost_by_aiohttp(fast: list[object], slow: list[object]) -> bool:
    """Return True if the first replies are the second ones and those that aiohttp loses.

    aiohttp parses all of a read before it handles any of it. If one read holds valid requests followed by bytes that
    are not HTTP, or by anything after `Connection: close`, it drops the valid ones and answers 400 alone. The fast path
    passes it one request at a time: the valid ones are answered, then follows the same 400, or nothing after
    `Connection: close`. It is the other way round if the fast path has handed the connection over with all bytes that
    had arrived. No client can mistake this: there are fewer responses than requests, and the connection closes.
    """
    if len(fast) != 1 or len(slow) != 1:
        return False
    [complete], [shortened] = cast(list[list[tuple[Any, ...]]], fast), cast(list[list[tuple[Any, ...]]], slow)
    if len(shortened) < 3:
        return False
    *complete, _, complete_end = complete
    *common, refusal, _, shortened_end = shortened
    if complete_end != shortened_end or refusal[:2] not in (("HTTP/1.0", 400), ("HTTP/1.0", 431)):
        return False
    if complete[: len(common)] != common:
        return False
    if "Data after `Connection: close`" in refusal[3]:
        version, _, headers, _ = complete[-1]
        return len(complete) > len(common) and (version != "HTTP/1.1" or ("connection", "close") in headers)
    return len(complete) > len(common) + 1 and complete[-1] == refusal


def describe_first_difference(fast: list[object], slow: list[object]) -> str:
    """Describe the first difference of normalised replies, for the report."""
    flat = [list(_flatten(replies)) for replies in (fast, slow)]
    for number, (left, right) in enumerate(zip_longest(*flat, fillvalue="nothing")):
        if left != right:
            texts = (str(part)[:_MAX_REPORTED_CHARS] for part in (left, right))
            return "    piece {}\n    fast {}\n    slow {}".format(number, *texts)
    return "no difference"


def _flatten(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for part in value:
            yield from _flatten(part)
    else:
        yield value


@dataclass
class OrderTotals:
    """Accepted orders as the clients of one gateway were answered: order id → total in minor units."""

    orders: dict[str, int] = field(default_factory=dict)

    def add(self, replies: Iterable[RawReplies]) -> None:
        for answer in (answer for reply in replies for answer in reply.answers):
            if answer.status in (200, 202) and (match := _ACCEPTED.match(answer.body)):
                self.orders[match[1].decode()] = int(match[2])


async def compare(gateways: GatewayPair, cases: Iterable[RequestCase]) -> tuple[int, int, list[OrderTotals]]:
    """Run every script against both gateways and assert equal replies.

    Returns the numbers of requests and answers compared, and the order totals of each gateway.
    """
    slots = asyncio.Semaphore(_CONCURRENT_CASES)
    differences: list[str] = []
    answers = 0
    totals = [OrderTotals(), OrderTotals()]

    async def compare_case(case: RequestCase) -> None:
        nonlocal answers
        async with slots:
            fast_replies, slow_replies = [], []
            for script in case.scripts:
                left, right = await gateways.send_to_both(script)
                fast_replies.append(left)
                slow_replies.append(right)
        answers += sum(len(reply.answers) for reply in fast_replies)
        totals[0].add(fast_replies)
        totals[1].add(slow_replies)
        fast, slow = normalise(gateways, fast_replies), normalise(gateways, slow_replies)
        if fast != slow and not is_lost_by_aiohttp(fast, slow) and not is_lost_by_aiohttp(slow, fast):
            differences.append(f"{case.name}\n{describe_first_difference(fast, slow)}")

    cases = list(cases)
    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(compare_case(case))
    assert not differences, f"{len(differences)} of {len(cases)} differ\n" + "\n".join(
        differences[:_MAX_REPORTED_CASES]
    )
    return sum(case.requests for case in cases), answers, totals


def cases_after_an_order(gateways: GatewayPair, cases: Iterable[RequestCase]) -> Iterator[RequestCase]:
    """Run each case after a valid order with the same header names on the same connection."""
    for case in cases:
        first, *others = case.scripts
        parts, cuts = (gateways.order(), *first.parts), ((), *first.cuts)
        awaited = (1, *(count + 1 for count in first.await_answers))
        talk = replace(first, parts=parts, cuts=cuts, await_answers=awaited, answers=first.answers + 1)
        yield RequestCase(f"{case.name}, after an order", (talk, *others), case.requests + 1)


GROUPS: dict[str, Callable[[GatewayPair, Random], Iterable[RequestCase]]] = {
    "heads": lambda gateways, rng: request_head_cases(gateways),
    "bodies": lambda gateways, rng: [
        *(*body_cases(gateways), *refusal_cases(gateways)),
        *(*read_cases(gateways), *own_order_cases(gateways)),
    ],
    "reads from memory": lambda gateways, rng: memory_read_cases(gateways),
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
    "disconnects": lambda gateways, rng: [*disconnect_cases(gateways, rng, 100), *keep_alive_cases(gateways, rng, 50)],
}


@pytest.mark.parametrize("group", GROUPS)
async def test_fast_path_and_aiohttp_give_equal_answers(
    shop: CliServices, gateways: GatewayPair, group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    requests, answers, totals = await compare(gateways, GROUPS[group](gateways, Random(f"{SEED} {group}")))
    with capsys.disabled():
        print(f" [{group}: {requests} requests, {answers} answers compared]", end="")
    for keys, gateway_totals in zip(sale_keys(gateways), totals, strict=True):
        cut = await lua.cut(shop.redis, keys)
        assert cut.accepted == len(gateway_totals.orders)
        sold = sum((units - cut.stock[sku]) * price for sku, (units, price, _) in ITEMS.items())
        assert sold == sum(gateway_totals.orders.values())
