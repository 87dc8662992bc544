"""Rule sets that are refused, and rules as an ordered list without a surprise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.aftersales.model import CaseKind, ClaimKind
from commerce.aftersales.reasons import REASONS
from commerce.case_rules.errors import BadRules
from commerce.case_rules.match_regions import CompiledRules, covers, make_regions
from commerce.case_rules.model import (
    MAX_RULES,
    CaseInputs,
    CaseRule,
    DeliveryReport,
    RuleConditions,
    RuleOutcome,
    RuleSetInput,
)
from commerce.case_rules.rule_checks import ExistingNames, check_rules
from tests.support.rule_shop import APPROVE, BY_HAND, DECLINE, REST, rule

RETURN, EXCHANGE, CLAIM, REFUND_ONLY = CaseKind
SKUS, SALES, REASON_CODES = ("a", "b", "c"), ("s1", "s2"), ("style", "too_big", "arrived_late")
NAMES = ExistingNames(SKUS, SALES)
_FLAG = st.none() | st.booleans()


def some(values: Sequence[Any]) -> st.SearchStrategy[list[Any] | None]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=len(values), unique=True)


def amounts() -> st.SearchStrategy[dict[str, int] | None]:
    return st.none() | st.dictionaries(st.sampled_from(("CNY", "GBP")), st.integers(0, 5), min_size=1)


def number() -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(0, 5)


CONDITIONS = st.builds(
    RuleConditions,
    kinds=some(list(CaseKind)),
    claims=some(list(ClaimKind)),
    reasons=some(REASON_CODES),
    skus=some(SKUS),
    excluded_skus=some(SKUS),
    sales=some(SALES),
    carrier=some(list(DeliveryReport)),
    is_first_order=_FLAG,
    is_delivery_proven=_FLAG,
    has_evidence=_FLAG,
    **{f"{bound}_{name}": amounts() for bound in ("min", "max") for name in ("amount", "refunded")},
    **{f"{bound}_{name}": number() for bound in ("min", "max") for name in ("days", "cases", "returned_share")},
)


@st.composite
def draw_inputs(draw: st.DrawFn) -> CaseInputs:
    kind = draw(st.sampled_from(list(CaseKind)))
    return CaseInputs(
        at=datetime(2026, 11, 11, tzinfo=UTC),
        kind=kind,
        claim=draw(st.sampled_from(list(ClaimKind))) if kind is CLAIM else None,
        items_back=draw(st.booleans()),
        reason=draw(st.sampled_from(REASON_CODES)),
        currency=draw(st.sampled_from(("CNY", "GBP", "JPY"))),
        amount=draw(st.none() | st.integers(0, 6)),
        days=draw(st.none() | st.integers(0, 6)),
        skus=draw(st.lists(st.sampled_from(SKUS), min_size=1, unique=True)),
        sale_id=draw(st.sampled_from(SALES)),
        cases=draw(st.integers(0, 6)),
        refunded=draw(st.dictionaries(st.sampled_from(("CNY", "JPY")), st.integers(0, 6))),
        returned_share=draw(st.integers(0, 6)),
        is_first_order=draw(st.booleans()),
        carrier=draw(st.lists(st.sampled_from(list(DeliveryReport)), min_size=1, unique=True)),
        is_delivery_proven=draw(st.booleans()),
        has_evidence=draw(st.booleans()),
    )


def in_bounds(value: int | None, low: int | None, high: int | None) -> bool:
    if low is None and high is None:
        return True
    return value is not None and (low is None or value >= low) and (high is None or value <= high)


def holds(conditions: RuleConditions, case: CaseInputs) -> bool:
    """Tell whether conditions hold, one after another as the documentation words them."""
    for bounds in (conditions.min_amount, conditions.max_amount):
        if bounds is not None and (case.currency not in bounds or case.amount is None):
            return False
    refunded_currencies = {*(conditions.min_refunded or {}), *(conditions.max_refunded or {})}
    return all(
        (
            conditions.kinds is None or case.kind in conditions.kinds,
            conditions.claims is None or case.claim in conditions.claims,
            conditions.reasons is None or case.reason in conditions.reasons,
            in_bounds(
                case.amount,
                (conditions.min_amount or {}).get(case.currency),
                (conditions.max_amount or {}).get(case.currency),
            ),
            in_bounds(case.days, conditions.min_days, conditions.max_days),
            in_bounds(case.cases, conditions.min_cases, conditions.max_cases),
            in_bounds(case.returned_share, conditions.min_returned_share, conditions.max_returned_share),
            conditions.skus is None or all(sku in conditions.skus for sku in case.skus),
            conditions.excluded_skus is None or not any(sku in conditions.excluded_skus for sku in case.skus),
            conditions.sales is None or case.sale_id in conditions.sales,
            conditions.carrier is None or all(report in conditions.carrier for report in case.carrier),
            conditions.is_first_order in (None, case.is_first_order),
            conditions.is_delivery_proven in (None, case.is_delivery_proven),
            conditions.has_evidence in (None, case.has_evidence),
            *(
                in_bounds(
                    case.refunded.get(currency, 0),
                    (conditions.min_refunded or {}).get(currency),
                    (conditions.max_refunded or {}).get(currency),
                )
                for currency in refunded_currencies
            ),
        )
    )


@given(st.lists(CONDITIONS, max_size=8), draw_inputs())
def test_evaluation_is_total_and_finds_the_first_row_that_holds(
    conditions: list[RuleConditions], case: CaseInputs
) -> None:
    rules = [CaseRule(outcome=APPROVE, reason="x", conditions=each) for each in conditions] + [REST]
    number = CompiledRules(rules).find(case)
    expected = next(row for row, each in enumerate(rules, 1) if holds(each.conditions, case))
    assert number == expected
    copy = msgspec.json.decode(msgspec.json.encode(case), type=CaseInputs)
    decoded = msgspec.json.decode(msgspec.json.encode(rules), type=list[CaseRule])
    assert CompiledRules(decoded).find(copy) == number


@given(CONDITIONS, CONDITIONS, draw_inputs())
def test_row_that_is_covered_never_holds_alone(
    earlier: RuleConditions, later: RuleConditions, case: CaseInputs
) -> None:
    earlier_regions, later_regions = make_regions(earlier), make_regions(later)
    if covers(earlier_regions, later_regions):
        assert holds(earlier, case) or not holds(later, case)
    if any(region.is_empty for region in later_regions.values()):
        assert not holds(later, case)
    if not later_regions:
        assert holds(later, case)


@given(CONDITIONS)
def test_row_covers_itself_and_narrower_ones(conditions: RuleConditions) -> None:
    regions = make_regions(conditions)
    assert covers(regions, regions)
    assert covers({}, regions)
    assert not covers(regions, {}) or not regions


def refusals(*rules: CaseRule) -> list[tuple[str, str]]:
    with pytest.raises(BadRules) as caught:
        check_rules(rules, NAMES)
    return [(error["pointer"], error["detail"]) for error in caught.value.extra["errors"]]


@pytest.mark.parametrize(
    ("conditions", "member", "word"),
    [
        ({"reasons": ["style", "never_heard_of"]}, "reasons", "never_heard_of"),
        ({"skus": ["zzz"]}, "skus", "zzz"),
        ({"excluded_skus": ["zzz"]}, "excluded_skus", "zzz"),
        ({"sales": ["zzz"]}, "sales", "zzz"),
        ({"max_amount": {"CNZ": 5}}, "max_amount", "CNZ"),
        ({"min_refunded": {"XXX": 5}}, "min_refunded", "XXX"),
    ],
)
def test_unknown_code_is_refused_where_it_stands(conditions: dict[str, Any], member: str, word: str) -> None:
    assert [(pointer, detail.partition(":")[0]) for pointer, detail in refusals(rule(APPROVE, **conditions), REST)] == [
        (f"/rules/0/conditions/{member}", word)
    ]


@pytest.mark.parametrize(
    ("conditions", "part"),
    [
        ({"min_days": 5, "max_days": 4}, "max_days"),
        ({"min_cases": 2, "max_cases": 1}, "max_cases"),
        ({"min_returned_share": 2, "max_returned_share": 1}, "max_returned_share"),
        ({"min_amount": {"CNY": 2}, "max_amount": {"CNY": 1}}, "no currency"),
        ({"min_amount": {"CNY": 2}, "max_amount": {"GBP": 9}}, "no currency"),
        ({"min_refunded": {"CNY": 2}, "max_refunded": {"CNY": 1}}, "max_refunded"),
        ({"kinds": [RETURN], "claims": [ClaimKind.LOST]}, "kinds has no claim"),
        ({"skus": ["a"], "excluded_skus": ["a", "b"]}, "excluded"),
    ],
)
def test_row_with_contradicting_conditions_is_refused(conditions: dict[str, Any], part: str) -> None:
    [(pointer, detail)] = refusals(rule(APPROVE, **conditions), REST)
    assert pointer == "/rules/0/conditions"
    assert "never matches" in detail
    assert part in detail


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"kinds": [RETURN, CLAIM]}, {"claims": [ClaimKind.WRONG]}),
        ({"max_amount": {"CNY": 500, "GBP": 10}}, {"max_amount": {"CNY": 500}, "is_first_order": True}),
        ({"excluded_skus": ["a"]}, {"skus": ["b", "c"]}),
        ({"skus": ["a", "b"]}, {"skus": ["a", "c"], "excluded_skus": ["c"]}),
        ({"max_days": 7}, {"min_days": 2, "max_days": 7}),
        ({"max_refunded": {"CNY": 9}}, {"max_refunded": {"CNY": 9, "GBP": 1}}),
        ({"carrier": ["lost", "returned"]}, {"carrier": ["lost"]}),
        ({"reasons": ["style"]}, {"reasons": ["style"]}),
    ],
)
def test_row_that_an_earlier_one_covers_is_refused(wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    [(pointer, detail)] = refusals(rule(APPROVE, **wide), rule(DECLINE, **narrow), REST)
    assert (pointer, "row 1 takes all" in detail) == ("/rules/1", True)
    if wide != narrow:
        check_rules([rule(DECLINE, **narrow), rule(APPROVE, **wide), REST], NAMES)


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"kinds": list(CaseKind)},
        {"reasons": list(REASONS)},
        {"min_cases": 0, "max_returned_share": 10_000},
        {"min_refunded": {"CNY": 0}},
        {"carrier": list(DeliveryReport)},
    ],
)
def test_row_in_the_middle_that_always_matches_is_refused(conditions: dict[str, Any]) -> None:
    [(pointer, detail)] = refusals(rule(APPROVE, **conditions), rule(DECLINE, kinds=[RETURN]), REST)
    assert pointer == "/rules/0"
    assert "matches every case" in detail


@pytest.mark.parametrize("last", [rule(BY_HAND, kinds=[RETURN]), rule(APPROVE), rule(DECLINE)])
def test_last_row_that_does_not_leave_the_rest_to_a_person_is_refused(last: CaseRule) -> None:
    [(pointer, detail)] = refusals(rule(APPROVE, kinds=[EXCHANGE]), last)
    assert (pointer, "leaves the rest to a person" in detail) == ("/rules/1", True)


def test_rule_set_is_bounded_and_strict() -> None:
    decode = msgspec.json.Decoder(RuleSetInput).decode
    row = '{"outcome": "by_hand", "reason": "x"}'
    assert len(decode(f'{{"reason": "x", "rules": [{", ".join([row] * MAX_RULES)}]}}').rules) == MAX_RULES
    for rules in (
        "",
        ", ".join([row] * (MAX_RULES + 1)),
        '{"outcome": "always", "reason": "x"}',
        '{"outcome": "by_hand", "reason": ""}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"kind": "return"}}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"kinds": []}}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"kinds": ["swap"]}}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"max_days": -1}}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"max_amount": {"CNY": -1}}}',
        '{"outcome": "by_hand", "reason": "x", "conditions": {"min_returned_share": 10001}}',
    ):
        with pytest.raises(msgspec.ValidationError):
            decode(f'{{"reason": "x", "rules": [{rules}]}}')


def test_many_rows_of_many_products_are_checked_at_once() -> None:
    rules = [
        CaseRule(outcome=RuleOutcome.APPROVE, reason="x", conditions=RuleConditions(skus=[f"s{n}", "a"], min_days=n))
        for n in range(MAX_RULES - 1)
    ]
    check_rules([*rules, REST], ExistingNames({"a", *(f"s{n}" for n in range(MAX_RULES))}, ()))
