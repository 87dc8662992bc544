"""`floodgate wait-list` as staff have it, with the keeper as a worker."""

from __future__ import annotations

import json
from pathlib import Path

from commerce.waiting_rooms.tickets import RoomTickets
from config.settings import Settings
from gateway.auth import room_ticket_key
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.gateway import run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually
from tests.support.wait_lists import SKU, open_wait_list


async def test_list_is_set_up_shown_and_ended(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    floodgate = make_command(Processes(settings, tmp_path).environment())
    wait_list = await open_wait_list(shop, sale_id)
    status, text = await floodgate("wait-list", "set", sale_id, "--accept-s", 60)
    assert (status, f"the wait-list of {sale_id} is on; an offer is valid for 60 s" in text) == (0, True), text
    status, text = await floodgate("wait-list", "set", sale_id, "--accept-s", 5)
    assert (status != 0, "accept_s" in text) == (True, True), text
    await wait_list.join(["ann", "ben"])
    await wait_list.return_units(1)
    async with run_workers(settings, "wait_list_keeper"):

        async def is_offered() -> bool:
            return await wait_list.units() == (0, 0, 1)

        await eventually(is_offered)
        status, text = await floodgate("wait-list", "show", sale_id, "--json")
        shown = json.loads(text)
        assert (status, shown["accept_s"], shown["waiting"], shown["skus"][0]["offered_units"]) == (0, 60, 1, 1)
        status, text = await floodgate("wait-list", "show", sale_id)
        assert (status, "1 wait, 1 units on offer, offered up to number 1 of 2" in " ".join(text.split())) == (0, True)
        key = room_ticket_key(settings.auth)
        assert key
        ticket = RoomTickets(key).sign(sale_id, "ann", 1, shop.clock.now_ms() // 1000 + 60, SKU)
        status, text = await floodgate("wait-list", "check-ticket", sale_id, SKU, "ann", ticket)
        assert (status, "number 1; the last place of ann is 1: offered" in " ".join(text.split())) == (0, True), text
        status, text = await floodgate("wait-list", "check-ticket", sale_id, SKU, "ben", ticket)
        assert (status, "not this customer's" in text) == (1, True), text
        assert (await floodgate("wait-list", "set", sale_id, "--off"))[0] == 0

        async def is_on_sale() -> bool:
            return await wait_list.units() == (1, 0, 0)

        await eventually(is_on_sale)
    assert await wait_list.states() == {"ann": "lapsed", "ben": "left"}
    status, text = await floodgate("wait-list", "show", "missing")
    assert (status, "has no wait-list" in text) == (1, True), text
