"""Errors of screening, for customers and staff."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from commerce.kernel.errors import Conflict, NotFound, ProblemError


class NotScreened(NotFound):
    title = "The customer was not seen in this sale"


class NotCleared(Conflict):
    code = "not_cleared"
    title = "The customer is not cleared"


class RefusedByScreening(ProblemError):
    """The customer may neither join nor order; staff can clear him."""

    code = "refused_by_screening"
    status = 403
    title = "The shop takes no order from this account in this sale"


class JoinDelayed(ProblemError):
    """The customer may join from `until` on."""

    code = "join_delayed"
    status = 403
    title = "This account may join the waiting room later"

    def __init__(self, detail: str, until: datetime, retry_after_s: int) -> None:
        super().__init__(detail, until=until.strftime("%Y-%m-%dT%H:%M:%SZ"))
        self.headers = (("Retry-After", str(retry_after_s)),)


class ProofRequired(ProblemError):
    """Joining takes a proof of work; `challenge` is in the form of ALTCHA."""

    code = "proof_required"
    status = 403
    title = "Joining takes a proof of work"

    def __init__(self, detail: str, challenge: dict[str, Any]) -> None:
        super().__init__(detail, challenge=challenge)


class ProofInvalid(ProofRequired):
    """The proof that was sent does not count; `challenge` is a new one."""

    code = "proof_invalid"
    title = "The proof of work is not valid here"
