"""Support at full load: agents and rules work off cases; a second calculation checks deadlines."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import pytest

from commerce.audit.order_checks import OrderFindings, check_orders
from commerce.case_rules.model import CaseRule, DryRunInput
from commerce.conversations.conversation_jobs import ConversationJobs
from commerce.conversations.deadline_keeper import DeadlineKeeper
from commerce.deadline_policies.model import DeadlineTerms
from commerce.deadline_policies.service import DeadlinePolicies
from commerce.kernel.clock import from_ms
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.money import Money
from commerce.working_time.model import CalendarTerms, WeekHours
from commerce.working_time.service import WorkingCalendars
from config.conversations import ConversationSettings
from config.settings import Settings
from ops.services import CliServices
from tests.drills.support_clocks import ExpectedRun, Terms, expect, is_working
from tests.drills.support_robots import CASES_PER_ORDER, DrillClock, SupportRobots
from tests.support.case_shop import CLAIM, REFUND_ONLY, RETURN
from tests.support.conversation_shop import open_conversation_shop
from tests.support.rule_shop import APPROVE, DECLINE, EVIDENCE, LEAD, REST, WITHOUT_RETURN, open_rule_shop, rule
from tests.support.shipping_shop import PRICE, open_shipping_shop

CASES = int(os.environ.get("FLOODGATE_DRILL_CASES", "300"))
pytestmark = [pytest.mark.drill, pytest.mark.timeout(420 + CASES // 5)]
_AGENTS = [f"agent-{number}" for number in range(20)]
_START = datetime(2026, 9, 18, 1, tzinfo=UTC)
"""a Friday at nine in the shop's zone, before a Sunday that is worked and two holidays"""
_SPAN = timedelta(days=22)
_ROUNDS = 80
_MAX_CASES_PER_ROUND = 12
_RULES = (
    rule(WITHOUT_RETURN, "keep it", kinds=[REFUND_ONLY], max_amount={"CNY": 150}, max_cases=1),
    rule(APPROVE, "send it back", kinds=[RETURN], reasons=["changed_my_mind"], max_cases=2),
    rule(EVIDENCE, "show what is broken", kinds=[CLAIM], max_cases=1),
    rule(DECLINE, "it was worn", kinds=[RETURN], min_cases=4),
)
_OTHER_RULES = (rule(APPROVE, "all of them", kinds=[RETURN, CLAIM]),)
_MIN_CASES = 200
_ACTIONS = {
    *("answered", "thanked", "reopened case", "cancelled case", "taken", "noted", "asked customer", "declined"),
    *("approved", "resolved case", "changed", "released", "merged", "split", "replied", "carrier answered", "received"),
    *(
        f"case_rules: {outcome}"
        for outcome in ("approve", "refund_without_return", "ask_for_evidence", "by_hand", "decline")
    ),
}
"""actions that occur in a run of `_MIN_CASES`"""
_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
_DIGEST = "SELECT count(*), sum(hashtextextended(entry::text, 0)) FROM {} AS entry"
_WITHOUT_OWNER = """
SELECT case_id, cases.status, waits_for FROM cases LEFT JOIN conversations USING (case_id)
WHERE conversation_id IS NULL OR (cases.ended_at IS NULL AND (waits_for = 'nobody' OR cases.due_at IS NULL))
"""


class _Drill:
    """The robots with the terms by which deadlines are expected."""

    def __init__(self, robots: SupportRobots, policies: DeadlinePolicies, orders: list[tuple[UUID, str]]) -> None:
        self.robots = robots
        self.policies = policies
        self.orders = orders
        self.terms = [Terms(_START - timedelta(days=1), 2, 16, 24)]
        self.claim_terms = [Terms(_START - timedelta(days=1), 1, 8, 8, is_long=True)]

    async def run(self) -> None:
        """Open cases in rounds, change the policy half-way, then let everybody finish."""
        robots, rng = self.robots, self.robots.rng
        wanted = [order for order in self.orders for _ in range(CASES_PER_ORDER)][:CASES]
        rng.shuffle(wanted)
        per_round = min(_MAX_CASES_PER_ROUND, max(1, CASES // _ROUNDS))
        rounds = -(-CASES // per_round)
        for number in range(rounds):
            if number == rounds // 2:
                await self._change_policy()
            now, wanted = wanted[:per_round], wanted[per_round:]
            await asyncio.gather(
                *(robots.request_case(*order) for order in now),
                *(robots.open_question(user) for _, user in now[: 1 + per_round // 3]),
                robots.answer_some(2 + per_round // 2),
                *(robots.work_as(agent) for agent in _AGENTS),
            )
            await robots.receive_some(1 + per_round // 3)
            await robots.resume_waiting()
            await robots.run_workers()
            robots.clock.turn(_SPAN / rounds * rng.expovariate(1))
        await self._finish()

    async def _finish(self) -> None:
        robots = self.robots
        for _ in range(50 + CASES):
            robots.clock.turn(timedelta(minutes=robots.rng.randint(5, 90)))
            busy = await asyncio.gather(*(robots.work_as(agent) for agent in _AGENTS))
            await robots.run_workers()
            if not any(busy):
                break
        else:
            raise AssertionError(f"agents are never done: {robots.done}")

    async def _change_policy(self) -> None:
        terms = Terms(from_ms(self.robots.clock.now_ms()), 3, 12, 20)
        self.terms.append(terms)
        await self.policies.put("default", _policy(terms), LEAD)


def _policy(terms: Terms, **fields: Any) -> DeadlineTerms:
    return DeadlineTerms(
        first_response_s=terms.first_response * 3600,
        decision_s=terms.decision * 3600,
        money_s=terms.money * 3600,
        escalation_priority=1,
        **fields,
    )


@pytest.fixture
async def drill(shop: CliServices, settings: Settings, tmp_path: Path, rng: Random) -> AsyncIterator[_Drill]:
    """Delivered orders, rules, two calendars and two policies."""
    clock = DrillClock(_START)
    shop = dataclasses.replace(shop, clock=clock, ids=IdGenerator(clock))
    async with open_shipping_shop(shop, settings, lease_s=60) as ship:
        rules = open_rule_shop(ship)
        orders = []
        for number in range(-(-CASES // CASES_PER_ORDER)):
            user = f"user-{number}"
            await shop.payments.grant_store_credit(user, Money(CASES_PER_ORDER * PRICE, "CNY"), f"welcome-{number}")
            orders.append((await rules.cases.add_delivered(("a", CASES_PER_ORDER, 0), user=user), user))
        # The orders were paid with it.
        await ship.fetch_rows("UPDATE credit_accounts SET balance_minor = 0 RETURNING 1")
        await ship.fetch_rows("UPDATE return_policies SET max_cases_per_sku = 100 RETURNING 1")
        await rules.use(*_RULES, budget=(CASES * 4, CASES))  # of the shop's day
        week = {day: ["08:00-22:00"] for day in WeekHours.__struct_fields__ if day != "make_up_day"}
        await WorkingCalendars(shop.db, clock).put("long", CalendarTerms(hours=WeekHours(**week)), LEAD)
        policies = DeadlinePolicies(shop.db, clock)
        retry_policy = RetryPolicy(initial_ms=1, max_s=0.001, lease_s=60, rows_per_claim=100)
        robots = SupportRobots(
            open_conversation_shop(shop, tmp_path),
            rules,
            DeadlineKeeper(shop.db, clock),
            ConversationJobs(shop.db, clock, ConversationSettings(), retry_policy, 5),
            *(clock, rng),
        )
        drill = _Drill(robots, policies, orders)
        await policies.put("claims", _policy(drill.claim_terms[0], kind="claim", calendar_id="long"), LEAD)
        yield drill
        await ship.check_records()


async def test_cases_are_worked_off_once_and_in_time_as_calculated(drill: _Drill) -> None:
    robots = drill.robots
    await drill.run()
    assert robots.done["requested"] == CASES
    assert CASES < _MIN_CASES or set() == _ACTIONS - robots.done.keys(), robots.done
    await _check_holders(robots)
    await _check_deadlines(drill)
    await _check_records(drill)
    await _check_dry_run(robots)


async def _check_holders(robots: SupportRobots) -> None:
    """Check by the stored events that nobody was given what somebody else had."""
    rows = await robots.talks.fetch_rows(
        "SELECT conversation_id, actor, details->>'assignee' AS assignee FROM conversation_events "
        "WHERE kind = 'assigned' ORDER BY conversation_id, version"
    )
    holders: dict[UUID, str | None] = {}
    for row in rows:
        assert row["assignee"] is None or holders.get(row["conversation_id"]) is None, dict(row)
        holders[row["conversation_id"]] = row["assignee"]
    assert {id_: holder for id_, holder in holders.items() if holder} == robots.holders


async def _check_deadlines(drill: _Drill) -> None:
    """Compare the runs of all clocks, the next deadlines, and what was escalated."""
    fetch = drill.robots.talks.fetch_rows
    events, runs = defaultdict[UUID, list[Mapping[str, Any]]](list), defaultdict[UUID, set[ExpectedRun]](set)
    for row in await fetch("SELECT * FROM conversation_events ORDER BY conversation_id, version"):
        events[row["conversation_id"]].append({**row, "details": msgspec.json.decode(row["details"])})
    for row in await fetch(f"SELECT conversation_id, {', '.join(ExpectedRun._fields)} FROM conversation_clocks"):
        runs[row["conversation_id"]].add(ExpectedRun(**{name: row[name] for name in ExpectedRun._fields}))
    now = from_ms(drill.robots.clock.now_ms())
    for row in await fetch("SELECT conversation_id, kind, due_at, due_kind, escalated_on FROM conversations"):
        conversation_id = row["conversation_id"]
        terms = drill.claim_terms if row["kind"] == "claim" else drill.terms
        expected = expect(events[conversation_id], terms)
        context = row["kind"], events[conversation_id]
        assert runs[conversation_id] == set(expected.runs), context
        assert (row["due_at"], row["due_kind"]) == expected.due, context
        _check_escalations(events[conversation_id], terms[0].is_long)
        assert row["due_at"] is None or row["due_at"] > now or row["escalated_on"] is not None, context


def _check_escalations(events: list[Mapping[str, Any]], is_long: bool) -> None:
    """Check that escalations were in working hours, and once between two reopenings."""
    is_escalated = False
    for event in events:
        if event["details"].get("from") in ("resolved", "closed"):
            is_escalated = False
        if event["kind"] == "escalated":
            assert not is_escalated, events
            assert is_working(event["at"], is_long=is_long), events
            is_escalated = True


async def _check_records(drill: _Drill) -> None:
    """Check that every case has ended or waits for somebody, and that the audit finds nothing."""
    robots = drill.robots
    await robots.talks.check_records()
    await robots.rules.cases.check_records()
    assert [tuple(row) for row in await robots.talks.fetch_rows(_WITHOUT_OWNER)] == []
    waiting = await robots.talks.fetch_rows("SELECT 1 FROM conversations WHERE status IN ('new', 'open')")
    assert waiting == []
    findings = OrderFindings()
    async with robots.talks.shop.db.snapshot() as connection:
        await check_orders(connection, [order_id for order_id, _ in drill.orders], findings)
    assert findings.list_findings() == []


async def _check_dry_run(robots: SupportRobots) -> None:
    """Check that rules tried twice on all cases say the same and change no row."""
    rows: list[CaseRule] = [*_OTHER_RULES, REST]
    wanted = DryRunInput(rules=rows, from_=_START - timedelta(days=1), to=from_ms(robots.clock.now_ms()))
    before = await _digest_tables(robots)
    report = await robots.rules.rules.try_rules(wanted)
    assert await robots.rules.rules.try_rules(wanted) == report
    assert await _digest_tables(robots) == before
    assert report.cases + report.without_inputs == CASES
    assert report.differences


async def _digest_tables(robots: SupportRobots) -> dict[str, tuple[Any, ...]]:
    tables = [row["table_name"] for row in await robots.talks.fetch_rows(_TABLES)]
    return {table: tuple((await robots.talks.fetch_rows(_DIGEST.format(table)))[0]) for table in tables}
