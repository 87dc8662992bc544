"""Problems of cases, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchCase(NotFound):
    title = "There is no such case, or it is not yours"


class NoSuchPolicy(NotFound):
    title = "There is no such return policy"


class NoSuchEvidence(NotFound):
    title = "There is no such picture, or it is not yours"


class CaseVersionConflict(Conflict):
    """Somebody changed the case since it was read. `version` is the present one."""

    code = "version_conflict"
    title = "The case has changed since you read it"


class CaseStatusConflict(Conflict):
    """The case's status does not allow the change."""

    code = "case_status"
    title = "The case's status does not allow this"


class NotReturnable(Conflict):
    """The request cannot become a case. `obstacles` lists the reasons."""

    code = "not_returnable"
    title = "These units cannot be returned like this"


class TooManyCases(Conflict):
    code = "too_many_cases"
    title = "The order has as many open cases as it can have"


class StillUnderWay(Conflict):
    code = "still_under_way"
    title = "A shipment still has the units"


class TooManyPictures(Conflict):
    code = "too_many_pictures"
    title = "The order has as many unused pictures as it can have"
