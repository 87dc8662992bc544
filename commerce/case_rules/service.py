"""Rules for staff: versions, the one that decides, the switch, budgets, and what was decided."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from commerce.aftersales import store as cases
from commerce.aftersales.errors import NoSuchCase
from commerce.case_rules import store
from commerce.case_rules.dry_runs import DryRuns
from commerce.case_rules.errors import NoSuchRuleSet
from commerce.case_rules.model import (
    DryRun,
    DryRunInput,
    RuleActivation,
    RuleBudgetInput,
    RuleDecisions,
    RuleEvent,
    RuleSet,
    RuleSetInput,
    RuleSetSummary,
    RuleState,
    RuleSwitch,
)
from commerce.case_rules.rule_names import check_named_rules
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, minor_digits
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Connection, Database

_END = 2**31 - 1
_TRIED_DAYS = 30


class CaseRules:
    """Rules over Postgres. `zone` is the shop's time zone, in which the days of budgets are counted.

    A change waits for decisions that are under way; every later decision follows it."""

    def __init__(self, db: Database, clock: Clock, zone: ZoneInfo) -> None:
        self._db = db
        self._clock = clock
        self._zone = zone
        self._dry_runs = DryRuns(db, zone)

    async def get_state(self) -> RuleState:
        """Read the switch, the version that decides, and the budgets with what was used today."""
        async with self._db.connection() as connection:
            state = await store.get_state(connection)
            budgets = await store.list_budgets(connection, self._today())
        return RuleState(is_on=state.is_on, active_version=state.active_version, budgets=budgets)

    async def list_sets(self, cursor: int | None, count: int) -> Page[RuleSetSummary]:
        """List the versions, newest first."""
        async with self._db.connection() as connection:
            sets = await store.list_sets(connection, cursor or _END, count + 1)
        return to_page(sets, count, lambda rule_set: str(rule_set.version))

    async def get_set(self, version: int) -> RuleSet:
        """Read a version with its rules. Raises `NoSuchRuleSet`."""
        async with self._db.connection() as connection:
            return await _get_set(connection, version)

    async def list_events(self, cursor: int | None, count: int) -> Page[RuleEvent]:
        """List the changes of rules, switch and budgets, newest first."""
        async with self._db.connection() as connection:
            events = await store.list_events(connection, cursor or _END, count + 1)
        return to_page(events, count, lambda event: str(event.event_no))

    async def add_set(self, new: RuleSetInput, actor: str) -> RuleSet:
        """Store rules as the next version, which does not decide before it is activated. Raises `BadRules`."""
        async with self._change() as (connection, now):
            await check_named_rules(connection, new.rules)
            version = await store.insert_set(connection, new, now, actor)
            details = {"version": version, "rules": len(new.rules)}
            await store.insert_event(connection, now, "set_added", details, actor, new.reason)
            return await _get_set(connection, version)

    async def activate(self, activation: RuleActivation, actor: str) -> RuleState:
        """Have a version decide, or none. Raises `NoSuchRuleSet`, `BadRules` if it names what is no more."""
        async with self._change() as (connection, now):
            if activation.version is not None:
                await check_named_rules(connection, (await _get_set(connection, activation.version)).rules)
            state = await store.get_state(connection)
            if state.active_version != activation.version:
                await store.set_state(connection, state._replace(active_version=activation.version))
                kind = "deactivated" if activation.version is None else "activated"
                details = {"version": activation.version, "version_before": state.active_version}
                await store.insert_event(connection, now, kind, details, actor, activation.reason)
        return await self.get_state()

    async def switch(self, switch: RuleSwitch, actor: str) -> RuleState:
        """Stop all rules at once, or let them decide again. No decision follows the answer of a stop."""
        async with self._change() as (connection, now):
            state = await store.get_state(connection)
            if state.is_on is not switch.is_on:
                await store.set_state(connection, state._replace(is_on=switch.is_on))
                kind = "switched_on" if switch.is_on else "switched_off"
                await store.insert_event(connection, now, kind, {}, actor, switch.reason)
        return await self.get_state()

    async def put_budget(self, currency: str, budget: RuleBudgetInput, actor: str) -> RuleState:
        """Set what rules may approve in a day. It counts for the present day, too."""
        try:
            minor_digits(currency)
        except MoneyError as error:
            raise Invalid(f"cannot set the budget: {error}") from None
        async with self._change() as (connection, now):
            await store.put_budget(connection, currency, budget)
            details = {"currency": currency, "max_amount": budget.max_amount, "max_cases": budget.max_cases}
            await store.insert_event(connection, now, "budget_set", details, actor, budget.reason)
        return await self.get_state()

    async def list_decisions(self, case_id: UUID) -> RuleDecisions:
        """List what rules have decided on a case. Raises `NoSuchCase`."""
        async with self._db.connection() as connection:
            if await cases.find_order(connection, case_id) is None:
                raise NoSuchCase(f"there is no case {case_id}")
            return RuleDecisions(await store.list_decisions(connection, case_id))

    async def try_rules(self, trial: DryRunInput) -> DryRun:
        """Return what rules would have decided on past cases, as `DryRuns.run`."""
        to = trial.to or from_ms(self._clock.now_ms())
        return await self._dry_runs.run(trial.rules, trial.from_ or to - timedelta(days=_TRIED_DAYS), to)

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[tuple[Connection, datetime]]:
        async with self._db.transaction() as connection:
            await store.lock_for_change(connection)
            yield connection, from_ms(self._clock.now_ms())

    def _today(self) -> date:
        return from_ms(self._clock.now_ms()).astimezone(self._zone).date()


async def _get_set(connection: Connection, version: int) -> RuleSet:
    rule_set = await store.get_set(connection, version)
    if rule_set is None:
        raise NoSuchRuleSet(f"there is no version {version} of the rules")
    return rule_set
