"""Rules over a shop with cases. Their jobs run only when the test works on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.aftersales.case_decisions import CaseDecisions
from commerce.case_rules.model import (
    CaseInputs,
    CaseRule,
    RuleActivation,
    RuleBudgetInput,
    RuleConditions,
    RuleDecision,
    RuleOutcome,
    RuleSetInput,
    RuleSwitch,
)
from commerce.case_rules.rule_jobs import RuleJobs
from commerce.case_rules.service import CaseRules
from commerce.kernel.jobs import RetryPolicy
from config.aftersales import AftersalesSettings
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.shipping_shop import ShippingShop

ZONE = ZoneInfo("Asia/Shanghai")
LEAD = "staff lea"
APPROVE, WITHOUT_RETURN, EVIDENCE, BY_HAND, DECLINE = RuleOutcome


def rule(outcome: RuleOutcome, reason: str = "as the rules say", **conditions: Any) -> CaseRule:
    return CaseRule(outcome=outcome, reason=reason, conditions=RuleConditions(**conditions))


REST = rule(BY_HAND, "a person decides")


@dataclass
class RuleShop:
    """Rules of a `CaseShop`."""

    cases: CaseShop
    rules: CaseRules
    jobs: RuleJobs

    async def use(self, *rules: CaseRule, budget: tuple[int, int] | None = (100_000, 1_000)) -> int:
        """Activate rules, with the row for the rest, and a budget in CNY. Returns their version."""
        rule_set = await self.rules.add_set(RuleSetInput(rules=[*rules, REST], reason="for a test"), LEAD)
        await self.rules.activate(RuleActivation(version=rule_set.version, reason="for a test"), LEAD)
        if budget is not None:
            await self.set_budget(*budget)
        return rule_set.version

    async def set_budget(self, amount: int, cases: int) -> None:
        await self.rules.put_budget("CNY", RuleBudgetInput(max_amount=amount, max_cases=cases, reason="test"), LEAD)

    async def switch(self, *, is_on: bool) -> None:
        await self.rules.switch(RuleSwitch(is_on=is_on, reason="for a test"), LEAD)

    async def request_many(self, orders: int, cases_of_each: int, **fields: Any) -> list[UUID]:
        """Request cases of one unit in each of several orders."""
        case_ids = list[UUID]()
        for _ in range(orders):
            order_id = await self.cases.add_delivered(("a", cases_of_each, 0))
            case_ids += [await self.cases.request(order_id, 1, **fields) for _ in range(cases_of_each)]
        return case_ids

    async def work(self) -> list[str]:
        """Do the due jobs. Returns the result words."""
        words = list[str]()
        for jobs in await self.jobs.queue.claim(100, {}):
            words += [result.word for result in await self.jobs.queue.work(jobs)]
        return words

    async def decisions(self, case_id: UUID) -> list[RuleDecision]:
        return (await self.rules.list_decisions(case_id)).items

    async def outcomes(self, case_ids: Sequence[UUID]) -> list[str]:
        return [decision.outcome.value for case_id in case_ids for decision in await self.decisions(case_id)]

    async def inputs(self, case_id: UUID) -> CaseInputs:
        return (await self.decisions(case_id))[0].inputs


def open_rule_shop(ship: ShippingShop, **settings: Any) -> RuleShop:
    """Open rules over a shop, with these settings of the section `aftersales`."""
    cases, shop = open_case_shop(ship, **settings), ship.shop
    decisions = CaseDecisions(shop.ids, AftersalesSettings(**settings))
    retry_policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=1, rows_per_claim=100)
    jobs = RuleJobs(shop.db, shop.clock, decisions, cases.requests, ZONE, retry_policy, 5)
    return RuleShop(cases, CaseRules(shop.db, shop.clock, ZONE), jobs)
