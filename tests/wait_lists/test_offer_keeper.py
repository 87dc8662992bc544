"""The keeper of a wait-list: who is offered what, for how long, and what becomes of the rest."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from commerce.kernel.errors import NotReady, SomeFailed
from commerce.sales.errors import OverLimit
from commerce.sales.loading import load_sale
from commerce.sales.server_adoption import ServerAdoption
from commerce.wait_lists import offer_keeper
from commerce.wait_lists.errors import InvalidWaitListState, StillAvailable, WaitListFull
from commerce.wait_lists.model import WaitListSettings
from lua import ReserveOutcome
from ops.services import CliServices
from tests.support.wait_lists import ACCEPT_S, SKU, open_wait_list

ACCEPTED, REPLAYED, SOLD_OUT = ReserveOutcome.ACCEPTED, ReserveOutcome.REPLAYED, ReserveOutcome.SOLD_OUT
MAX_DELAY_S = 4
USERS = [f"u{number}" for number in range(6)]


async def test_units_that_come_back_are_offered_in_order(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    assert await wait_list.numbers(USERS) == [1, 2, 3, 4, 5, 6]
    await wait_list.return_units(3)
    assert await wait_list.units() == (0, 3, 0)
    assert await wait_list.outcomes(["u0", "stranger"]) == [SOLD_OUT, SOLD_OUT]
    stored = await wait_list.step()
    assert await wait_list.users_in("offered") == USERS[:3]
    assert await wait_list.units() == (0, 0, 3)
    assert (stored.waiting, stored.offered, stored.skus[0].offered_number) == (3, 3, 3)
    assert await wait_list.outcomes(["stranger", "u3"]) == [SOLD_OUT, SOLD_OUT]
    assert (await wait_list.order("u1", key="k")).outcome is ACCEPTED
    assert (await wait_list.order("u1", key="k")).outcome is REPLAYED
    assert (await wait_list.order("u1", key="other")).outcome is SOLD_OUT
    await wait_list.let_pass(2)
    assert await wait_list.users_in("taken") == ["u1"]
    assert await wait_list.numbers(["u0", "u1"]) == [1, 7]


async def test_offer_that_lapses_goes_to_the_next(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(USERS)
    await wait_list.return_units(2)
    await wait_list.step()
    assert await wait_list.outcomes(["u0"]) == [ACCEPTED]
    stored = await wait_list.let_pass(ACCEPT_S + MAX_DELAY_S)
    assert [await wait_list.users_in(state) for state in ("taken", "lapsed", "offered")] == [["u0"], ["u1"], ["u2"]]
    assert await wait_list.outcomes(["u1", "u2"]) == [SOLD_OUT, ACCEPTED]
    assert (stored.waiting, stored.offered) == (3, 1)


async def test_units_for_which_nobody_waits_go_on_sale(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"])
    await wait_list.return_units(3)
    await wait_list.step()
    assert await wait_list.units() == (2, 0, 1)
    [refusal] = await wait_list.join(["u1"])
    assert isinstance(refusal, StillAvailable)
    assert await wait_list.outcomes(["stranger", "stranger"]) == [ACCEPTED, ACCEPTED]
    assert await wait_list.numbers(["u1"]) == [2]


async def test_held_back_units_are_offered_in_part_to_the_next(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"], quantity=3)
    await wait_list.join(["u1"])
    await wait_list.return_units(2)
    await wait_list.step()
    assert await wait_list.states() == {"u0": "offered", "u1": "waiting"}
    assert (await wait_list.order("u0", 3)).outcome is SOLD_OUT
    assert (await wait_list.order("u0", 1)).outcome is ACCEPTED
    assert await wait_list.units() == (0, 0, 1)
    assert (await wait_list.order("u0", 1)).outcome is ACCEPTED
    assert await wait_list.units() == (0, 0, 0)


async def test_limit_counts_for_offers_too(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id, units=1, limit=1)
    assert await wait_list.outcomes(["u0"]) == [ACCEPTED]
    refusals = [*await wait_list.join(["u0"]), *await wait_list.join(["u1"], quantity=2)]
    assert all(isinstance(refusal, OverLimit) for refusal in refusals)
    await wait_list.join(["u1"])
    await wait_list.return_units(1)
    await wait_list.step()
    assert (await wait_list.order("u1", 2)).outcome is SOLD_OUT
    assert (await wait_list.order("u1")).outcome is ACCEPTED
    assert await wait_list.units() == (0, 0, 0)


async def test_list_of_a_sku_takes_no_more_than_its_maximum(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id, max_people_per_sku=2)
    first, second, third, again = await wait_list.join(["u0", "u1", "u2", "u0"])
    assert isinstance(third, WaitListFull)
    assert first == again != second
    assert [await shop.wait_lists.leave(sale_id, SKU, "u0") for _ in range(2)] == [True, False]
    assert await wait_list.numbers(["u2"]) == [3]
    assert (await wait_list.read()).waiting == 2


async def test_offer_that_is_given_up_goes_to_the_next_at_once(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0", "u1"])
    await wait_list.return_units(1)
    await wait_list.step()
    await shop.wait_lists.leave(sale_id, SKU, "u0")
    await wait_list.let_pass(1)
    assert await wait_list.states() == {"u0": "lapsed", "u1": "offered"}


@pytest.mark.parametrize("end", ["off", "close"])
async def test_end_puts_everything_on_sale(shop: CliServices, sale_id: str, end: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(USERS)
    await wait_list.return_units(2)
    await wait_list.step()
    await wait_list.return_units(1)
    assert await wait_list.units() == (0, 1, 2)
    if end == "off":
        await shop.wait_lists.put(sale_id, WaitListSettings("off"), "test")
    else:
        await shop.sales.close(sale_id, "test")
        with pytest.raises(InvalidWaitListState):
            await shop.wait_lists.put(sale_id, WaitListSettings("off"), "test")
    await wait_list.return_units(1)
    stored = await wait_list.step(2)
    assert await wait_list.units() == (4, 0, 0)
    assert (stored.waiting, stored.offered) == (0, 0)
    assert set((await wait_list.states()).values()) == {"lapsed", "left"}


async def test_time_in_which_nobody_can_order_is_added_to_offers(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0", "u1"])
    await wait_list.return_units(1)
    await wait_list.step()
    await shop.sales.pause(sale_id, "test")
    wait_list.clock.shift_ms += 2 * ACCEPT_S * 1000
    await wait_list.step()
    await shop.sales.open(sale_id, "test")
    await wait_list.step(2)
    assert await wait_list.states() == {"u0": "offered", "u1": "waiting"}
    place = await shop.wait_lists.get_place(sale_id, SKU, "u0")
    assert place.accept_by is not None
    left = place.accept_by.timestamp() - wait_list.clock.now_ms() / 1000
    assert ACCEPT_S - 60 < left <= ACCEPT_S + 1


async def test_keepers_that_step_together_offer_each_unit_once(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    users = [f"u{number}" for number in range(60)]
    await wait_list.join(users)
    keepers = [wait_list.new_keeper() for _ in range(4)]
    for _ in range(5):
        await wait_list.return_units(5)
        stored = await wait_list.read()
        await asyncio.gather(*(keeper.step(stored) for keeper in keepers))
    await wait_list.step(2)
    assert await wait_list.units() == (0, 0, 25)
    assert await wait_list.users_in("offered") == users[:25]


class Killed(Exception):
    """The keeper dies here."""


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize(
    "point",
    ["wait_list.after_record", "wait_list.after_offer", "wait_list.after_withdraw", "wait_list.after_sale"],
)
async def test_keeper_that_dies_loses_no_place_and_no_unit(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch, point: str, rebuilt: bool
) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(USERS[:3])
    await wait_list.return_units(2)
    if point == "wait_list.after_withdraw":
        await wait_list.step()
        await wait_list.end_offers()
    if point == "wait_list.after_sale":
        await wait_list.return_units(3)

    def die(name: str) -> None:
        if name == point:
            raise Killed

    monkeypatch.setattr(offer_keeper, "failpoint", die)
    with pytest.raises((Killed, SomeFailed)):
        await wait_list.step()
    monkeypatch.undo()
    if rebuilt:
        await load_sale(shop.db, shop.redis, wait_list.clock, sale_id)
    wait_list.keeper = wait_list.new_keeper()
    await wait_list.step(2)
    units = await wait_list.units()
    states = await wait_list.states()
    if point == "wait_list.after_sale":
        assert list(states.values()) == ["offered"] * 3
        assert units == (2, 0, 3)
    elif point == "wait_list.after_withdraw" and not rebuilt:
        assert list(states.values()) == ["lapsed", "lapsed", "offered"]
        assert units == (1, 0, 1)
    else:  # a load restores the offers, with their full time
        assert list(states.values()) == ["offered", "offered", "waiting"]
        assert units == (0, 0, 2)
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings
    holders = [user for user, state in states.items() if state == "offered"]
    assert await wait_list.outcomes([*holders, *holders]) == [
        *[ACCEPTED] * len(holders),
        *[ACCEPTED] * units[0],
        *[SOLD_OUT] * (len(holders) - units[0]),
    ]


async def test_load_restores_offers_that_are_not_taken(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(USERS)
    await wait_list.return_units(4)
    await wait_list.step()
    assert await wait_list.outcomes(["u1"]) == [ACCEPTED]  # in the stream only
    await wait_list.return_units(1)
    before = (await wait_list.cut()).units_available()
    for _ in range(2):
        await load_sale(shop.db, shop.redis, wait_list.clock, sale_id)
        assert await wait_list.units() == (0, 1, 3)
        assert (await wait_list.cut()).units_available() == before
    assert (await shop.audit.audit_sale(sale_id)).clean
    await wait_list.let_pass(2)
    states = ["offered", "taken", "offered", "offered", "offered", "waiting"]
    assert list((await wait_list.states()).values()) == states
    assert await wait_list.outcomes(USERS) == [ACCEPTED, SOLD_OUT, ACCEPTED, ACCEPTED, ACCEPTED, SOLD_OUT]


async def test_offer_that_was_read_before_a_load_is_not_applied_after_it(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0", "u1"])
    await wait_list.return_units(1)
    original = offer_keeper.lua.offer_units

    async def load_first(*arguments):  # type: ignore[no-untyped-def]
        await load_sale(shop.db, shop.redis, wait_list.clock, sale_id)
        return await original(*arguments)

    monkeypatch.setattr(offer_keeper.lua, "offer_units", load_first)
    await wait_list.new_keeper().step(await wait_list.read())
    monkeypatch.undo()
    assert await wait_list.units() == (0, 0, 1)
    await wait_list.step(2)
    assert await wait_list.states() == {"u0": "offered", "u1": "waiting"}
    assert await wait_list.units() == (0, 0, 1)


async def test_orders_that_race_with_ends_of_offers_never_oversell(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    users = [f"u{number}" for number in range(50)]
    await wait_list.join(users)
    await wait_list.return_units(20)
    await wait_list.step()
    await wait_list.end_offers(in_ms=1_000)
    keepers, accepted = [wait_list.new_keeper() for _ in range(2)], []

    async def order(user: str) -> None:
        for _ in range(4):
            if (await wait_list.order(user)).outcome is ACCEPTED:
                accepted.append(user)
            await asyncio.sleep(0)

    async def keep() -> None:
        for _ in range(12):
            wait_list.clock.shift_ms += 300
            stored = await wait_list.read()
            await asyncio.gather(*(keeper.step(stored) for keeper in keepers))

    await asyncio.gather(keep(), *map(order, users))
    await wait_list.let_pass(3)
    free, held_back, offered = await wait_list.units()
    assert len(accepted) + offered == 20
    assert (free, held_back) == (0, 0)
    assert len(set(accepted)) == len(accepted)
    assert set(accepted) == set(await wait_list.users_in("taken"))
    audit = await shop.audit.audit_sale(sale_id)
    assert audit.clean, audit.findings


async def test_sale_that_is_not_open_yet_offers_nothing(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"])
    await wait_list.return_units(1)
    stored = await wait_list.read()
    later = stored.opens_at + timedelta(hours=1)
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET opens_at = $2 WHERE sale_id = $1", sale_id, later)
    await wait_list.step()
    assert await wait_list.units() == (0, 1, 0)


async def test_new_item_without_stock_can_be_waited_for(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await shop.redis.hdel(wait_list.keys.stock.decode(), SKU)  # as of an item that joined the running sale
    await shop.redis.hset(wait_list.keys.stock.decode(), "other", 1)
    assert await wait_list.numbers(["u0"]) == [1]
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE wait_list_entries SET state = 'left', ended_at = joined_at")
    await shop.redis.delete(wait_list.keys.meta)
    [refusal] = await wait_list.join(["u0"])
    assert isinstance(refusal, NotReady)


async def test_server_that_lacks_an_offer_is_not_adopted(shop: CliServices, sale_id: str) -> None:
    """A promoted replica without the offer would give its units to others, and the customer none."""
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"])
    await wait_list.return_units(1)
    await wait_list.step()
    seq = int(await shop.redis.hget(wait_list.keys.meta.decode(), "change_seq") or 0)
    adoption = ServerAdoption(shop.db, shop.redis, shop.clock)
    for change_seq, waiting in ((seq - 1, 1), (seq, 0)):
        await shop.redis.hset(wait_list.keys.meta, mapping={"run_id": "0" * 40, "change_seq": change_seq})
        assert await adoption.adopt_sales([sale_id], {}) == waiting
    assert await wait_list.outcomes(["u0"]) == [ACCEPTED]
    await wait_list.let_pass(2)
    assert await wait_list.users_in("taken") == ["u0"]
    taken_seq = int(await shop.redis.hget(wait_list.keys.meta.decode(), "change_seq") or 0)
    for change_seq, waiting in ((seq, 1), (taken_seq, 0)):  # there the offer still stands, and nobody would withdraw it
        await shop.redis.hset(wait_list.keys.meta, mapping={"run_id": "0" * 40, "change_seq": change_seq})
        assert await adoption.adopt_sales([sale_id], {}) == waiting


async def test_refused_offer_leaves_the_customer_waiting_with_his_number(
    shop: CliServices, sale_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis holds back fewer units than when the offer was recorded."""
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0", "u1"])
    await wait_list.return_units(2)
    original = offer_keeper.lua.offer_units

    async def take_one_first(redis, keys, *arguments):  # type: ignore[no-untyped-def]
        await redis.hincrby(keys.held_back.decode(), SKU, -1)
        return await original(redis, keys, *arguments)

    monkeypatch.setattr(offer_keeper.lua, "offer_units", take_one_first)
    stored = await wait_list.step()
    assert await wait_list.states() == {"u0": "offered", "u1": "waiting"}
    assert (stored.waiting, stored.offered, stored.skus[0].offered_units) == (1, 1, 1)
    monkeypatch.undo()
    await wait_list.return_units(1)
    await wait_list.step()
    assert await wait_list.users_in("offered") == ["u0", "u1"]
    assert await wait_list.numbers(["u1"]) == [2]
    assert await wait_list.units() == (0, 0, 2)


async def test_end_of_a_sale_that_redis_has_lost_ends_all_places(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"])
    await shop.sales.close(sale_id, "test")
    await shop.redis.delete(wait_list.keys.meta, wait_list.keys.stock)
    await wait_list.step()
    assert await wait_list.states() == {"u0": "left"}


async def test_clock_of_a_keeper_that_is_ahead_ends_no_place(shop: CliServices, sale_id: str) -> None:
    wait_list = await open_wait_list(shop, sale_id)
    await wait_list.join(["u0"])
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE sales SET closes_at = now() + interval '1 hour' WHERE sale_id = $1", sale_id)
    wait_list.clock.shift_ms += 7_200_000
    await wait_list.step()
    assert await wait_list.states() == {"u0": "waiting"}
    wait_list.clock.shift_ms = 0
    await wait_list.return_units(1)
    await wait_list.step()
    assert await wait_list.states() == {"u0": "offered"}
