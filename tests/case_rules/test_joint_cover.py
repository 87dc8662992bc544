"""Rows of which several earlier ones together leave no case."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.case_rules.errors import BadRules
from commerce.case_rules.joint_cover import CoverSearch
from commerce.case_rules.match_regions import make_regions
from commerce.case_rules.model import MAX_RULES, CaseInputs, RuleConditions
from commerce.case_rules.rule_checks import ExistingNames, check_rules
from tests.case_rules.test_rule_checks import (
    CLAIM,
    EXCHANGE,
    NAMES,
    REFUND_ONLY,
    RETURN,
    draw_inputs,
    holds,
    refusals,
)
from tests.support.rule_shop import APPROVE, DECLINE, REST, rule

_KINDS = st.sampled_from([None, [RETURN], [EXCHANGE, CLAIM], [REFUND_ONLY, RETURN]])
_FEW = st.builds(
    RuleConditions,
    kinds=_KINDS,
    is_first_order=st.none() | st.booleans(),
    max_cases=st.none() | st.integers(0, 2),
    min_cases=st.none() | st.integers(0, 2),
    max_days=st.none() | st.integers(0, 2),
    max_amount=st.sampled_from([None, {"CNY": 3}, {"CNY": 5, "GBP": 2}]),
    skus=st.sampled_from([None, ["a"], ["a", "b"]]),
    carrier=st.sampled_from([None, ["lost"], ["lost", "returned"]]),
)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ([{"is_first_order": True}, {"is_first_order": False}], {"kinds": [RETURN]}),
        ([{"kinds": [RETURN]}, {"kinds": [EXCHANGE]}], {"kinds": [RETURN, EXCHANGE], "has_evidence": True}),
        ([{"max_cases": 3}, {"min_cases": 4}], {"min_cases": 2}),
        ([{"max_days": 7}, {"min_days": 8, "max_days": 20}], {"min_days": 3, "max_days": 9}),
        ([{"min_returned_share": 10}, {"max_returned_share": 9}], {"sales": ["s1"]}),
        ([{"max_amount": {"CNY": 9}}, {"min_amount": {"CNY": 10}}], {"max_amount": {"CNY": 20}}),
        ([{"max_amount": {"CNY": 9}}, {"max_amount": {"GBP": 9}}], {"max_amount": {"CNY": 5, "GBP": 5}}),
        ([{"max_refunded": {"CNY": 9}}, {"min_refunded": {"CNY": 10}}], {"skus": ["a"]}),
        ([{"sales": ["s1"]}, {"sales": ["s2"]}], {"sales": ["s1", "s2"]}),
        (
            [
                {"kinds": [RETURN], "is_first_order": True},
                {"max_cases": 0, "is_first_order": False},
                {"min_cases": 1, "is_first_order": False},
            ],
            {"kinds": [RETURN], "skus": ["a"]},
        ),
    ],
)
def test_row_that_earlier_ones_cover_together_is_refused(earlier: list[dict[str, Any]], later: dict[str, Any]) -> None:
    rows = [rule(DECLINE, kinds=[CLAIM], skus=["c"]), *(rule(APPROVE, **each) for each in earlier)]
    [(pointer, detail)] = refusals(*rows, rule(DECLINE, **later), REST)
    names = ", ".join(str(number) for number in range(2, len(rows)))
    assert pointer == f"/rules/{len(rows)}"
    assert f"rows {names} and {len(rows)} together take all of its cases" in detail
    for left_out in range(1, len(rows)):
        check_rules([*rows[:left_out], *rows[left_out + 1 :], rule(DECLINE, **later), REST], NAMES)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ([{"max_cases": 3}, {"min_cases": 5}], {"min_cases": 2}),
        ([{"max_days": 7}, {"min_days": 8}], {"kinds": [RETURN]}),  # nothing was delivered
        ([{"max_amount": {"CNY": 9}}, {"min_amount": {"CNY": 10}}], {"kinds": [RETURN]}),  # another currency
        ([{"skus": ["a"]}, {"skus": ["b"]}], {"skus": ["a", "b"]}),  # a case of both
        ([{"carrier": ["lost"]}, {"carrier": ["returned"]}], {"carrier": ["lost", "returned"]}),
        ([{"sales": ["s1"]}, {"sales": ["s2"]}], {"kinds": [RETURN]}),  # a sale that is opened later
        ([{"is_first_order": True, "has_evidence": True}, {"is_first_order": False}], {"kinds": [RETURN]}),
    ],
)
def test_row_with_a_case_left_is_accepted(earlier: list[dict[str, Any]], later: dict[str, Any]) -> None:
    check_rules([*(rule(APPROVE, **each) for each in earlier), rule(DECLINE, **later), REST], NAMES)


def test_last_row_is_accepted_though_earlier_ones_take_all_cases() -> None:
    check_rules([rule(APPROVE, is_first_order=True), rule(DECLINE, is_first_order=False), REST], NAMES)


@given(st.lists(_FEW, max_size=6), _FEW, draw_inputs())
def test_row_that_is_found_to_be_covered_never_holds_alone(
    earlier: list[RuleConditions], later: RuleConditions, case: CaseInputs
) -> None:
    regions = make_regions(later)
    if any(region.is_empty for region in regions.values()):
        return
    rows = CoverSearch().find([make_regions(each) for each in earlier], regions)
    if rows and holds(later, case):
        assert any(holds(earlier[row], case) for row in rows)


def test_search_among_many_rows_ends() -> None:
    # Each row leaves one combination of many out, so no row is covered and no choice can be dropped early.
    reasons = ["style", "too_big", "arrived_late"]
    rows = [
        rule(
            APPROVE,
            reasons=[reasons[number % 3]],
            min_cases=number % 7,
            max_cases=number % 7 + 20,
            max_refunded={"CNY": number % 11, "GBP": number % 13},
            min_returned_share=number % 17,
            is_first_order=number % 2 == 0,
            max_days=number,
        )
        for number in range(MAX_RULES - 1)
    ]
    try:
        check_rules([*rows, REST], ExistingNames((), ()))
    except BadRules as error:
        assert "take all of its cases" in error.detail  # noqa: PT017  # whether one is covered is not the point
    search = CoverSearch(max_steps=3)
    regions = [make_regions(each.conditions) for each in rows]
    assert [search.find(regions[:number], regions[number]) for number in range(50, 60)] == [[]] * 10
