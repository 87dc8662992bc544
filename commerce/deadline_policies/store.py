"""Rows of policies of deadlines."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from commerce.deadline_policies.model import DeadlinePolicy, DeadlineTerms
from commerce.kernel.postgres import Connection
from commerce.kernel.sql import load_queries
from commerce.working_time.store import compile_calendar
from commerce.working_time.working_calendar import WorkingCalendar

_TERM_COLUMNS = DeadlineTerms.__struct_fields__
queries = load_queries(__package__, deadline_policies=["policy_id", "version", *_TERM_COLUMNS, "changed_at", "actor"])
SELECTORS_CONSTRAINT = "deadline_policies_selectors"
CALENDAR_CONSTRAINT = "deadline_policies_calendar_id_fkey"
TEAM_CONSTRAINT = "deadline_policies_team_id_fkey"


class PolicyInForce(NamedTuple):
    """A policy with its calendar, as of a generation."""

    generation: int
    policy_id: str
    terms: DeadlineTerms
    calendar: WorkingCalendar


async def list_policies(connection: Connection, policy_id: str | None, after: str, count: int) -> list[DeadlinePolicy]:
    """List policies by id, or the one with an id."""
    return [_policy(row) for row in await connection.fetch(queries.list_policies, policy_id, after, count)]


async def find_policy(connection: Connection, team_id: str | None, kind: str, priority: int) -> PolicyInForce:
    """Return the most specific policy for a conversation. The one called `default` is for all."""
    return _in_force(await connection.fetchrow(queries.find_policy, team_id, kind, priority))


async def list_in_force(connection: Connection) -> list[PolicyInForce]:
    """List all policies with their calendars."""
    return [_in_force(row) for row in await connection.fetch(queries.list_with_calendars)]


async def read_generation(connection: Connection) -> int:
    """Return how often policies and calendars were changed."""
    generation: int = await connection.fetchval(queries.read_generation)
    return generation


async def put_policy(connection: Connection, policy_id: str, terms: DeadlineTerms, now: datetime, actor: str) -> None:
    """Create a policy, or replace it whole.

    Raises `UniqueViolationError` if another one is for the same conversations, `ForeignKeyViolationError` without its
    calendar or a team."""
    values = [getattr(terms, column) for column in _TERM_COLUMNS]
    await connection.execute(queries.put_policy, policy_id, *values, now, actor)


async def count_others(connection: Connection, policy_id: str) -> int:
    """Count the policies with another id."""
    count: int = await connection.fetchval(queries.count_policies, policy_id)
    return count


async def delete_policy(connection: Connection, policy_id: str) -> bool:
    """Delete a policy. False if there is none."""
    return await connection.fetchval(queries.delete_policy, policy_id) is not None


def _in_force(row: Any) -> PolicyInForce:
    return PolicyInForce(row["generation"], row["policy_id"], _terms(row), compile_calendar(row["calendar_terms"]))


def _policy(row: Any) -> DeadlinePolicy:
    values = {name: row[name] for name in ("policy_id", "version", "changed_at", "actor")}
    return DeadlinePolicy(**values, terms=_terms(row))


def _terms(row: Any) -> DeadlineTerms:
    return DeadlineTerms(**{column: row[column] for column in _TERM_COLUMNS})
