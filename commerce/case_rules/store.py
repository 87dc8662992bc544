"""Rows of rules, budgets, inputs and decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from commerce.case_rules.model import (
    CaseInputs,
    CaseRule,
    PastOutcome,
    RuleBudget,
    RuleBudgetInput,
    RuleDecision,
    RuleEvent,
    RuleOutcome,
    RuleSet,
    RuleSetInput,
    RuleSetSummary,
)
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries

_DECISION_COLUMNS = ["amount_minor" if field == "amount" else field for field in RuleDecision.__struct_fields__]
queries = load_queries(__package__, case_rule_events=RuleEvent.__struct_fields__, case_decisions=_DECISION_COLUMNS)
_decode_rules = msgspec.json.Decoder(list[CaseRule]).decode
_decode_inputs = msgspec.json.Decoder(CaseInputs).decode


class SwitchState(NamedTuple):
    """The switch, and the version that decides."""

    is_on: bool
    active_version: int | None


class CustomerHistory(NamedTuple):
    """Other cases of a customer in a time; `refunded` is by currency in minor units."""

    cases: int
    refunded: Mapping[str, int]
    units_in_cases: int
    units_ordered: int
    is_first_order: bool


class CaseDelivery(NamedTuple):
    """A shipment with units of a case."""

    shipment_id: UUID
    status: str
    ended_at: datetime | None
    is_proven: bool


class PastCase(NamedTuple):
    """A past case with its inputs, and what became of it."""

    case_id: UUID
    at: datetime
    inputs: CaseInputs
    was_by_rule: bool
    was: PastOutcome


async def lock_for_decision(connection: Connection) -> None:
    """Keep changes of the rules waiting until the transaction ends, and wait for one that is under way."""
    await connection.execute(queries.lock_for_decision)


async def lock_for_change(connection: Connection) -> None:
    """Wait for the decisions that are under way, and keep others waiting until the transaction ends."""
    await connection.execute(queries.lock_for_change)


async def get_state(connection: Connection) -> SwitchState:
    row = await connection.fetchrow(queries.get_state)
    assert row is not None
    return SwitchState(row["is_on"], row["active_version"])


async def set_state(connection: Connection, state: SwitchState) -> None:
    await connection.execute(queries.set_state, *state)


async def insert_event(
    connection: Connection, now: datetime, kind: str, details: Mapping[str, Any], actor: str, reason: str
) -> None:
    await connection.execute(queries.insert_event, now, kind, msgspec.json.encode(details).decode(), actor, reason)


async def list_events(connection: Connection, before: int, count: int) -> list[RuleEvent]:
    """List changes with numbers below `before`, newest first."""
    return [
        RuleEvent(**{**row, "details": msgspec.json.decode(row["details"])})
        for row in await connection.fetch(queries.list_events, before, count)
    ]


async def insert_set(connection: Connection, new: RuleSetInput, now: datetime, actor: str) -> int:
    """Insert the next version of the rules. Call inside a transaction that holds the lock for a change."""
    rules = msgspec.json.encode(new.rules).decode()
    version: int = await connection.fetchval(queries.insert_set, rules, now, actor, new.reason)
    return version


async def get_set(connection: Connection, version: int) -> RuleSet | None:
    row = await connection.fetchrow(queries.get_set, version)
    return RuleSet(**{**row, "rules": _decode_rules(row["rules"])}) if row else None


async def list_sets(connection: Connection, before: int, count: int) -> list[RuleSetSummary]:
    """List versions below `before`, newest first."""
    return [RuleSetSummary(**row) for row in await connection.fetch(queries.list_sets, before, count)]


async def list_known_skus(connection: Connection, skus: Sequence[str]) -> set[str]:
    """Return those of the SKUs that are products."""
    return {row["sku"] for row in await connection.fetch(queries.list_known_skus, skus)} if skus else set()


async def list_known_sales(connection: Connection, sale_ids: Sequence[str]) -> set[str]:
    """Return those of the sales that exist."""
    return {row["sale_id"] for row in await connection.fetch(queries.list_known_sales, sale_ids)} if sale_ids else set()


async def put_budget(connection: Connection, currency: str, budget: RuleBudgetInput) -> None:
    await connection.execute(queries.put_budget, currency, budget.max_amount, budget.max_cases)


async def list_budgets(connection: Connection, day: date) -> list[RuleBudget]:
    """List the budgets with what was used on a day."""
    return [
        RuleBudget(
            currency=row["currency"],
            max_amount=row["max_amount_minor"],
            max_cases=row["max_cases"],
            day=row["day"],
            amount=row["amount_minor"],
            cases=row["cases"],
            refused_cases=row["refused_cases"],
        )
        for row in await connection.fetch(queries.list_budgets, day)
    ]


async def spend(connection: Connection, currency: str, day: date, amount_minor: int) -> bool:
    """Count a payout on a day if the budget has room for it. Returns whether it has."""
    return await connection.fetchval(queries.spend, currency, day, amount_minor) is not None


async def count_refusal(connection: Connection, currency: str, day: date) -> None:
    """Count a case that is left to a person because of the budget."""
    await connection.execute(queries.count_refusal, currency, day)


async def read_history(
    connection: Connection, user_id: str, case_id: UUID, since: datetime, until: datetime, order_id: UUID
) -> CustomerHistory:
    """Read a customer's other cases and orders between two moments, and whether an order is the first one."""
    row = await connection.fetchrow(queries.read_history, user_id, case_id, since, until, order_id)
    assert row is not None
    refunded = msgspec.json.decode(row["refunded"], type=dict[str, int])
    return CustomerHistory(**{**row, "refunded": refunded})


async def list_deliveries(connection: Connection, case_id: UUID, order_id: UUID) -> list[CaseDelivery]:
    """List the shipments with units of a case."""
    return [CaseDelivery(*row) for row in await connection.fetch(queries.list_deliveries, case_id, order_id)]


async def insert_inputs(connection: Connection, case_id: UUID, inputs: CaseInputs) -> None:
    """Store what rules are given about a request; the first inputs of a case stay."""
    await connection.execute(queries.insert_inputs, case_id, inputs.at, msgspec.json.encode(inputs).decode())


async def insert_decision(connection: Connection, decision: RuleDecision) -> None:
    await connection.execute(
        queries.insert_decision,
        *(decision.case_id, decision.decision_no, decision.at, decision.rule_set_version, decision.rule_no),
        *(decision.outcome, msgspec.json.encode(decision.inputs).decode(), decision.reasons),
        *(decision.case_version, decision.amount),
    )


async def list_decisions(connection: Connection, case_id: UUID) -> list[RuleDecision]:
    """List the decisions of rules on a case, oldest first."""
    decisions = list[RuleDecision]()
    for row in await connection.fetch(queries.list_decisions, case_id):
        values = {"amount" if name == "amount_minor" else name: value for name, value in row.items()}
        values["outcome"], values["inputs"] = RuleOutcome(values["outcome"]), _decode_inputs(values["inputs"])
        decisions.append(RuleDecision(**values))
    return decisions


async def list_past(
    connection: Connection, until: datetime, after: tuple[datetime, UUID], count: int
) -> list[PastCase]:
    """List cases with inputs by (at, case_id), requested before `until`."""
    return [
        PastCase(row["case_id"], row["at"], _decode_inputs(row["inputs"]), row["was_by_rule"], row["was"])
        for row in await connection.fetch(queries.list_past, until, *after, count)
    ]


async def count_past(connection: Connection, first: UUID, end: UUID) -> int:
    """Count the cases with ids from `first` until before `end`."""
    return int(await connection.fetchval(queries.count_past, first, end))
