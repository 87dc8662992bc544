"""What the fleet refuses."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, NotReady, ProblemError


class NoSuchRoute(NotFound):
    title = "There is no such route"


class NoSuchStop(NotFound):
    title = "There is no such stop"


class PlanningInProgress(Conflict):
    """Somebody plans routes at this moment, or a van left while they were planned."""


class StopAlreadyReported(Conflict):
    """The stop was reported in another way before."""


class SolverFailed(NotReady):
    """The process that plans ended without a plan, or was ended."""

    title = "No plan was made, nothing was changed"


class BadLink(ProblemError):
    """A driver's link that was not made here, or holds no more."""

    code = "unauthorized"
    status = 401
    title = "A valid token is needed"
