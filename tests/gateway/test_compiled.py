"""The order path's modules are all compiled, and hold nothing that compiled code does in another way."""

from __future__ import annotations

import ast
import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from config.settings import Settings
from hatch_build import COMPILED, PACKAGES, ROOT
from ops.services import CliServices
from tests.gateway.test_slow_clients import build_order_request, connect
from tests.support.compiled import interpreted_only
from tests.support.gateway import open_gateway
from tests.support.sales import make_sale

ORDERS = 100
LIMITS = {f"orders_per_{kind}_{limit}": 10_000 for kind in ("user", "address") for limit in ("per_s", "burst")}
INTERPRETED = {
    "commerce.kernel.address": "msgspec decodes its types",
    "commerce.kernel.clock": "one call of the system; tests derive clocks from its class",
    "commerce.kernel.failpoints": "tests and drills replace what it does",
    "commerce.kernel.stream_payload": "msgspec decodes its types",
    "gateway.auth": "reads a dictionary",
    "gateway.client_addresses": "one comparison",
    "gateway.sale_snapshots": "reads a dictionary",
}
"""modules of the order path that stay interpreted, with the reason"""
NEVER_DECODED = {"PendingOrder", "PricedOrder", "Reservation"}
"""structs that exist in memory only"""


def _file(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


@interpreted_only
async def test_every_module_that_runs_for_each_order_is_compiled(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    """A client orders again and again, as in a rush, and a profiler counts whose functions run."""
    await make_sale(shop, sale_id, {"a": (ORDERS + 1, 100, None)})
    called: set[str] = set()
    orders: Counter[str] = Counter()
    """orders for which a file's functions ran"""

    def note_call(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            called.add(frame.f_code.co_filename)

    async with open_gateway(make_settings(limits=LIMITS)) as gateway:
        client, loop = await connect(gateway), asyncio.get_running_loop()
        try:
            for number in range(ORDERS + 1):
                await loop.sock_sendall(client, build_order_request(gateway, sale_id, number, key=f"{number}"))
                async with asyncio.timeout(10):
                    assert (await loop.sock_recv(client, 65_536)).startswith(b"HTTP/1.1 202")
                if number == 0:  # the first order teaches the gateway the head
                    sys.setprofile(note_call)
                orders.update(called)
                called.clear()
        finally:
            sys.setprofile(None)
            client.close()
    modules = set()
    for name, count in orders.items():
        file = Path(name)
        if count >= 0.9 * ORDERS and file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in PACKAGES:
            modules.add(".".join(file.relative_to(ROOT).with_suffix("").parts))
    assert modules - {*COMPILED} == INTERPRETED.keys()


@pytest.mark.parametrize("module", COMPILED)
def test_compiled_module_awaits_nothing_while_it_handles_an_error(module: str) -> None:
    """A compiled coroutine that waits there leaves its error to what runs next, as its context."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    handlers = [node.body for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    handlers += [node.finalbody for node in ast.walk(tree) if isinstance(node, ast.Try)]
    waits = ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom
    awaiting = [node for body in handlers for line in body for node in ast.walk(line) if isinstance(node, waits)]
    assert [node.lineno for node in awaiting] == []


@pytest.mark.parametrize("module", COMPILED)
def test_compiled_module_has_no_struct_that_is_decoded(module: str) -> None:
    """mypyc drops the constraints of fields, so msgspec would not check them."""
    tree = ast.parse(_file(module).read_text(encoding="utf-8"))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    structs = {node.name for node in classes if any("Struct" in ast.unparse(base) for base in node.bases)}
    assert structs - NEVER_DECODED == set()


def test_list_of_compiled_modules_is_sorted_and_each_exists() -> None:
    assert sorted(set(COMPILED)) == COMPILED
    assert [module for module in COMPILED if not _file(module).is_file()] == []
