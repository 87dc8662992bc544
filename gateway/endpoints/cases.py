"""Staff operations on cases and return policies."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.aftersales.case_evidence import MEDIA_TYPE
from commerce.aftersales.model import (
    ApprovalInput,
    Case,
    CaseStep,
    CaseSummary,
    OfferInput,
    PolicyId,
    PolicyTerms,
    ReturnPolicy,
    StaffCaseInput,
    View,
)
from commerce.kernel.paging import Page
from gateway.endpoints.parameters import LIMIT, ORDER, cursor_parameter, page_size
from gateway.endpoints.returns import CASE, PICTURE, picture_response
from gateway.operations import Call, Handler, Operation, Parameter, json_response

_VIEW = Parameter(
    name="view",
    location="query",
    type=View,
    description="open cases by whoever must act, overdue or escalated ones; `staff` when left out",
)
_POLICY = Parameter(name="policy_id", location="path", type=PolicyId, description="the policy's name")


async def list_cases(call: Call) -> web.Response:
    """List cases by deadline: by default those that wait for staff.

    `all` lists the newest first.
    """
    view: View = call.parameters["view"] or "staff"
    return json_response(await call.services.aftersales.list_view(view, call.parameters["cursor"], page_size(call)))


async def show_case(call: Call) -> web.Response:
    """Read any case, with its lines, events and pictures."""
    return await _answer(call)


async def open_case(call: Call) -> web.Response:
    """Open a case for a customer. Deadlines and exclusions of the policy do not bind staff; units do."""
    body: StaffCaseInput = call.body
    order_id, actor = call.parameters["order_id"], call.staff_actor
    case = await call.services.aftersales.open_for_customer(order_id, body.request, body.reason, actor)
    return json_response(case, 201, {"Location": f"{_CASES_PATH}/{case.case.case_id}"})


async def approve_case(call: Call) -> web.Response:
    """Approve a request. This fixes its amounts: left out, they follow from what was paid and the policy."""
    await call.services.aftersales.actions.approve(call.parameters["case_id"], call.body, call.staff_actor)
    return await _answer(call)


async def offer_in_case(call: Call) -> web.Response:
    """Offer something else in place of a request.

    The customer accepts the offer, or declines it: then staff decide on the request.
    """
    await call.services.aftersales.actions.offer(call.parameters["case_id"], call.body, call.staff_actor)
    return await _answer(call)


async def decline_case(call: Call) -> web.Response:
    """Decline a request. The customer may escalate it."""
    return await _step(call, "decline")


async def resolve_case(call: Call) -> web.Response:
    """Resolve a case: the money of its accepted units is refunded.

    These are the units that an inspection found resellable or damaged. Before an inspection, or where nothing is sent
    back, the customer keeps the products and all units are refunded.
    """
    return await _step(call, "resolve")


async def reopen_case(call: Call) -> web.Response:
    """Reopen a declined or cancelled case, or a resolved one without money, if its units are still free."""
    return await _step(call, "reopen")


async def cancel_case(call: Call) -> web.Response:
    """Cancel a case before anything was received."""
    body: CaseStep = call.body
    actions = call.services.aftersales.actions
    await actions.cancel(call.parameters["case_id"], body.version, call.staff_actor, body.reason, None)
    return await _answer(call)


async def show_evidence(call: Call) -> web.Response:
    """Read any customer's picture."""
    return picture_response(await call.services.evidence.read(call.parameters["evidence_id"], None))


async def list_policies(call: Call) -> web.Response:
    """List return policies."""
    policies = call.services.aftersales.policies
    return json_response(await policies.list_policies(call.parameters["cursor"], page_size(call)))


async def get_policy(call: Call) -> web.Response:
    """Read a return policy."""
    return json_response(await call.services.aftersales.policies.get(call.parameters["policy_id"]))


async def put_policy(call: Call) -> web.Response:
    """Create a return policy, or replace it whole. Open cases keep the terms of their request."""
    policy_id = call.parameters["policy_id"]
    return json_response(await call.services.aftersales.policies.put(policy_id, call.body, call.staff_actor))


async def delete_policy(call: Call) -> web.Response:
    """Delete a return policy. The one called `default` stays."""
    await call.services.aftersales.policies.delete(call.parameters["policy_id"])
    return web.Response(status=204)


async def _step(call: Call, action: str) -> web.Response:
    body: CaseStep = call.body
    act = getattr(call.services.aftersales.actions, action)
    await act(call.parameters["case_id"], body.version, call.staff_actor, body.reason)
    return await _answer(call)


async def _answer(call: Call) -> web.Response:
    return json_response(await call.services.aftersales.get(call.parameters["case_id"], None))


_CASES_PATH = "/v1/admin/cases"
_POLICIES_PATH = "/v1/admin/return-policies"
_POLICY_PATH = f"{_POLICIES_PATH}/{{policy_id}}"
_POLICY_ANSWER = {200: ("the policy", ReturnPolicy)}
_support = partial(Operation, tag="staff: cases", access="support")
_sales = partial(Operation, tag="staff: cases", access="sales")


def _change(action: str, handler: Handler, summary: str, body: type[msgspec.Struct] = CaseStep) -> Operation:
    return _support(
        method="POST",
        is_one_transaction=True,
        path=f"{_CASES_PATH}/{{case_id}}/{action}",
        handler=handler,
        summary=summary,
        answers={200: ("the case", Case)},
        problems=(404, 409, 503),
        parameters=(CASE,),
        body=body,
    )


ADMIN = [
    _support(
        method="GET",
        access="support_read",
        path=_CASES_PATH,
        handler=list_cases,
        summary="List cases",
        answers={200: ("a page of cases", Page[CaseSummary])},
        problems=(503,),
        parameters=(_VIEW, cursor_parameter(UUID), LIMIT),
    ),
    _support(
        method="GET",
        access="support_read",
        path=f"{_CASES_PATH}/{{case_id}}",
        handler=show_case,
        summary="Read any case",
        answers={200: ("the case", Case)},
        problems=(404, 503),
        parameters=(CASE,),
    ),
    _support(
        method="POST",
        is_one_transaction=True,
        path="/v1/admin/orders/{order_id}/cases",
        access="support_answer",
        handler=open_case,
        summary="Open a case for a customer",
        answers={201: ("the new case", Case)},
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=StaffCaseInput,
    ),
    _support(
        method="GET",
        access="support_read",
        path="/v1/admin/evidence/{evidence_id}",
        handler=show_evidence,
        summary="Read any picture",
        answers={200: ("the picture", None)},
        problems=(404, 503),
        parameters=(PICTURE,),
        content_type=MEDIA_TYPE,
    ),
    _change("approve", approve_case, "Approve a case", ApprovalInput),
    _change("offer", offer_in_case, "Offer something else", OfferInput),
    _change("decline", decline_case, "Decline a case"),
    _change("resolve", resolve_case, "Resolve a case"),
    _change("reopen", reopen_case, "Reopen a case"),
    _change("cancel", cancel_case, "Cancel any case"),
    _sales(
        method="GET",
        path=_POLICIES_PATH,
        handler=list_policies,
        summary="List return policies",
        answers={200: ("a page", Page[ReturnPolicy])},
        problems=(503,),
        parameters=(cursor_parameter(PolicyId), LIMIT),
    ),
    _sales(
        method="GET",
        path=_POLICY_PATH,
        handler=get_policy,
        summary="Read a return policy",
        answers=_POLICY_ANSWER,
        problems=(404, 503),
        parameters=(_POLICY,),
    ),
    _sales(
        method="PUT",
        path=_POLICY_PATH,
        handler=put_policy,
        summary="Put a return policy",
        answers=_POLICY_ANSWER,
        problems=(503,),
        parameters=(_POLICY,),
        body=PolicyTerms,
    ),
    _sales(
        method="DELETE",
        path=_POLICY_PATH,
        handler=delete_policy,
        summary="Delete a return policy",
        answers={204: ("deleted", None)},
        problems=(404, 409, 503),
        parameters=(_POLICY,),
    ),
]
