"""Staff operations on the rules that decide cases."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from commerce.case_rules.model import (
    DryRun,
    DryRunInput,
    RuleActivation,
    RuleBudgetInput,
    RuleDecisions,
    RuleEvent,
    RuleSet,
    RuleSetInput,
    RuleSetSummary,
    RuleState,
    RuleSwitch,
)
from commerce.case_rules.service import CaseRules
from commerce.kernel.money import Currency
from commerce.kernel.paging import Page
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.endpoints.returns import CASE
from gateway.operations import Call, Handler, Operation, Parameter, json_response

_Number = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_VERSION = Parameter(name="version", location="path", type=_Number, description="the version of the rules")
_CURRENCY = Parameter(name="currency", location="path", type=Currency, description="ISO 4217 code")


def _rules(call: Call) -> CaseRules:
    services = call.services
    return CaseRules(services.db, services.clock, ZoneInfo(services.settings.shipping.timezone))


async def show_case_rules(call: Call) -> web.Response:
    """Read the switch, the version that decides, and the budgets with what was used today."""
    return json_response(await _rules(call).get_state())


async def list_case_rule_sets(call: Call) -> web.Response:
    """List the versions of the rules, newest first."""
    return json_response(await _rules(call).list_sets(call.parameters["cursor"], page_size(call)))


async def show_case_rule_set(call: Call) -> web.Response:
    """Read a version of the rules."""
    return json_response(await _rules(call).get_set(call.parameters["version"]))


async def list_case_rule_events(call: Call) -> web.Response:
    """List changes of rules, switch and budgets, newest first: who, when, why."""
    return json_response(await _rules(call).list_events(call.parameters["cursor"], page_size(call)))


async def list_case_decisions(call: Call) -> web.Response:
    """List what rules have decided on a case, from what, and what a person has overturned."""
    return json_response(await _rules(call).list_decisions(call.parameters["case_id"]))


async def add_case_rule_set(call: Call) -> web.Response:
    """Store rules as the next version. It does not decide before it is activated.

    Refused with each fault: unknown codes, a row that never matches, one that always matches before the last.
    """
    rule_set = await _rules(call).add_set(call.body, call.staff_actor)
    return json_response(rule_set, 201, {"Location": f"{_SETS_PATH}/{rule_set.version}"})


async def activate_case_rules(call: Call) -> web.Response:
    """Have a version decide from now on; null: none does."""
    return json_response(await _rules(call).activate(call.body, call.staff_actor))


async def switch_case_rules(call: Call) -> web.Response:
    """Stop all rules at once, or let them decide again. After the answer to a stop no rule decides."""
    return json_response(await _rules(call).switch(call.body, call.staff_actor))


async def put_case_rule_budget(call: Call) -> web.Response:
    """Set what rules may approve in a currency per day of the shop, the present day included."""
    currency = call.parameters["currency"]
    return json_response(await _rules(call).put_budget(currency, call.body, call.staff_actor))


async def try_case_rules(call: Call) -> web.Response:
    """Show what rules would have decided on past requests, as each was requested. Changes nothing."""
    return json_response(await _rules(call).try_rules(call.body))


_PATH = "/v1/admin/case-rules"
_SETS_PATH = f"{_PATH}/sets"
_STATE = {200: ("the switch, the version that decides, and the budgets", RuleState)}
_read = partial(Operation, tag="staff: case rules", access="support_read", method="GET")
_lead = partial(Operation, tag="staff: case rules", access="support_lead")


def _change(path: str, handler: Handler, summary: str, body: Any, problems: tuple[int, ...] = (503,)) -> Operation:
    return _lead(
        method="POST",
        is_one_transaction=True,
        path=path,
        handler=handler,
        summary=summary,
        answers=_STATE,
        problems=problems,
        body=body,
    )


ADMIN = [
    _read(path=_PATH, handler=show_case_rules, summary="Read the state of the rules", answers=_STATE, problems=(503,)),
    _read(
        path=_SETS_PATH,
        handler=list_case_rule_sets,
        summary="List versions of the rules",
        answers={200: ("a page of versions", Page[RuleSetSummary])},
        problems=(503,),
        parameters=(cursor_parameter(_Number), LIMIT),
    ),
    _read(
        path=f"{_SETS_PATH}/{{version}}",
        handler=show_case_rule_set,
        summary="Read a version of the rules",
        answers={200: ("the version", RuleSet)},
        problems=(404, 503),
        parameters=(_VERSION,),
    ),
    _read(
        path=f"{_PATH}/events",
        handler=list_case_rule_events,
        summary="List changes of the rules",
        answers={200: ("a page of changes", Page[RuleEvent])},
        problems=(503,),
        parameters=(cursor_parameter(_Number), LIMIT),
    ),
    _read(
        path="/v1/admin/cases/{case_id}/decisions",
        handler=list_case_decisions,
        summary="List decisions of rules on a case",
        answers={200: ("the decisions", RuleDecisions)},
        problems=(404, 503),
        parameters=(CASE,),
    ),
    _lead(
        method="POST",
        is_one_transaction=True,
        path=_SETS_PATH,
        handler=add_case_rule_set,
        summary="Add a version of the rules",
        answers={201: ("the new version", RuleSet)},
        problems=(503,),
        body=RuleSetInput,
    ),
    _change(f"{_PATH}/activate", activate_case_rules, "Activate a version of the rules", RuleActivation, (404, 503)),
    _change(f"{_PATH}/switch", switch_case_rules, "Switch rules off or on", RuleSwitch),
    _lead(
        method="PUT",
        path=f"{_PATH}/budgets/{{currency}}",
        handler=put_case_rule_budget,
        summary="Set a daily budget of the rules",
        answers=_STATE,
        problems=(503,),
        parameters=(_CURRENCY,),
        body=RuleBudgetInput,
    ),
    _lead(
        method="POST",
        path=f"{_PATH}/dry-run",
        handler=try_case_rules,
        summary="Try rules on past cases",
        answers={200: ("what they would have decided", DryRun)},
        problems=(503,),
        body=DryRunInput,
    ),
]
