"""Tries rules on past cases, with what was known when each was requested. Reads only."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.case_rules import store
from commerce.case_rules.errors import TooManyPastCases
from commerce.case_rules.match_regions import CompiledRules
from commerce.case_rules.model import (
    BusiestDay,
    CaseRule,
    DryRun,
    DryRunDifference,
    DryRunOutcome,
    DryRunRow,
    PastOutcome,
    RuleOutcome,
)
from commerce.case_rules.rule_names import check_named_rules
from commerce.case_rules.store import PastCase
from commerce.kernel.clock import to_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import first_id
from commerce.kernel.postgres import Connection, Database

MAX_CASES = 100_000
SAMPLE_SIZE = 20
_PAGE_SIZE = 200
_FIRST = UUID(int=0)
_PAYOUTS = (RuleOutcome.APPROVE, RuleOutcome.REFUND_WITHOUT_RETURN)


@dataclass(slots=True)
class _Sum:
    """A number of cases, what they come to by currency, and the first of their ids."""

    cases: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    sample: list[UUID] = field(default_factory=list)

    def add(self, case: PastCase) -> None:
        self.cases += 1
        self.amounts[case.inputs.currency] += case.inputs.amount or 0
        if len(self.sample) < SAMPLE_SIZE:
            self.sample.append(case.case_id)

    def amounts_by_currency(self) -> Mapping[str, int]:
        return dict(sorted(self.amounts.items()))


class _Tally:
    """Adds up what rules say of past cases."""

    def __init__(self, rules: CompiledRules, zone: ZoneInfo) -> None:
        self._rules = rules
        self._zone = zone
        self.cases = 0
        self._rows = Counter[int]()
        self._outcomes: dict[RuleOutcome, _Sum] = defaultdict(_Sum)
        self._differences: dict[tuple[PastOutcome, bool, RuleOutcome], _Sum] = defaultdict(_Sum)
        self._days: dict[tuple[str, date], _Sum] = defaultdict(_Sum)

    def add(self, cases: Sequence[PastCase]) -> None:
        for case in cases:
            self._add(case)

    def _add(self, case: PastCase) -> None:
        rule_no = self._rules.find(case.inputs)
        outcome = self._rules.rules[rule_no - 1].outcome
        self.cases += 1
        self._rows[rule_no] += 1
        self._outcomes[outcome].add(case)
        if outcome in _PAYOUTS:
            self._days[case.inputs.currency, case.at.astimezone(self._zone).date()].add(case)
            if not case.inputs.items_back:
                outcome = RuleOutcome.REFUND_WITHOUT_RETURN
        # What is left to a person differs only from what a rule has decided.
        is_same = not case.was_by_rule if outcome is RuleOutcome.BY_HAND else case.was == outcome.value
        if not is_same:
            self._differences[case.was, case.was_by_rule, outcome].add(case)

    def report(self, without_inputs: int) -> DryRun:
        busiest = dict[str, tuple[int, date, int]]()
        for (currency, day), total in sorted(self._days.items()):
            amount = total.amounts[currency]
            if currency not in busiest or amount > busiest[currency][0]:
                busiest[currency] = amount, day, total.cases
        return DryRun(
            cases=self.cases,
            without_inputs=without_inputs,
            outcomes=[
                DryRunOutcome(outcome=outcome, cases=total.cases, amounts=dict(total.amounts_by_currency()))
                for outcome, total in sorted(self._outcomes.items())
            ],
            rows=[
                DryRunRow(rule_no=number, outcome=rule.outcome, cases=self._rows[number])
                for number, rule in enumerate(self._rules.rules, 1)
            ],
            differences=[
                DryRunDifference(
                    was=was,
                    was_by_rule=was_by_rule,
                    would_be=outcome,
                    cases=total.cases,
                    amounts=dict(total.amounts_by_currency()),
                    sample=total.sample,
                )
                for (was, was_by_rule, outcome), total in sorted(self._differences.items())
            ],
            busiest_days=[
                BusiestDay(currency=currency, day=day, amount=amount, cases=cases)
                for currency, (amount, day, cases) in busiest.items()
            ],
        )


class DryRuns:
    """Dry runs over Postgres, each in one read-only transaction, so that all it reads is of one moment."""

    def __init__(self, db: Database, zone: ZoneInfo) -> None:
        self._db = db
        self._zone = zone

    async def run(self, rules: Sequence[CaseRule], since: datetime, until: datetime) -> DryRun:
        """Return what rules would have decided on the requests from `since` until before `until`.

        Two runs over the same cases return the same. Raises `BadRules`, and `TooManyPastCases` for more than
        `MAX_CASES`."""
        if since >= until:
            raise Invalid.at("/to", "it is not after `from`")
        async with self._db.snapshot() as connection:
            await check_named_rules(connection, rules)
            past_cases = await store.count_past(connection, first_id(to_ms(since)), first_id(to_ms(until)))
            if past_cases > MAX_CASES:
                raise TooManyPastCases(f"{past_cases} cases are more than {MAX_CASES}: choose a shorter time")
            tally = _Tally(CompiledRules(rules), self._zone)
            await self._add_cases(connection, since, until, tally)
            return tally.report(max(0, past_cases - tally.cases))

    async def _add_cases(self, connection: Connection, since: datetime, until: datetime, tally: _Tally) -> None:
        after = (since, _FIRST)
        while cases := await store.list_past(connection, until, after, _PAGE_SIZE):
            # Up to 200 rows are tried on each: requests are answered meanwhile.
            await asyncio.to_thread(tally.add, cases)
            after = (cases[-1].at, cases[-1].case_id)
