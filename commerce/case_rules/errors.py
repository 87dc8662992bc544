"""Problems of rules that decide cases, each with what to do."""

from __future__ import annotations

from commerce.kernel.errors import Invalid, NotFound


class NoSuchRuleSet(NotFound):
    title = "There is no such version of the rules"


class BadRules(Invalid):
    code = "bad_rules"
    title = "These rules cannot decide cases"


class TooManyPastCases(Invalid):
    code = "too_many_cases_to_try"
    title = "The time has more cases than a dry run reads"
