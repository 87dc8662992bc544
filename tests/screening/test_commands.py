"""`floodgate screening` as staff have it, and the worker as a process beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import orjson

from commerce.kernel.clock import from_ms
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale
from tests.support.screening import attackers, colleagues, make_screened_shop


async def test_staff_find_a_customer_clear_and_revoke(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str, tmp_path: Path
) -> None:
    settings = make_settings(screening={"enabled": True})
    floodgate = make_command(Processes(settings, tmp_path).environment())
    await make_sale(shop, sale_id, {"A1": (10, 100, None)})
    status, text = await floodgate("screening", "report", sale_id)
    assert (status, text) == (0, f"nobody has a score in {sale_id}\n")
    screened = make_screened_shop(shop)
    async with run_workers(settings, "screening_worker"):

        async def is_followed() -> bool:
            screened.signals.set_sales(sales := await screened.screening.list_sales())
            return bool(sales)

        await eventually(is_followed)
        await screened.note_joins(sale_id, [*attackers(120, devices=10), *colleagues(60)])

        async def are_scored() -> bool:
            scores = await screened.scores(sale_id)
            return len(scores) == 180 and scores["bot-00000"].score == 85

        await eventually(are_scored)
    status, text = await floodgate("screening", "report", sale_id, "--top", "2", COLUMNS="200")
    assert status == 0
    assert "bot-00001" in text
    assert "device 1" in text
    assert "(+40)" in text
    assert "--top shows more than 2" in text
    status, text = await floodgate("screening", "report", sale_id, "--signal", "device", "--min-score", "80", "--json")
    assert status == 0
    assert {user["user_id"][:4] for user in orjson.loads(text)} == {"bot-"}
    assert len(orjson.loads(text)) == 120
    assert (await floodgate("screening", "report", sale_id, "--signal", "face"))[0] == 1
    until = (from_ms(shop.clock.now_ms()) + timedelta(hours=1)).isoformat()
    clear = ["screening", "clear", sale_id, "bot-00007", "--reason", "a school", "--until"]
    status, text = await floodgate(*clear, until)
    assert (status, f"\nbot-00007 is cleared in {sale_id} until " in text) == (0, True), text
    status, text = await floodgate(*clear, "2020-01-01T00:00:00Z")
    assert status == 1
    assert "name a later one" in text
    assert (await floodgate("screening", "clear", sale_id, "x", "--reason", " ", "--until", until))[0] == 1
    status, text = await floodgate("screening", "report", sale_id, "--cleared", "--json")
    assert [user["user_id"] for user in orjson.loads(text)] == ["bot-00007"]
    status, text = await floodgate("screening", "revoke", sale_id, "bot-00007", "--reason", "no school")
    assert (status, text) == (0, f"bot-00007 is no longer cleared in {sale_id}; the score is 85\n")
    assert (await floodgate("screening", "revoke", sale_id, "bot-00007", "--reason", "twice"))[0] == 1
    status, text = await floodgate("screening", "show", sale_id, "bot-00007", COLUMNS="200")
    assert status == 0
    assert text.index("no school") < text.index("a school"), "latest first"
    status, text = await floodgate("screening", "show", sale_id, "bot-00007", "--json")
    assert [decision["action"] for decision in orjson.loads(text)["decisions"]] == ["revoked", "cleared"]
    assert (await floodgate("screening", "show", sale_id, "nobody"))[0] == 1
