"""Problems that the fleet answers with."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound, NotReady, ProblemError


class NoSuchRoute(NotFound):
    title = "There is no such route"


class NoSuchStop(NotFound):
    title = "There is no such stop"


class PlanningInProgress(Conflict):
    """Routes are being planned by another process, or a vehicle departed while they were planned."""


class StopAlreadyReported(Conflict):
    """The stop was reported with another outcome before."""


class SolverFailed(NotReady):
    """The solver process ended without a plan, or was killed."""

    title = "No plan was made, nothing was changed"


class BadLink(ProblemError):
    """The driver's link has an invalid signature, or has expired."""

    code = "unauthorized"
    status = 401
    title = "A valid token is needed"
