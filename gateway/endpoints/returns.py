"""Returns, exchanges and claims of customers."""

from __future__ import annotations

from functools import partial
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.aftersales.case_evidence import MEDIA_TYPE
from commerce.aftersales.model import (
    Case,
    CaseAnswer,
    CaseInput,
    CasePreview,
    CaseSummary,
    Evidence,
    EvidenceToAdd,
    ReturnReason,
    ReturnReasons,
)
from commerce.aftersales.reasons import REASONS
from commerce.kernel.paging import Page
from gateway.endpoints.orders import KEY
from gateway.endpoints.parameters import LIMIT, ORDER, cursor_parameter, page_size
from gateway.operations import Call, Handler, Operation, Parameter, json_response
from gateway.uploads import read_upload

RETURNS_PATH = "/v1/returns"
EVIDENCE_PATH = "/v1/evidence"
PICTURE = Parameter(name="evidence_id", location="path", type=UUID, description="the picture's id")
CASE = Parameter(name="case_id", location="path", type=UUID, description="the case's id")


async def request_return(call: Call) -> web.Response:
    """Ask to return or exchange delivered units, to be refunded without a return, or claim an error.

    A unit is in one case at a time, over all kinds. 409 `not_returnable` lists all `obstacles` with what to do. A
    repeat with the same Idempotency-Key returns 200 with the case.
    """
    order_id, key = call.parameters["order_id"], call.parameters[KEY.name]
    case, is_new = await call.services.aftersales.request(order_id, call.identity.subject, key, call.body)
    return json_response(case, 201 if is_new else 200, {"Location": f"{RETURNS_PATH}/{case.case.case_id}"})


async def preview_return(call: Call) -> web.Response:
    """Show how a request would be judged now, with its amounts and deadline. Nothing is stored."""
    requests = call.services.aftersales.requests
    return json_response(await requests.preview(call.parameters["order_id"], call.identity.subject, call.body))


async def list_returns(call: Call) -> web.Response:
    """List your cases, newest first."""
    cursor, user_id = call.parameters["cursor"], call.identity.subject
    return json_response(await call.services.aftersales.list_of_user(user_id, cursor, page_size(call)))


async def get_return(call: Call) -> web.Response:
    """Read one of your cases, with its lines, events and pictures."""
    return await _answer(call)


async def cancel_return(call: Call) -> web.Response:
    """Cancel a case before the products are on their way back. Its units may be in another one then."""
    user_id, body = call.identity.subject, call.body
    actions = call.services.aftersales.actions
    await actions.cancel(call.parameters["case_id"], body.version, f"customer {user_id}", body.reason, user_id)
    return await _answer(call)


async def escalate_return(call: Call) -> web.Response:
    """Have the shop reconsider a declined case, or decide on one that waits for the shop."""
    body: CaseAnswer = call.body
    actions = call.services.aftersales.actions
    await actions.escalate(call.parameters["case_id"], body.version, call.identity.subject, body.reason)
    return await _answer(call)


async def accept_offer(call: Call) -> web.Response:
    """Accept the shop's offer: the case is approved with its terms."""
    return await _answer_offer(call, accepts=True)


async def decline_offer(call: Call) -> web.Response:
    """Decline the shop's offer: staff decide on your request."""
    return await _answer_offer(call, accepts=False)


async def add_evidence(call: Call) -> web.Response:
    """Add pictures to an open case that were uploaded for its order."""
    body: EvidenceToAdd = call.body
    actions = call.services.aftersales.actions
    await actions.add_evidence(call.parameters["case_id"], body.version, call.identity.subject, body.evidence)
    return await _answer(call)


async def upload_evidence(call: Call) -> web.Response:
    """Upload a picture for an order: JPEG, PNG or WebP, judged by its content.

    Name its id in a request then. It is stored as JPEG, upright and without metadata. Anything else is 422
    `not_a_picture`.
    """
    order_id, user_id, services = call.parameters["order_id"], call.identity.subject, call.services
    await services.evidence.check_upload(order_id, user_id)
    settings = services.settings.aftersales
    with services.uploads.take(settings.concurrent_uploads):
        content = await read_upload(call.request, settings.evidence_bytes, settings.evidence_upload_timeout_s)
        evidence = await services.evidence.upload(order_id, user_id, content)
    return json_response(evidence, 201, {"Location": f"{EVIDENCE_PATH}/{evidence.evidence_id}"})


async def read_evidence(call: Call) -> web.Response:
    """Read one of your pictures."""
    return picture_response(await call.services.evidence.read(call.parameters["evidence_id"], call.identity.subject))


def picture_response(content: bytes) -> web.Response:
    """Build the answer of a picture. Only its customer may keep it."""
    headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
    return web.Response(body=content, content_type=MEDIA_TYPE, headers=headers)


async def list_return_reasons(call: Call) -> web.Response:
    """List the reasons of cases, with labels in English and Chinese."""
    return json_response(ReturnReasons([ReturnReason(*reason) for reason in REASONS.values()]))


async def _answer_offer(call: Call, *, accepts: bool) -> web.Response:
    body: CaseAnswer = call.body
    case_id, user_id = call.parameters["case_id"], call.identity.subject
    actions = call.services.aftersales.actions
    await actions.answer_offer(case_id, body.version, user_id, body.reason, accepts=accepts)
    return await _answer(call)


async def _answer(call: Call) -> web.Response:
    return json_response(await call.services.aftersales.get(call.parameters["case_id"], call.identity.subject))


_CASE_ANSWER = {200: ("the case", Case)}
_customer = partial(Operation, tag="returns", access="customer")


def _change(action: str, handler: Handler, summary: str, body: type[msgspec.Struct] = CaseAnswer) -> Operation:
    return _customer(
        method="POST",
        path=f"{RETURNS_PATH}/{{case_id}}/{action}",
        handler=handler,
        summary=summary,
        answers=_CASE_ANSWER,
        problems=(404, 409, 503),
        parameters=(CASE,),
        body=body,
    )


OPERATIONS = [
    _customer(
        method="POST",
        path="/v1/orders/{order_id}/returns",
        handler=request_return,
        summary="Request a return, exchange, claim or refund",
        answers={201: ("the new case", Case), 200: ("the case of an earlier request with the key", Case)},
        problems=(404, 409, 503),
        parameters=(ORDER, KEY),
        body=CaseInput,
    ),
    _customer(
        method="POST",
        path="/v1/orders/{order_id}/returns/preview",
        handler=preview_return,
        summary="Preview a return, exchange, claim or refund",
        answers={200: ("how it would be judged; nothing is stored", CasePreview)},
        problems=(404, 409, 503),
        parameters=(ORDER,),
        body=CaseInput,
    ),
    _customer(
        method="GET",
        path=RETURNS_PATH,
        handler=list_returns,
        summary="List your cases",
        answers={200: ("a page of cases", Page[CaseSummary])},
        problems=(503,),
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _customer(
        method="GET",
        path=f"{RETURNS_PATH}/{{case_id}}",
        handler=get_return,
        summary="Read a case",
        answers=_CASE_ANSWER,
        problems=(404, 503),
        parameters=(CASE,),
    ),
    _change("cancel", cancel_return, "Cancel a case"),
    _change("escalate", escalate_return, "Escalate a case"),
    _change("offer/accept", accept_offer, "Accept an offer"),
    _change("offer/decline", decline_offer, "Decline an offer"),
    _change("evidence", add_evidence, "Add pictures to a case", EvidenceToAdd),
    _customer(
        method="POST",
        path="/v1/orders/{order_id}/evidence",
        handler=upload_evidence,
        summary="Upload a picture",
        answers={201: ("the stored picture", Evidence)},
        problems=(404, 408, 409, 413, 415, 422, 503),
        parameters=(ORDER,),
        has_upload=True,
    ),
    _customer(
        method="GET",
        path=f"{EVIDENCE_PATH}/{{evidence_id}}",
        handler=read_evidence,
        summary="Read a picture",
        answers={200: ("the picture", None)},
        problems=(404, 503),
        parameters=(PICTURE,),
        content_type=MEDIA_TYPE,
    ),
    Operation(
        tag="returns",
        access="anyone",
        method="GET",
        path="/v1/return-reasons",
        handler=list_return_reasons,
        summary="List the reasons of cases",
        answers={200: ("the reasons", ReturnReasons)},
    ),
]
