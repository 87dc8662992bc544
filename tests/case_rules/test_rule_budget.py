"""Daily budgets of rules, and the switch that stops them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from commerce.case_rules import store
from commerce.case_rules.errors import BadRules, NoSuchRuleSet
from commerce.case_rules.model import RuleActivation, RuleBudgetInput, RuleSetInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from tests.support.case_shop import RETURN
from tests.support.rule_shop import APPROVE, LEAD, REST, WITHOUT_RETURN, ZONE, RuleShop, open_rule_shop, rule
from tests.support.sales import eventually
from tests.support.shipping_shop import ShippingShop


@pytest.fixture
def rules(ship: ShippingShop) -> RuleShop:
    return open_rule_shop(ship)


async def work_at_once(rules: RuleShop) -> list[str]:
    claimed = await rules.jobs.queue.claim(100, {})
    results = await asyncio.gather(*(rules.jobs.queue.work(jobs) for jobs in claimed))
    return sorted(result.word for group in results for result in group)


@pytest.mark.parametrize(("budget", "paid"), [((1_250, 1_000), 12), ((100_000, 7), 7)])
async def test_fifty_cases_at_once_never_exceed_the_budget(rules: RuleShop, budget: tuple[int, int], paid: int) -> None:
    await rules.use(rule(WITHOUT_RETURN, "keep it", kinds=[RETURN]), budget=budget)
    case_ids = await rules.request_many(10, 5)
    assert await work_at_once(rules) == ["by_hand"] * (50 - paid) + ["refund_without_return"] * paid
    [used] = (await rules.rules.get_state()).budgets
    assert (used.amount, used.cases, used.refused_cases) == (100 * paid, paid, 50 - paid)
    decisions = [decision for case_id in case_ids for decision in await rules.decisions(case_id)]
    assert sum(decision.amount or 0 for decision in decisions) == used.amount
    refused = [decision for decision in decisions if decision.amount is None]
    assert {decision.reasons[-1] for decision in refused} == {"the daily budget of rules in CNY has no room for 100"}


async def test_without_a_budget_nothing_is_paid_and_the_next_day_has_its_own(
    rules: RuleShop, ship: ShippingShop
) -> None:
    await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]), budget=None)
    case_ids = await rules.request_many(1, 3)
    assert set(await work_at_once(rules)) == {"by_hand"}
    await rules.set_budget(100, 9)
    assert await rules.outcomes(case_ids) == ["by_hand"] * 3
    more = await rules.request_many(1, 2)
    assert await work_at_once(rules) == ["approve", "by_hand"]
    day = from_ms(ship.shop.clock.now_ms()).astimezone(ZONE).date()
    async with ship.shop.db.connection() as connection:
        assert not await store.spend(connection, "CNY", day, 100)
        assert await store.spend(connection, "CNY", day + timedelta(days=1), 100)
        assert not await store.spend(connection, "GBP", day, 1)
    assert len(more) == 2


async def test_switch_stops_decisions_that_were_claimed_before(rules: RuleShop) -> None:
    version = await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    case_ids = await rules.request_many(1, 2)
    claimed = await rules.jobs.queue.claim(100, {})
    await rules.switch(is_on=False)
    for jobs in claimed:
        await rules.jobs.queue.work(jobs)
    for case_id in case_ids:
        [decision] = await rules.decisions(case_id)
        assert (decision.rule_no, decision.reasons) == (None, ["the rules are switched off"])
        assert await rules.cases.state(case_id) == ("requested", "undecided", "staff")
    await rules.switch(is_on=True)
    await rules.request_many(1, 1)
    assert await rules.work() == ["approve"]
    events = (await rules.rules.list_events(None, 9)).items
    assert [event.kind for event in events] == ["switched_on", "switched_off", "budget_set", "activated", "set_added"]
    assert events[-1].details == {"version": version, "rules": 2}
    assert {event.actor for event in events} == {LEAD}


async def test_switch_waits_for_the_decision_under_way_and_later_ones_wait_for_it(
    rules: RuleShop, ship: ShippingShop
) -> None:
    await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    [case_id] = await rules.request_many(1, 1)
    async with ship.shop.db.transaction() as connection:
        await store.lock_for_decision(connection)
        switching = asyncio.create_task(rules.switch(is_on=False))
        await eventually(lambda: is_waiting(ship, "ExclusiveLock"))
        deciding = asyncio.create_task(rules.work())
        await eventually(lambda: is_waiting(ship, "ShareLock"))
        assert not switching.done()
        assert (await store.get_state(connection)).is_on
    await asyncio.gather(switching, deciding)
    assert await rules.outcomes([case_id]) == ["by_hand"]
    assert await rules.cases.state(case_id) == ("requested", "undecided", "staff")


async def is_waiting(ship: ShippingShop, mode: str) -> bool:
    query = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND mode = $1 "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return bool(await ship.fetch_value(query, mode))


async def test_versions_stay_as_they_are(rules: RuleShop, ship: ShippingShop) -> None:
    first = await rules.use(rule(APPROVE, "send it back", kinds=[RETURN]))
    second = await rules.use(budget=None)
    assert second == first + 1
    assert [rule_set.version for rule_set in (await rules.rules.list_sets(None, 9)).items] == [second, first]
    assert (await rules.rules.get_set(first)).rules[0].conditions.kinds == [RETURN]
    with pytest.raises(Exception, match="add a new version"):
        await ship.fetch_rows("UPDATE case_rule_sets SET reason = 'x' RETURNING 1")
    with pytest.raises(NoSuchRuleSet):
        await rules.rules.activate(RuleActivation(version=99, reason="try"), LEAD)
    state = await rules.rules.activate(RuleActivation(version=first, reason="back"), LEAD)
    assert state.active_version == first
    assert (await rules.rules.activate(RuleActivation(version=None, reason="none"), LEAD)).active_version is None
    await rules.request_many(1, 1)
    assert await rules.work() == ["no_rules"]


async def test_rules_with_names_of_nothing_are_refused(rules: RuleShop) -> None:
    bad = [rule(APPROVE, skus=["a", "nothing"], sales=["never"], excluded_skus=["none"]), REST]
    with pytest.raises(BadRules) as caught:
        await rules.rules.add_set(RuleSetInput(rules=bad, reason="try"), LEAD)
    assert [(error["pointer"], error["detail"].partition(":")[0]) for error in caught.value.extra["errors"]] == [
        ("/rules/0/conditions/skus", "nothing"),
        ("/rules/0/conditions/excluded_skus", "none"),
        ("/rules/0/conditions/sales", "never"),
    ]
    with pytest.raises(Invalid):
        await rules.rules.put_budget("XXX", RuleBudgetInput(max_amount=1, max_cases=1, reason="try"), LEAD)
