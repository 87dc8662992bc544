"""Texts from outside reach the terminal as text; printing never fails a change that was made."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from commerce.kernel.money import Money
from commerce.orders.model import OrderStatus
from commerce.payments.model import TenderInput
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, reservation, reserve

FLOODGATE = Path(sys.executable).with_name("floodgate")
ProcessCommand = Callable[..., Awaitable[tuple[int, str]]]
TEXTS = {
    "closing tag": ("dent [/dent]", "dent [/dent]"),
    "opening tag": ("[new] Mug", "[new] Mug"),
    "style": ("[bold red]sale[/]", "[bold red]sale[/]"),
    "link": ("[link=http://x]free[/link]", "[link=http://x]free[/link]"),
    "emoji code": ("all :smile: now", "all :smile: now"),
    "escape sequence": ("\x1b]0;owned\x07\x1b[2Jgone", "\\u001b]0;owned\\u0007\\u001b[2Jgone"),
    "one byte control": ("\x9b31mred", "\\u009b31mred"),
    "bidirectional": ("refund \u202e00.1\u202c CNY", "refund \\u202e00.1\\u202c CNY"),
    "Chinese": ("中秋节 ¥5", "中秋节 ¥5"),
}
"""kind of text: the text, and what is printed"""


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


@pytest.fixture
def floodgate_process(settings: Settings, tmp_path: Path) -> ProcessCommand:
    """Return a function that runs a command in a process and returns its status and output."""
    environment = {**os.environ, **Processes(settings, tmp_path).environment()}

    async def run(*arguments: str | UUID, stdout: int | None = None) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            str(FLOODGATE),
            *map(str, arguments),
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
            stderr=asyncio.subprocess.STDOUT if stdout is None else asyncio.subprocess.PIPE,
        )
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode is not None
        return process.returncode, ((output or b"") + (errors or b"")).decode()

    return run


@pytest.fixture
async def paid_order(shop: CliServices, settings: Settings, sale_id: str) -> UUID:
    """An order of 500 minor units, paid with store credit."""
    keys = await make_sale(shop, sale_id, {"a": (100, 100, None)})
    order = reservation(shop.ids.new, sale_id, {"a": 5})
    await reserve(shop.redis, keys, order)

    async def stored() -> bool:
        return (await shop.orders.get(order.order_id, "user", [sale_id])).status is OrderStatus.AWAITING_PAYMENT

    await shop.payments.grant_store_credit("user", Money(500, "CNY"), "gift")
    async with run_workers(settings, "order_writer", "payment_worker"):
        await eventually(stored)
        await shop.payments.start(order.order_id, "user", [TenderInput("balance", 500)])

        async def captured() -> bool:
            return (await shop.payments.get(order.order_id, None)).net_captured == 500

        await eventually(captured)
    return order.order_id


async def write_text(shop: CliServices, query: str, text: str) -> None:
    """Write a text to the database that no input accepts today, but may have accepted once."""
    async with shop.db.transaction() as connection:
        await connection.execute(query, text)


@pytest.mark.parametrize("kind", ["closing tag", "opening tag"])
async def test_refund_with_markup_in_reason_is_paid_once_and_shown(
    floodgate: Command, shop: CliServices, paid_order: UUID, kind: str
) -> None:
    reason, printed = TEXTS[kind]
    arguments = ("payment", "refund", paid_order, "--key", "k", "--amount", "1.20", "--reason", reason)
    for words in (arguments, ("payment", "show", paid_order)):
        status, output = await floodgate(*words)
        assert status == 0, output
        assert printed in output
    refunds = [refund.amount for refund in (await shop.payments.get(paid_order, None)).payments[0].refunds]
    assert refunds == [120]


async def test_lost_output_fails_a_query_and_no_change(
    floodgate_process: ProcessCommand, shop: CliServices, paid_order: UUID
) -> None:
    arguments = ("payment", "refund", paid_order, "--key", "k", "--amount", "1.20", "--reason", "dent")
    full = os.open("/dev/full", os.O_WRONLY)
    status, output = await floodgate_process(*arguments, stdout=full)
    assert (status, "cannot write the output: No space left on device" in output) == (0, True), output
    status, output = await floodgate_process("payment", "show", paid_order, stdout=full)
    assert (status, "cannot write the output: No space left on device" in output) == (1, True), output
    os.close(full)
    reader, writer = os.pipe()
    os.close(reader)
    assert await floodgate_process(*arguments, stdout=writer) == (0, "")
    assert await floodgate_process("payment", "show", paid_order, stdout=writer) == (0, "")
    os.close(writer)
    refunds = [refund.amount for refund in (await shop.payments.get(paid_order, None)).payments[0].refunds]
    assert refunds == [120]


@pytest.mark.parametrize(("step", "status"), [("run_change", 0), ("run", 1)])
def test_error_while_showing_a_change_does_not_fail_it(step: str, status: int) -> None:
    script = f"""
from ops.commands import console

async def work():
    print("worked")

def app():
    console.{step}(work())
    raise KeyError("shown")

console.run_app(app)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (status, "worked\n")
    assert ("the change is made, but cannot be shown: KeyError: 'shown'" in result.stderr) == (status == 0)


async def test_texts_of_every_kind_are_printed_literally(
    floodgate: Command, floodgate_process: ProcessCommand, shop: CliServices, sale_id: str, paid_order: UUID
) -> None:
    """One text of all kinds, in each place from where a command prints texts of others."""
    text, printed = (" ".join(pair) for pair in zip(*TEXTS.values(), strict=True))
    for query in (
        "UPDATE variants SET name = $1",
        "UPDATE sales SET title = $1",
        "UPDATE order_events SET reason = $1, actor = left($1, 100)",
        "UPDATE payments SET reason = $1",
        "INSERT INTO jobs (subject, queue, kind, system, due_at, parked, last_error, created_at) "
        "SELECT payment_id, 'payments', 'payment.query', method, created_at, true, $1, created_at FROM payments",
    ):
        await write_text(shop, query, text)
    commands: list[tuple[str | UUID, ...]] = [
        ("catalog", "show", "a"),
        ("sale", "list"),
        ("sale", "show", sale_id),
        ("sale", "show", sale_id, "--items"),
        ("order", "show", paid_order),
        ("payment", "show", paid_order),
        ("jobs", "list"),
        ("sale", "show", text),
    ]
    runs = [(command, await floodgate(*command)) for command in commands]
    runs.append((commands[-1], await floodgate_process(*commands[-1])))
    runs.append((commands[4], await floodgate_process(*commands[4])))
    for command, (status, output) in runs:
        expected = repr(text) if text in command else printed  # an error quotes the word that was typed
        assert expected in output, f"{command}: {status} {output}"
        assert status == (1 if text in command else 0)
