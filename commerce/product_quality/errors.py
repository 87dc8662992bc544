"""Errors of the quality of products."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, Invalid, NotFound


class BelowPublishingGrade(Conflict):
    """The product has too low a grade to be published without a reason.

    `grade` and `points` are the present ones, `findings` says what to fix."""

    code = "below_publishing_grade"
    title = "The product's quality is too low to publish it without a reason"


class NotGraded(NotFound):
    title = "The product has no grade"


class QualityReportTooLarge(Invalid):
    title = "The report on quality has too many rows"
