"""Commands `floodgate shipment`, `wave` and `order` for fulfilment: output, status and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from typer.testing import CliRunner

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import SystemClock
from commerce.shipping.model import Shipment
from config.settings import Settings
from gateway.auth import Authenticator
from ops.cli import app
from ops.services import CliServices
from tests.support.fake_carrier import refusal
from tests.support.logistics import put_logistics
from tests.support.processes import Processes
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import PRICE, SHANGHAI, ShippingShop, open_shipping_shop, tracking_event

SHIPPING = {
    "kuaidi100": {
        "customer": "C0FFEE",
        "key": "KEY",
        "salt": "salt-for-tests-only",
        "notify_url": "https://shop.example/webhooks",
    },
    "kuaidi100_carriers": {"quick": "shunfeng", "cheap": "yuantong", "byhand": "yunda"},
}
Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings) as shipping_shop:
        yield shipping_shop


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Return a function that runs a command in a shop whose staff book with every carrier.

    The function returns status and output, without the lines of tables.
    """
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object, stdin: str = "", shipping: object = SHIPPING) -> tuple[int, str]:
        words = [str(argument) for argument in arguments]
        more = environment | {"FLOODGATE_SHIPPING": msgspec.json.encode(shipping).decode()}
        done = await asyncio.to_thread(CliRunner().invoke, app, words, input=stdin, env=more)
        return done.exit_code, " ".join(done.output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run


async def check_refused(
    floodgate: Command, words: str, *arguments: object, group: str = "shipment", **more: str
) -> None:
    status, output = await floodgate(group, *arguments, **more)
    assert (status, output.startswith("error: "), words in output) == (1, True, True), output


async def plan_staff_booked(ship: ShippingShop, units: int = 1) -> Shipment:
    """Plan a shipment without a booking: staff book with its carrier."""
    _, [shipment] = await ship.add_booked_order(("c", units, 0), ship_to=[SHANGHAI])
    assert (shipment.carrier, shipment.status) == ("byhand", "planned")
    return shipment


async def test_list_shows_shipments_of_a_worklist(floodgate: Command, ship: ShippingShop) -> None:
    assert await floodgate("shipment", "list") == (0, "no shipment is on the worklist to_pack")
    _, [first] = await ship.add_booked_order(("a", 1, 0))
    second = await plan_staff_booked(ship)
    status, output = await floodgate("shipment", "list")
    assert status == 0, output
    for shipment in (first, second):
        assert str(shipment.shipment_id) in output
        assert str(shipment.order_id) in output
    assert str(first.tracking_no) in output
    status, output = await floodgate("shipment", "list", "--warehouse", "sh")
    assert (str(first.shipment_id) in output, str(second.shipment_id) in output) == (False, True)
    status, output = await floodgate("shipment", "list", "--worklist", "all", "--limit", 1)
    assert (str(first.shipment_id) in output, str(second.shipment_id) in output) == (True, False)
    assert f"there are more: --after {first.shipment_id}" in output
    status, output = await floodgate(
        "shipment", "list", "--worklist", "all", "--limit", 1, "--after", first.shipment_id
    )
    assert (str(second.shipment_id) in output, "there are more" in output) == (True, False)
    status, output = await floodgate("shipment", "worklists")
    assert (status, "to_pack 2 to be packed now" in output, "parked 0" in output) == (0, True, True), output
    assert "orders that cannot be planned: 0" in output
    await check_refused(floodgate, "give a warehouse's id", "list", "--warehouse", "no such place")
    assert (await floodgate("shipment", "list", "--worklist", "everything"))[0] == 2


async def test_show_prints_details_and_history(floodgate: Command, ship: ShippingShop) -> None:
    order_id, [shipment] = await ship.add_booked_order(("a", 2, 0), cod=PRICE)
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up", text="fetched [/by] Wang"))
    status, output = await floodgate("shipment", "show", shipment.shipment_id)
    assert status == 0, output
    for words in (
        *("status picked up", f"order {order_id}, shipment 1, to its address 0", "cash to collect 1.00 CNY", "0 a 2"),
        *(f"tracking number {shipment.tracking_no}", "Zhang San, 13800000000, Wenyi West Road 969, Xihu, Hangzhou"),
        *("webhook picked up", "fetched [/by] Wang", "system booked"),
    ):
        assert words in output
    status, output = await floodgate("shipment", "list", "--order", order_id)
    assert status == 0, output
    for words in (str(shipment.shipment_id), "2 a", "picked up"):
        assert words in output
    waiting = await ship.add_order(("a", 3, 0))
    status, output = await floodgate("shipment", "list", "--order", waiting)
    assert (status, f"order {waiting} has no shipment yet" in output) == (0, True)
    status, output = await floodgate("shipment", "list", "--order", waiting, "--limit", 5)
    assert (status, "leave --limit out" in output) == (2, True), output
    unknown = ship.shop.ids.new()
    await check_refused(floodgate, f"there is no shipment {unknown}", "show", unknown)
    await check_refused(floodgate, f"there is no stored order {unknown}", "list", "--order", unknown)


async def test_order_that_cannot_be_planned_is_listed_and_retried(floodgate: Command, ship: ShippingShop) -> None:
    assert (await floodgate("order", "unplanned"))[1].startswith("every paid order has its shipments")
    await ship.shop.catalog.put("new", VariantInput("a new thing", PRICE, "CNY"))
    order_id, shipments = await ship.add_booked_order(("new", 1, 0))
    assert shipments == []
    status, output = await floodgate("order", "unplanned")
    assert (status, str(order_id) in output, "new" in output) == (0, True, True), output
    assert "orders that cannot be planned: 1" in (await floodgate("shipment", "worklists"))[1]
    async with ship.shop.db.connection() as connection:
        await put_logistics(connection, "new", "hz", "A-02", 500, 100)
    await check_refused(floodgate, f"floodgate jobs retry fulfilments {order_id}", "replan", order_id, group="order")
    assert (await floodgate("jobs", "retry", "fulfilments", order_id))[0] == 0
    await ship.work_until_idle()
    assert len(await ship.list_shipments(order_id)) == 1
    await check_refused(floodgate, "is planned already", "replan", order_id, group="order")


async def test_pack_checks_and_records_tracking_number(floodgate: Command, ship: ShippingShop) -> None:
    id_ = (await plan_staff_booked(ship)).shipment_id
    await check_refused(floodgate, "on byhand's label", "pack", id_)
    await check_refused(floodgate, "--tracking-no: give 4 to 64", "pack", id_, "--tracking-no", "no!")
    for _ in range(2):
        status, output = await floodgate("shipment", "pack", id_, "--tracking-no", "YD-0001")
        assert (status, output.endswith("is booked, goes with byhand as YD-0001, is packed")) == (0, True), output
    other_id = (await plan_staff_booked(ship)).shipment_id
    refusal_text = "number YD-0001 belongs to another shipment"
    await check_refused(floodgate, refusal_text, "pack", other_id, "--tracking-no", "YD-0001")


async def test_hold_resume_cancel_and_reship_follow_each_other(floodgate: Command, ship: ShippingShop) -> None:
    _, [shipment] = await ship.add_booked_order(("a", 1, 0))
    id_ = shipment.shipment_id
    status, output = await floodgate("shipment", "hold", id_, "--reason", "ask [/him] first")
    assert (status, output.endswith("is on hold: ask [/him] first")) == (0, True), output
    await check_refused(floodgate, "ask [/him] first", "pack", id_)
    status, output = await floodgate("shipment", "resume", id_)
    assert (status, "held" in output) == (0, False)
    status, output = await floodgate("shipment", "cancel", id_, "--reason", "not wanted")
    assert (status, output.endswith("waits for the carrier to confirm the cancellation")) == (0, True), output
    await check_refused(
        floodgate, "only a lost, returned or cancelled one is reshipped", "reship", id_, "--reason", "wanted"
    )
    await ship.work_until_idle()
    status, output = await floodgate("shipment", "reship", id_, "--reason", "wanted after all")
    assert (status, "shipment 2 of order" in output, "is planned" in output) == (0, True, True), output
    assert (await ship.list_shipments(shipment.order_id))[1].replaces == id_
    await check_refused(floodgate, "it was reshipped already", "reship", id_, "--reason", "again")
    _, [left] = await ship.add_booked_order(("a", 1, 0))
    await ship.apply_events(left.shipment_id, tracking_event("picked_up"))
    for command in ("hold", "cancel"):
        await check_refused(floodgate, "it is picked_up", command, left.shipment_id, "--reason", "too late")
    await check_refused(floodgate, "--reason: give 1 to 200", "hold", left.shipment_id, "--reason", "")
    for command in ("resume", "hold", "cancel", "resolve", "reship"):
        reason = () if command == "resume" else ("--reason", "unwanted")
        await check_refused(floodgate, "there is no shipment", command, UUID(int=1), *reason)


async def test_parked_shipment_is_retried_and_lost_one_resolved(floodgate: Command, ship: ShippingShop) -> None:
    for name in ("quick", "cheap"):
        ship.carriers[name].next_outcomes = [refusal()]
    _, [shipment] = await ship.add_booked_order(("a", 1, 0))
    id_ = shipment.shipment_id
    status, output = await floodgate("shipment", "list", "--worklist", "parked")
    assert (status, str(id_) in output, "no carrier takes it" in output) == (0, True, True), output
    assert "parked no carrier takes it" in (await floodgate("shipment", "show", id_))[1]
    assert (await floodgate("jobs", "retry", "shipments", id_))[0] == 0
    assert "retried" in await ship.list_event_texts(id_)
    await ship.work_until_idle()
    assert "cheap takes it" in (await ship.list_event_texts(id_))[-1]
    status, output = await floodgate("jobs", "retry", "shipments", id_)
    assert (status, "it has not failed" in output) == (1, True), output

    _, [shipment] = await ship.add_booked_order(("a", 1, 0))
    await ship.apply_events(shipment.shipment_id, tracking_event("picked_up"), tracking_event("lost", 1))
    status, output = await floodgate("shipment", "list", "--worklist", "undelivered")
    assert (status, str(shipment.shipment_id) in output, "lost" in output) == (0, True, True)
    status, output = await floodgate("shipment", "resolve", shipment.shipment_id, "--reason", "the carrier pays")
    assert (status, output.endswith("is resolved: the carrier pays")) == (0, True), output
    assert await floodgate("shipment", "list", "--worklist", "undelivered") == (
        0,
        "no shipment is on the worklist undelivered",
    )
    status, output = await floodgate(
        "shipment", "set-outcome", shipment.shipment_id, "--status", "lost", "--reason", "again"
    )
    assert (status, "is lost" in output) == (0, True), output
    await check_refused(floodgate, "--reason: give 1 to 200", "resolve", shipment.shipment_id, "--reason", "x" * 201)


async def test_split_and_merge_move_units_between_shipments(floodgate: Command, ship: ShippingShop) -> None:
    shipment = await plan_staff_booked(ship, 3)
    id_ = shipment.shipment_id
    for line, words in (
        ("two", "give it as LINE=UNITS"),
        ("0=9", "does not hold 9 units of line 0"),
        ("0=3", "would be empty"),
        ("0=0", "does not hold 0 units"),
    ):
        await check_refused(floodgate, words, "split", id_, "--line", line)
    await check_refused(floodgate, "line 0 is named twice", "split", id_, "--line", "0=1", "--line", "0=1")
    status, output = await floodgate("shipment", "split", id_, "--line", "0=2")
    assert (status, "shipment 1 of order" in output, "shipment 2 of order" in output) == (0, True, True), output
    first, second = await ship.list_shipments(shipment.order_id)
    assert (first.value_minor, second.value_minor) == (PRICE, 2 * PRICE)
    status, output = await floodgate("shipment", "merge", id_, second.shipment_id)
    assert (status, output.startswith(f"{id_}: shipment 1"), output.count("shipment ")) == (0, True, 1), output
    first, second = await ship.list_shipments(shipment.order_id)
    assert (first.value_minor, second.status) == (3 * PRICE, "cancelled")
    await check_refused(floodgate, "name two at least", "merge", id_)
    await check_refused(
        floodgate, "not a shipment of the same order", "merge", id_, (await plan_staff_booked(ship)).shipment_id
    )


async def test_redirect_checks_address_and_chooses_carrier_again(
    floodgate: Command, ship: ShippingShop, tmp_path: Path
) -> None:
    id_ = (await plan_staff_booked(ship)).shipment_id
    file, reason = tmp_path / "to.json", ("--reason", "the customer moved")
    file.write_bytes(msgspec.json.encode(ADDRESS | {"line": "Renmin Road 8"}))
    status, output = await floodgate("shipment", "redirect", id_, "--address", file, *reason)
    assert (status, output.endswith("is planned, goes with cheap")) == (0, True), output
    assert (await ship.get_shipment(id_)).address.line == "Renmin Road 8"
    address_json = msgspec.json.encode(SHANGHAI).decode()
    status, output = await floodgate("shipment", "redirect", id_, "--address", "-", *reason, stdin=address_json)
    assert (status, output.endswith("goes with byhand")) == (0, True), output
    for content, words in (
        ("", "--address: "),
        ("{", "--address: "),
        ('"\xff"', "--address: "),
        ('{"name": "Li Si"}', "missing required field"),
        (address_json.replace("Century", "Cen\\u0000tury"), "control characters are not allowed"),
        (address_json.replace("138", "call me "), "not a phone number"),
        (address_json.replace('"province":"Shanghai"', '"province":""'), "the address lacks province"),
    ):
        file.write_text(content, encoding="latin-1")
        await check_refused(floodgate, words, "redirect", id_, "--address", file, *reason)
    assert (await floodgate("shipment", "redirect", id_, "--address", tmp_path / "none.json", *reason))[0] == 2
    await check_refused(floodgate, "letter or digit", "redirect", id_, "--address", file, "--reason", "\u200b")
    file.write_bytes(b" " * 70_000 + address_json.encode())
    await check_refused(floodgate, "larger than 65536 bytes", "redirect", id_, "--address", file, *reason)
    assert (await ship.get_shipment(id_)).address.city == "Shanghai"
    for number, encoding in enumerate(("utf-8-sig", "utf-16")):
        file.write_bytes(address_json.replace("Century", f"Jubilee {number}").encode(encoding))
        assert (await floodgate("shipment", "redirect", id_, "--address", file, *reason))[0] == 0
        assert f"Jubilee {number}" in (await ship.get_shipment(id_)).address.line


async def test_set_appointment_replaces_window_and_coordinates(floodgate: Command, ship: ShippingShop) -> None:
    id_ = (await plan_staff_booked(ship)).shipment_id
    options = ("--from", "09:00", "--to", "12:30", "--at", "-31.25,121.5")
    assert (await floodgate("shipment", "set-appointment", id_, *options))[0] == 0
    output = (await floodgate("shipment", "show", id_))[1]
    assert ("delivery window 09:00 to 12:30" in output, "coordinates -31.25, 121.5" in output) == (True, True), output
    assert (await floodgate("shipment", "set-appointment", id_, "--at", "31.25,121.5"))[0] == 0
    shipment = await ship.get_shipment(id_)
    assert (shipment.deliver_from, shipment.latitude) == (None, 31.25)
    await check_refused(floodgate, "both ends of the window", "set-appointment", id_, "--from", "09:00")
    await check_refused(
        floodgate, "must be after deliver_from", "set-appointment", id_, "--from", "09:00", "--to", "08:00"
    )
    for place, words in (("there", "give latitude"), ("1,2,3", "give latitude"), ("95,1", "no such place"),
                         ("nan,1", "no such place")):  # fmt: skip
        await check_refused(floodgate, words, "set-appointment", id_, "--at", place)
    assert (await floodgate("shipment", "set-appointment", id_, "--from", "nine"))[0] == 2


async def test_wave_commands_create_and_show_a_wave(floodgate: Command, ship: ShippingShop) -> None:
    _, [first] = await ship.add_booked_order(("a", 2, 0))
    _, [second] = await ship.add_booked_order(("a", 1, 0), ("b", 1, 0))
    status, output = await floodgate("wave", "create", "--warehouse", "hz", "--max-shipments", 5)
    assert status == 0, output
    wave_id = (await ship.get_shipment(first.shipment_id)).wave_id
    assert f"wave {wave_id}: 2 shipments in hz" in output
    assert f"1 {first.shipment_id} 2 {second.shipment_id}" in output
    assert "A-01 a thing a 3 2 into 1, 1 into 2 B-07 b thing b 1 1 into 2" in output
    assert await floodgate("wave", "show", wave_id) == (0, output)
    for arguments, words in (
        (("create", "--warehouse", "hz"), "all shipments to pack there are in waves already"),
        (("create", "--warehouse", "nowhere"), "there is no warehouse nowhere"),
        (("create", "--warehouse", "A B"), "give a warehouse's id"),
        (("show", first.shipment_id), "there is no wave"),
    ):
        status, output = await floodgate("wave", *arguments)
        assert (status, output.startswith("error: "), words in output) == (1, True, True), output


async def test_documents_are_written_as_pdf_files(floodgate: Command, ship: ShippingShop, tmp_path: Path) -> None:
    planned = await plan_staff_booked(ship)
    _, [booked] = await ship.add_booked_order(("a", 1, 0))
    for warehouse in ("hz", "sh"):
        assert (await floodgate("wave", "create", "--warehouse", warehouse))[0] == 0
    early, late = [(await ship.get_shipment(shipment.shipment_id)).wave_id for shipment in (planned, booked)]
    commands = {
        ("shipment", "label"): booked.shipment_id,
        ("shipment", "packing-list"): planned.shipment_id,
        ("wave", "pick-list"): early,
        ("wave", "labels"): late,
    }
    for number, (command, id_) in enumerate(commands.items()):
        file = tmp_path / f"{number}.pdf"
        status, output = await floodgate(*command, id_, "--out", file)
        assert (status, output) == (0, f"{file}: {file.stat().st_size:,} bytes")
        assert file.read_bytes().startswith(b"%PDF-")
        status, output = await floodgate(*command, id_, "--out", tmp_path / "none" / "a.pdf")
        assert (status, "a.pdf: No such file" in output) == (1, True), output
        status, output = await floodgate(*command, UUID(int=1), "--out", tmp_path / "unknown.pdf")
        assert (status, f"there is no {command[0]}" in output) == (1, True), output
    for arguments in (("shipment", "label", planned.shipment_id), ("wave", "labels", early)):
        status, output = await floodgate(*arguments, "--out", tmp_path / "early.pdf")
        assert (status, "booked" in output) == (1, True), output
    assert not (tmp_path / "early.pdf").exists()


async def test_invalid_carrier_settings_refuse_shipment_commands_only(floodgate: Command, ship: ShippingShop) -> None:
    status, output = await floodgate("shipment", "list", shipping={"kuaidi100_carriers": {"byhand": "yunda"}})
    assert (status, output.startswith("error: cannot use the settings of shipping: ")) == (1, True), output
    assert (await floodgate("jobs", "list", shipping={"kuaidi100_carriers": {"byhand": "yunda"}}))[0] == 0


async def test_token_admin_with_role_identifies_staff(floodgate: Command, settings: Settings) -> None:
    status, token = await floodgate("token", "admin", "wang", "--role", "warehouse")
    assert status == 0
    identity = Authenticator(settings.auth, SystemClock()).identify_staff(f"Bearer {token.split()[0]}", "warehouse")
    assert identity.roles == {"warehouse"}
