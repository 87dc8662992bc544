"""Return policies, which staff set by sale and products."""

from __future__ import annotations

from asyncpg import ForeignKeyViolationError

from commerce.aftersales import store
from commerce.aftersales.errors import NoSuchPolicy
from commerce.aftersales.model import PolicyTerms, ReturnPolicy
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Conflict, Invalid
from commerce.kernel.paging import Page, to_page
from commerce.kernel.postgres import Database

DEFAULT_POLICY = "default"
"""counts where no other does, so it cannot be deleted or limited"""


class ReturnPolicies:
    """Policies over Postgres. A change counts for later requests; open cases keep their terms."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list_policies(self, cursor: str | None, count: int) -> Page[ReturnPolicy]:
        """List policies by id."""
        async with self._db.connection() as connection:
            policies = await store.list_policies(connection, None, cursor or "", count + 1)
        return to_page(policies, count, lambda policy: policy.policy_id)

    async def get(self, policy_id: str) -> ReturnPolicy:
        """Read a policy. Raises `NoSuchPolicy`."""
        async with self._db.connection() as connection:
            policies = await store.list_policies(connection, policy_id, "", 1)
        if not policies:
            raise NoSuchPolicy(f"there is no return policy {policy_id!r}")
        return policies[0]

    async def put(self, policy_id: str, terms: PolicyTerms, actor: str) -> ReturnPolicy:
        """Create a policy, or replace it whole. Raises `Invalid` if its sale or a product does not exist."""
        if policy_id == DEFAULT_POLICY and (terms.sale_id is not None or terms.skus):
            raise Invalid("the policy 'default' is for all sales and products: name another one for some of them")
        try:
            async with self._db.transaction() as connection:
                await store.put_policy(connection, policy_id, terms, from_ms(self._clock.now_ms()), actor)
        except ForeignKeyViolationError as error:
            pointer = "/skus" if error.constraint_name == store.POLICY_SKU_CONSTRAINT else "/sale_id"
            detail = "there is no such product" if pointer == "/skus" else "there is no such sale"
            raise Invalid.at(pointer, detail) from None
        return await self.get(policy_id)

    async def delete(self, policy_id: str) -> None:
        """Delete a policy. Raises `NoSuchPolicy`, `Conflict` for the one that counts where no other does."""
        if policy_id == DEFAULT_POLICY:
            raise Conflict("cannot delete the policy 'default': it counts where no other does; replace its terms")
        async with self._db.transaction() as connection:
            if not await store.delete_policy(connection, policy_id):
                raise NoSuchPolicy(f"there is no return policy {policy_id!r}")
