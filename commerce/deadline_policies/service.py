"""Policies of deadlines, which staff set by team, kind and priority."""

from __future__ import annotations

from asyncpg import ForeignKeyViolationError, UniqueViolationError

from commerce.deadline_policies import store
from commerce.deadline_policies.errors import NoSuchDeadlinePolicy
from commerce.deadline_policies.model import DeadlinePolicy, DeadlineTerms
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

DEFAULT_POLICY = "default"
MAX_POLICIES = 200
_MISSING = {
    store.CALENDAR_CONSTRAINT: ("/calendar_id", "there is no such working calendar"),
    store.TEAM_CONSTRAINT: ("/team_id", "there is no such team"),
}


class DeadlinePolicies:
    """Policies over Postgres. A change counts for open conversations too: a worker computes them again."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_policies(self, cursor: str | None, count: int) -> Page[DeadlinePolicy]:
        """List policies by id."""
        async with self._db.connection() as connection:
            policies = await store.list_policies(connection, None, cursor or "", count + 1)
        return to_page(policies, count, lambda policy: policy.policy_id)

    async def get(self, policy_id: str) -> DeadlinePolicy:
        """Read a policy. Raises `NoSuchDeadlinePolicy`."""
        async with self._db.connection() as connection:
            policies = await store.list_policies(connection, policy_id, "", 1)
        if not policies:
            raise NoSuchDeadlinePolicy(f"there is no policy of deadlines {policy_id!r}")
        return policies[0]

    async def put(self, policy_id: str, terms: DeadlineTerms, actor: str) -> DeadlinePolicy:
        """Create a policy, or replace it whole.

        Raises `Invalid` if its calendar or a team does not exist, `Conflict` if another policy is for the same
        conversations, or there are too many."""
        named = [name for name in ("team_id", "kind", "priority") if getattr(terms, name) is not None]
        if policy_id == DEFAULT_POLICY and named:
            detail = "the policy 'default' is for all conversations: name another one for some of them"
            raise Invalid.at(f"/{named[0]}", detail)
        try:
            async with self._db.transaction() as connection:
                if await store.count_others(connection, policy_id) >= MAX_POLICIES:
                    raise Conflict(f"cannot add a policy: there are {MAX_POLICIES}; delete one")
                await store.put_policy(connection, policy_id, terms, from_ms(self._clock.now_ms()), actor)
        except ForeignKeyViolationError as error:
            pointer, detail = _MISSING.get(
                error.constraint_name or "", ("/escalation_team_id", "there is no such team")
            )
            raise Invalid.at(pointer, detail) from None
        except UniqueViolationError as error:
            if error.constraint_name != store.SELECTORS_CONSTRAINT:
                raise
            raise Conflict("another policy is for the same team, kind and priority; change that one") from None
        return await self.get(policy_id)

    async def delete(self, policy_id: str) -> None:
        """Delete a policy.

        Raises `NoSuchDeadlinePolicy`, `Conflict` for the one that counts where no other does."""
        if policy_id == DEFAULT_POLICY:
            raise Conflict("cannot delete the policy 'default': it counts where no other does; replace its terms")
        async with self._db.transaction() as connection:
            if not await store.delete_policy(connection, policy_id):
                raise NoSuchDeadlinePolicy(f"there is no policy of deadlines {policy_id!r}")
