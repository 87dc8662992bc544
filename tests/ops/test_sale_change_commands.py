"""`floodgate sale change`, `change-item`, `remove-item` and `delete` as staff have them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from commerce.kernel.clock import from_ms
from commerce.sales.errors import NoSuchSale
from commerce.waiting_rooms.model import RoomSettings
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.processes import Processes
from tests.support.sales import make_sale


@pytest.fixture
def floodgate(settings: Settings, sale_prefix: str, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def test_options_that_are_left_out_change_nothing(floodgate: Command, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, 3)}, opened=False)
    sale = ["sale", "change", sale_id]
    status, output = await floodgate(
        *sale, "--opens", "2030-11-11T00:00", "--closes", "2030-11-12T00:00", FLOODGATE_SHOP__TIME_ZONE="Asia/Shanghai"
    )
    assert (status, "closes: 2030-11-12 00:00:00 Asia/Shanghai, 2030-11-11 16:00:00 UTC\n" in output) == (0, True), (
        output
    )
    status, output = await floodgate(*sale, "--title", "Another sale", "--pay-within", "60", "--json")
    changed = json.loads(output)
    assert (changed["title"], changed["pay_within_s"], changed["closes_at"]) == (
        "Another sale",
        60,
        "2030-11-11T16:00:00Z",
    )
    status, output = await floodgate(*sale, "--never-closes")
    assert (status, "closes: never\n" in output) == (0, True), output
    after = await shop.sales.get(sale_id)
    assert (after.title, after.closes_at, f"{after.opens_at:%Y-%m-%dT%H}") == ("Another sale", None, "2030-11-10T16")
    for wrong in ([], ["--closes", "2030-11-12", "--never-closes"]):
        assert (await floodgate(*sale, *wrong))[0] == 2
    for refused, reason in ((["--pay-within", "1"], "pay_within_s"), (["--closes", "2030-01-01"], "after opens_at")):
        status, output = await floodgate(*sale, *refused)
        assert (status, reason in output) == (1, True), output
    assert await shop.sales.get(sale_id) == after


async def test_moved_opening_tells_when_the_room_closes_its_list(
    floodgate: Command, shop: CliServices, sale_id: str
) -> None:
    opens_at = from_ms(shop.clock.now_ms()).replace(microsecond=0) + timedelta(hours=1)
    await make_sale(shop, sale_id, {"a": (5, 100, 3)}, opens_at=opens_at, opened=False)
    await shop.rooms.put(sale_id, RoomSettings("on", from_ms(shop.clock.now_ms())), "test")
    opens = ["sale", "change", sale_id, "--opens"]
    status, output = await floodgate(*opens, (opens_at + timedelta(hours=1)).isoformat())
    text = f"the list of its waiting room closes {opens_at:%Y-%m-%d %H:%M:%S} UTC"
    assert (status, text in output) == (0, True), output
    status, output = await floodgate(*opens, (opens_at - timedelta(minutes=1)).isoformat())
    assert (status, f"floodgate room set {sale_id} --list-closes-at TIME" in output) == (1, True), output


async def test_draft_and_its_items_are_changed_removed_and_deleted(
    floodgate: Command, shop: CliServices, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, 3), "b": (5, 100, 3)}, opened=False)
    assert (await floodgate("sale", "change-item", sale_id, "a", "--units", "9"))[0] == 0
    item = await shop.sales.get_item(sale_id, "a")
    assert (item.initial_units, item.price, item.limit_per_user) == (9, 100, 3)
    status, output = await floodgate("sale", "remove-item", sale_id, "b")
    assert (status, output) == (0, f"{sale_id} does not offer b any more\n")
    status, output = await floodgate("sale", "remove-item", sale_id, "b")
    assert (status, f"{sale_id} does not offer b" in output) == (1, True)
    assert (await floodgate("sale", "delete", sale_id)) == (0, f"{sale_id} is deleted\n")
    with pytest.raises(NoSuchSale):
        await shop.sales.get(sale_id)
    await make_sale(shop, sale_id, {"a": (5, 100, 3)})
    status, output = await floodgate("sale", "delete", sale_id, "--json")
    assert (status, "only a draft can be deleted" in output) == (1, True)
    status, output = await floodgate("sale", "change-item", sale_id, "a", "--units", "3")
    assert (status, "change its stock instead" in output) == (1, True)
