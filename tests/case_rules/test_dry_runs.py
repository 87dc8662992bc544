"""Rules tried on past cases: what they would have decided otherwise, without any change."""

from __future__ import annotations

from datetime import timedelta

import pytest

from commerce.case_rules import dry_runs
from commerce.case_rules.errors import BadRules, TooManyPastCases
from commerce.case_rules.model import CaseRule, DryRunInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from tests.support.case_shop import CLAIM, REFUND_ONLY, RETURN
from tests.support.rule_shop import APPROVE, BY_HAND, DECLINE, REST, WITHOUT_RETURN, RuleShop, open_rule_shop, rule
from tests.support.shipping_shop import ShippingShop

_TABLES = (
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' "
    "ORDER BY table_name"
)
_DIGEST = "SELECT md5(coalesce(string_agg(entry::text, ' ' ORDER BY entry::text), '')) FROM {} AS entry"


@pytest.fixture
def rules(ship: ShippingShop) -> RuleShop:
    return open_rule_shop(ship)


def trial(rules: RuleShop, *rows: CaseRule, hours: float = 1) -> DryRunInput:
    now = from_ms(rules.cases.ship.shop.clock.now_ms())
    return DryRunInput(rules=[*rows, REST], from_=now - timedelta(hours=hours), to=now + timedelta(hours=hours))


async def digest_tables(ship: ShippingShop) -> dict[str, str]:
    """Return the digest of each table's rows."""
    return {
        row["table_name"]: await ship.fetch_value(_DIGEST.format(row["table_name"]))
        for row in await ship.fetch_rows(_TABLES)
    }


async def test_dry_run_repeated_shows_the_same_differences_and_changes_nothing(
    rules: RuleShop, ship: ShippingShop
) -> None:
    await rules.use(rule(WITHOUT_RETURN, "keep it", kinds=[REFUND_ONLY]))
    [by_rule] = await rules.request_many(1, 1, kind=REFUND_ONLY)
    declined, approved, still_open = await rules.request_many(1, 3)
    claimed, withdrawn = await rules.request_many(1, 2, kind=CLAIM)
    await rules.work()
    await rules.cases.act("decline", declined)
    await rules.cases.approve(approved)
    await rules.cases.approve(claimed)
    await rules.cases.actions.cancel(withdrawn, 1, "customer user", "never mind", "user")
    [quicker] = await rules.request_many(1, 1)
    await rules.cases.approve(quicker)  # before its job
    await rules.work()

    before = await digest_tables(ship)
    wanted = trial(rules, rule(APPROVE, kinds=[RETURN]), rule(APPROVE, kinds=[CLAIM], min_cases=1))
    report = await rules.rules.try_rules(wanted)
    assert await rules.rules.try_rules(wanted) == report
    assert await digest_tables(ship) == before

    assert (report.cases, report.without_inputs) == (6, 1)
    assert [(each.outcome, each.cases, each.amounts) for each in report.outcomes] == [
        (APPROVE, 5, {"CNY": 500}),
        (BY_HAND, 1, {"CNY": 100}),
    ]
    assert [row.cases for row in report.rows] == [3, 2, 1]
    assert {(each.was, each.was_by_rule, each.would_be): each.sample for each in report.differences} == {
        ("decline", False, APPROVE): [declined],
        ("undecided", False, APPROVE): [still_open],
        ("cancelled", False, WITHOUT_RETURN): [withdrawn],
        ("refund_without_return", True, BY_HAND): [by_rule],
    }
    assert [(each.currency, each.amount, each.cases) for each in report.busiest_days] == [("CNY", 500, 5)]


async def test_dry_run_uses_inputs_of_the_request_not_of_today(rules: RuleShop) -> None:
    case_ids = await rules.request_many(1, 2)
    for _ in case_ids:
        await rules.work()
    rows = rule(DECLINE, min_cases=1), rule(APPROVE, kinds=[RETURN])
    report = await rules.rules.try_rules(trial(rules, *rows))
    assert [row.cases for row in report.rows] == [1, 1, 0]
    await rules.request_many(1, 1)
    await rules.cases.approve(case_ids[0])
    await rules.cases.act("resolve", case_ids[0])
    assert [row.cases for row in (await rules.rules.try_rules(trial(rules, *rows))).rows] == [1, 1, 0]


async def test_dry_run_covers_its_time_only(rules: RuleShop) -> None:
    await rules.request_many(1, 2)
    await rules.work()
    wanted = trial(rules, rule(APPROVE, kinds=[RETURN]))
    assert wanted.to is not None
    late = DryRunInput(rules=wanted.rules, from_=wanted.to, to=wanted.to + timedelta(days=1))
    empty = await rules.rules.try_rules(late)
    assert (await rules.rules.try_rules(DryRunInput(rules=wanted.rules))).cases == 2
    assert (empty.cases, empty.without_inputs, empty.differences) == (0, 0, [])


async def test_bad_dry_run_is_refused(rules: RuleShop, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trial(rules, rule(APPROVE, kinds=[RETURN]))
    with pytest.raises(Invalid, match="/to"):
        await rules.rules.try_rules(DryRunInput(rules=wanted.rules, from_=wanted.to, to=wanted.from_))
    with pytest.raises(BadRules):
        await rules.rules.try_rules(trial(rules, rule(APPROVE, skus=["nothing"])))
    await rules.request_many(1, 2)
    monkeypatch.setattr(dry_runs, "MAX_CASES", 1)
    with pytest.raises(TooManyPastCases, match="shorter time"):
        await rules.rules.try_rules(wanted)
