"""Judges decisions about money by the person who makes them.

The person is known to everything that a request of support calls, as are shares of connections. What no such request
has called (workers, commands of operators, requests of customers) is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from commerce.kernel.money import format_money
from commerce.kernel.postgres import Connection
from commerce.rights.certificates_port import StaffCertificates
from commerce.rights.errors import RightNeeded
from commerce.rights.model import OPERATOR, CertifiedRight, RightsPolicy


class Decider:
    """A person of support who makes a request. `roles` has also the roles that these include."""

    def __init__(
        self, actor: str, roles: frozenset[str], policy: RightsPolicy, certificates: StaffCertificates
    ) -> None:
        self.actor = actor
        self._roles = roles
        self._policy = policy
        self._certificates = certificates

    def limit_of(self, currency: str) -> int | None:
        """Return the amount above which the person must be of a higher role or hold a certificate.

        None if no amount makes a difference."""
        return None if OPERATOR in self._roles else self._policy.decide_up_to.get(currency)

    async def check_amount(self, connection: Connection, amount_minor: int, currency: str) -> None:
        """Check the right to decide about an amount. Raises `RightNeeded`."""
        limit_minor = self.limit_of(currency)
        if limit_minor is None or amount_minor <= limit_minor:
            await self._require(connection, "support", "decisions about money")
            return
        amount, limit = format_money(amount_minor, currency), format_money(limit_minor, currency)
        await self._require(connection, "support_lead", f"a decision about {amount}, which is above {limit},")

    async def check_claim(self, connection: Connection) -> None:
        """Check the right to act on claims. Raises `RightNeeded`."""
        await self._require(connection, "claims", "acting on claims")

    async def _require(self, connection: Connection, right: CertifiedRight, subject: str) -> None:
        if OPERATOR in self._roles:
            return
        if right != "claims" and right not in self._roles:
            raise RightNeeded(f"{subject} needs the role {right!r}: ask somebody who has it", right=right)
        code = self._policy.certificates.get(right)
        if code is not None and not await self._certificates.has_certificate(connection, self.actor, code):
            detail = f"{subject} needs the certificate {code!r}, which you lack or which has expired: pass its quiz"
            raise RightNeeded(detail, right=right, certificate=code)


_current: ContextVar[Decider | None] = ContextVar("decider", default=None)


@contextmanager
def use_decider(decider: Decider) -> Iterator[None]:
    """Judge the decisions of this block by a person's rights."""
    token = _current.set(decider)
    try:
        yield
    finally:
        _current.reset(token)


def find_decider(actor: str | None = None) -> Decider | None:
    """Return the person whose request this is, with `actor` only if it is the person of that name."""
    decider = _current.get()
    return decider if decider is not None and actor in (None, decider.actor) else None
