"""`floodgate shipment` and `floodgate wave` as staff have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from typer.testing import CliRunner

from commerce.catalog.model import ProductInput
from commerce.kernel.clock import SystemClock
from commerce.shipping.model import Shipment
from config.settings import Settings
from gateway.auth import Authenticator
from ops.cli import app
from ops.services import CliServices
from tests.support.processes import Processes
from tests.support.sales import ADDRESS
from tests.support.shipping_shop import PRICE, SHANGHAI, ShippingShop, open_shipping_shop, refusal, tracking_event

SHIPPING = {
    "kuaidi100": {
        "customer": "C0FFEE",
        "key": "KEY",
        "salt": "salt-for-tests-only",
        "notify_url": "https://shop.example/notices",
    },
    "kuaidi100_carriers": {"quick": "shunfeng", "cheap": "yuantong", "byhand": "yunda"},
}
Command = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
async def ship(shop: CliServices, settings: Settings) -> AsyncIterator[ShippingShop]:
    async with open_shipping_shop(shop, settings) as found:
        yield found


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    """Runs a command in this test's shop, where the desk books with every carrier; gives its status and all that it
    prints, without the lines of tables."""
    environment = Processes(settings, tmp_path).environment()

    async def run(*arguments: object, given: str = "", shipping: object = SHIPPING) -> tuple[int, str]:
        words = [str(argument) for argument in arguments]
        more = environment | {"FLOODGATE_SHIPPING": msgspec.json.encode(shipping).decode()}
        done = await asyncio.to_thread(CliRunner().invoke, app, words, input=given, env=more)
        return done.exit_code, " ".join(done.output.translate(dict.fromkeys(range(0x2500, 0x2580), " ")).split())

    return run


async def refused(floodgate: Command, words: str, *arguments: object, **more: str) -> None:
    status, said = await floodgate("shipment", *arguments, **more)
    assert (status, said.startswith("error: "), words in said) == (1, True, True), said


async def by_hand(ship: ShippingShop, units: int = 1) -> Shipment:
    """A parcel that nobody is booked for: the desk does that."""
    _, [parcel] = await ship.sent(("c", units, 0), ship_to=[SHANGHAI])
    assert (parcel.carrier, parcel.status) == ("byhand", "planned")
    return parcel


async def test_lists(floodgate: Command, ship: ShippingShop) -> None:
    assert await floodgate("shipment", "list") == (0, "no parcel is on the list to_pack")
    _, [first] = await ship.sent(("a", 1, 0))
    second = await by_hand(ship)
    status, said = await floodgate("shipment", "list")
    assert status == 0, said
    for one in (first, second):
        assert str(one.shipment_id) in said
        assert str(one.order_id) in said
    assert str(first.tracking_no) in said
    status, said = await floodgate("shipment", "list", "--warehouse", "sh")
    assert (str(first.shipment_id) in said, str(second.shipment_id) in said) == (False, True)
    status, said = await floodgate("shipment", "list", "--list", "all", "--limit", 1)
    assert (str(first.shipment_id) in said, str(second.shipment_id) in said) == (True, False)
    assert f"there are more: --after {first.shipment_id}" in said
    status, said = await floodgate("shipment", "list", "--list", "all", "--limit", 1, "--after", first.shipment_id)
    assert (str(second.shipment_id) in said, "there are more" in said) == (True, False)
    status, said = await floodgate("shipment", "counts")
    assert (status, "to_pack 2 to be packed now" in said, "parked 0" in said) == (0, True, True), said
    assert "orders that cannot be made into parcels: 0" in said
    assert "the oldest job of shipments has been due for 0 s the oldest job of orders has been due for 0 s" in said
    await refused(floodgate, "give a warehouse's id", "list", "--warehouse", "no such place")
    assert (await floodgate("shipment", "list", "--list", "everything"))[0] == 2


async def test_a_parcel_is_shown(floodgate: Command, ship: ShippingShop) -> None:
    order_id, [parcel] = await ship.sent(("a", 2, 0), cod=PRICE)
    await ship.hear(parcel.shipment_id, tracking_event("picked_up", text="fetched [/by] Wang"))
    status, said = await floodgate("shipment", "show", parcel.shipment_id)
    assert status == 0, said
    for words in (
        *("status picked up", f"order {order_id}, parcel 1, to its address 0", "collects 1.00 CNY", "0 a 2"),
        *(f"number {parcel.tracking_no}", "Zhang San, 13800000000, Wenyi West Road 969, Xihu, Hangzhou"),
        *("push picked up", "fetched [/by] Wang", "driver booked"),
    ):
        assert words in said
    status, said = await floodgate("shipment", "of", order_id)
    assert (status, str(parcel.shipment_id) in said, "2 a" in said, "picked up" in said) == (0, True, True, True)
    waiting = await ship.order(("a", 3, 0))
    status, said = await floodgate("shipment", "of", waiting)
    assert (status, f"order {waiting} is in no parcel yet" in said) == (0, True)
    unknown = ship.shop.ids.new()
    await refused(floodgate, f"there is no shipment {unknown}", "show", unknown)
    await refused(floodgate, f"there is no stored order {unknown}", "of", unknown)


async def test_an_order_that_cannot_be_planned(floodgate: Command, ship: ShippingShop) -> None:
    assert (await floodgate("shipment", "unplanned"))[1].startswith("every order that was paid is in parcels")
    await ship.shop.catalog.put("new", ProductInput("a new thing", PRICE, "CNY"))
    order_id, parcels = await ship.sent(("new", 1, 0))
    assert parcels == []
    status, said = await floodgate("shipment", "unplanned")
    assert (status, str(order_id) in said, "new" in said) == (0, True, True), said
    assert "orders that cannot be made into parcels: 1" in (await floodgate("shipment", "counts"))[1]
    async with ship.shop.db.connection() as connection:
        await connection.execute("INSERT INTO product_logistics VALUES ('new', 'hz', 'A-02', 500, 100, 100, 100)")
    assert await floodgate("shipment", "retry-order", order_id) == (0, f"{order_id} is due again")
    await ship.work()
    assert len(await ship.parcels(order_id)) == 1
    await refused(floodgate, "is not among those that could not be planned", "retry-order", order_id)


async def test_packing(floodgate: Command, ship: ShippingShop) -> None:
    id_ = (await by_hand(ship)).shipment_id
    await refused(floodgate, "say byhand's number", "packed", id_)
    await refused(floodgate, "--number: give 4 to 64", "packed", id_, "--number", "no!")
    for _ in range(2):
        status, said = await floodgate("shipment", "packed", id_, "--number", "YD-0001")
        assert (status, said.endswith("is booked, goes with byhand as YD-0001, is packed")) == (0, True), said
    await refused(floodgate, "the number YD-0001 stands for", "packed", (await by_hand(ship)).shipment_id,
                  "--number", "YD-0001")  # fmt: skip


async def test_stopping_and_going_on(floodgate: Command, ship: ShippingShop) -> None:
    _, [parcel] = await ship.sent(("a", 1, 0))
    id_ = parcel.shipment_id
    status, said = await floodgate("shipment", "hold", id_, "--reason", "ask [/him] first")
    assert (status, said.endswith("is held: ask [/him] first")) == (0, True), said
    await refused(floodgate, "it is held: ask [/him] first", "packed", id_)
    status, said = await floodgate("shipment", "let-go", id_)
    assert (status, "held" in said) == (0, False)
    status, said = await floodgate("shipment", "cancel", id_, "--reason", "not wanted")
    assert (status, said.endswith("waits for the carrier to say that it does not come")) == (0, True), said
    await refused(floodgate, "there is nothing to send once more", "reship", id_, "--reason", "wanted")
    await ship.work()
    status, said = await floodgate("shipment", "reship", id_, "--reason", "wanted after all")
    assert (status, "parcel 2 of order" in said, "is planned" in said) == (0, True, True), said
    assert (await ship.parcels(parcel.order_id))[1].replaces == id_
    await refused(floodgate, "it was sent once more already", "reship", id_, "--reason", "again")
    _, [left] = await ship.sent(("a", 1, 0))
    await ship.hear(left.shipment_id, tracking_event("picked_up"))
    for command in ("hold", "cancel"):
        await refused(floodgate, "it is picked_up", command, left.shipment_id, "--reason", "too late")
    await refused(floodgate, "--reason: give 1 to 200", "hold", left.shipment_id, "--reason", "")
    for command in ("let-go", "retry", "hold", "cancel", "settle", "reship"):
        why = () if command in ("let-go", "retry") else ("--reason", "why")
        await refused(floodgate, "there is no shipment", command, UUID(int=1), *why)


async def test_what_failed_is_taken_up_again_or_settled(floodgate: Command, ship: ShippingShop) -> None:
    for name in ("quick", "cheap"):
        ship.carriers[name].says = [refusal()]
    _, [parcel] = await ship.sent(("a", 1, 0))
    id_ = parcel.shipment_id
    status, said = await floodgate("shipment", "list", "--list", "parked")
    assert (status, str(id_) in said, "no carrier takes it" in said) == (0, True, True), said
    assert "given up no carrier takes it" in (await floodgate("shipment", "show", id_))[1]
    status, said = await floodgate("shipment", "retry", id_)
    assert (status, said.endswith("is planned, goes with cheap")) == (0, True), said
    await refused(floodgate, "it was not given up", "retry", id_)
    assert "shipment list --worklist parked" in (await floodgate("parked-jobs", "--help"))[1]

    _, [parcel] = await ship.sent(("a", 1, 0))
    await ship.hear(parcel.shipment_id, tracking_event("picked_up"), tracking_event("lost", 1))
    status, said = await floodgate("shipment", "list", "--list", "undelivered")
    assert (status, str(parcel.shipment_id) in said, "lost" in said) == (0, True, True)
    status, said = await floodgate("shipment", "settle", parcel.shipment_id, "--reason", "the carrier pays")
    assert (status, said.endswith("is settled: the carrier pays")) == (0, True), said
    assert await floodgate("shipment", "list", "--list", "undelivered") == (0, "no parcel is on the list undelivered")
    status, said = await floodgate("shipment", "told", parcel.shipment_id, "--state", "lost", "--reason", "again")
    assert (status, "is lost" in said) == (0, True), said
    await refused(floodgate, "--reason: give 1 to 200", "settle", parcel.shipment_id, "--reason", "x" * 201)


async def test_parcels_are_split_and_merged(floodgate: Command, ship: ShippingShop) -> None:
    parcel = await by_hand(ship, 3)
    id_ = parcel.shipment_id
    for line, words in (
        ("two", "give it as LINE=UNITS"),
        ("0=9", "does not hold 9 units of line 0"),
        ("0=3", "nothing would stay"),
        ("0=0", "does not hold 0 units"),
    ):
        await refused(floodgate, words, "split", id_, "--line", line)
    await refused(floodgate, "line 0 is named twice", "split", id_, "--line", "0=1", "--line", "0=1")
    status, said = await floodgate("shipment", "split", id_, "--line", "0=2")
    assert (status, "parcel 1 of order" in said, "parcel 2 of order" in said) == (0, True, True), said
    first, second = await ship.parcels(parcel.order_id)
    assert (first.value_minor, second.value_minor) == (PRICE, 2 * PRICE)
    status, said = await floodgate("shipment", "merge", id_, second.shipment_id)
    assert (status, said.startswith(f"{id_}: parcel 1"), said.count("parcel")) == (0, True, 1), said
    first, second = await ship.parcels(parcel.order_id)
    assert (first.value_minor, second.status) == (3 * PRICE, "cancelled")
    await refused(floodgate, "name two parcels at least", "merge", id_)
    await refused(floodgate, "no parcel of the same order", "merge", id_, (await by_hand(ship)).shipment_id)


async def test_another_address(floodgate: Command, ship: ShippingShop, tmp_path: Path) -> None:
    id_ = (await by_hand(ship)).shipment_id
    file, why = tmp_path / "to.json", ("--reason", "he moved")
    file.write_bytes(msgspec.json.encode(ADDRESS | {"line": "Renmin Road 8"}))
    status, said = await floodgate("shipment", "redirect", id_, "--address", file, *why)
    assert (status, said.endswith("is planned, goes with cheap")) == (0, True), said
    assert (await ship.parcel(id_)).address.line == "Renmin Road 8"
    given = msgspec.json.encode(SHANGHAI).decode()
    status, said = await floodgate("shipment", "redirect", id_, "--address", "-", *why, given=given)
    assert (status, said.endswith("goes with byhand")) == (0, True), said
    for content, words in (
        ("", "--address: "),
        ("{", "--address: "),
        ('"\xff"', "--address: "),
        ('{"name": "Li Si"}', "missing required field"),
        (given.replace("Century", "Cen\\u0000tury"), "control characters are not allowed"),
        (given.replace("138", "call me "), "not a phone number"),
        (given.replace('"province":"Shanghai"', '"province":""'), "the address lacks province"),
    ):
        file.write_text(content, encoding="latin-1")
        await refused(floodgate, words, "redirect", id_, "--address", file, *why)
    assert (await floodgate("shipment", "redirect", id_, "--address", tmp_path / "none.json", *why))[0] == 2
    assert (await ship.parcel(id_)).address.city == "Shanghai"


async def test_an_appointment(floodgate: Command, ship: ShippingShop) -> None:
    id_ = (await by_hand(ship)).shipment_id
    given = ("--from", "09:00", "--to", "12:30", "--at", "-31.25,121.5")
    assert (await floodgate("shipment", "appoint", id_, *given))[0] == 0
    said = (await floodgate("shipment", "show", id_))[1]
    assert ("customer is there 09:00 to 12:30" in said, "place -31.25, 121.5" in said) == (True, True), said
    assert (await floodgate("shipment", "appoint", id_, "--at", "31.25,121.5"))[0] == 0
    parcel = await ship.parcel(id_)
    assert (parcel.deliver_from, parcel.latitude) == (None, 31.25)
    await refused(floodgate, "both ends of the window", "appoint", id_, "--from", "09:00")
    await refused(floodgate, "ends before it begins", "appoint", id_, "--from", "09:00", "--to", "08:00")
    for place, words in (("there", "give latitude"), ("1,2,3", "give latitude"), ("95,1", "no such place"),
                         ("nan,1", "no such place")):  # fmt: skip
        await refused(floodgate, words, "appoint", id_, "--at", place)
    assert (await floodgate("shipment", "appoint", id_, "--from", "nine"))[0] == 2


async def test_waves(floodgate: Command, ship: ShippingShop) -> None:
    _, [first] = await ship.sent(("a", 2, 0))
    _, [second] = await ship.sent(("a", 1, 0), ("b", 1, 0))
    status, said = await floodgate("wave", "make", "--warehouse", "hz", "--parcels", 5)
    assert status == 0, said
    wave_id = (await ship.parcel(first.shipment_id)).wave_id
    assert f"wave {wave_id}: 2 parcels in hz" in said
    assert f"1 {first.shipment_id} 2 {second.shipment_id}" in said
    assert "A-01 a thing a 3 2 into 1, 1 into 2 B-07 b thing b 1 1 into 2" in said
    assert await floodgate("wave", "show", wave_id) == (0, said)
    for arguments, words in (
        (("make", "--warehouse", "hz"), "nothing is to be packed there"),
        (("make", "--warehouse", "nowhere"), "there is no warehouse nowhere"),
        (("make", "--warehouse", "A B"), "give a warehouse's id"),
        (("show", first.shipment_id), "there is no wave"),
    ):
        status, said = await floodgate("wave", *arguments)
        assert (status, said.startswith("error: "), words in said) == (1, True, True), said


async def test_papers(floodgate: Command, ship: ShippingShop, tmp_path: Path) -> None:
    planned = await by_hand(ship)
    _, [booked] = await ship.sent(("a", 1, 0))
    for warehouse in ("hz", "sh"):
        assert (await floodgate("wave", "make", "--warehouse", warehouse))[0] == 0
    early, late = [(await ship.parcel(one.shipment_id)).wave_id for one in (planned, booked)]
    commands = {
        ("shipment", "label"): booked.shipment_id,
        ("shipment", "packing-list"): planned.shipment_id,
        ("wave", "pick-list"): early,
        ("wave", "labels"): late,
    }
    for number, (command, id_) in enumerate(commands.items()):
        file = tmp_path / f"{number}.pdf"
        status, said = await floodgate(*command, id_, "--out", file)
        assert (status, said) == (0, f"{file}: {file.stat().st_size:,} bytes")
        assert file.read_bytes().startswith(b"%PDF-")
        status, said = await floodgate(*command, id_, "--out", tmp_path / "none" / "a.pdf")
        assert (status, "a.pdf cannot be written: No such file" in said) == (1, True), said
        status, said = await floodgate(*command, UUID(int=1), "--out", tmp_path / "unknown.pdf")
        assert (status, f"there is no {command[0]}" in said) == (1, True), said
    for arguments in (("shipment", "label", planned.shipment_id), ("wave", "labels", early)):
        status, said = await floodgate(*arguments, "--out", tmp_path / "early.pdf")
        assert (status, "booked" in said) == (1, True), said
    assert not (tmp_path / "early.pdf").exists()


async def test_carriers_that_the_settings_get_wrong(floodgate: Command, ship: ShippingShop) -> None:
    status, said = await floodgate("shipment", "list", shipping={"kuaidi100_carriers": {"byhand": "yunda"}})
    assert (status, said.startswith("error: the settings of shipping cannot be used: ")) == (1, True), said
    assert (await floodgate("parked-jobs", "list", shipping={"kuaidi100_carriers": {"byhand": "yunda"}}))[0] == 0


async def test_a_token_for_the_warehouse(floodgate: Command, settings: Settings) -> None:
    status, token = await floodgate("token", "admin", "wang", "--role", "warehouse")
    assert status == 0
    found = Authenticator(settings.auth, SystemClock()).identify_staff(f"Bearer {token}", "warehouse")
    assert found.roles == {"warehouse"}
