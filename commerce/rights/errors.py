"""Refusals of decisions that are above somebody's right."""

from __future__ import annotations

from commerce.kernel.errors import ProblemError


class RightNeeded(ProblemError):
    """Nothing was changed. `right` is what the decision needs."""

    code = "right_needed"
    status = 403
    title = "The decision is above your right"
