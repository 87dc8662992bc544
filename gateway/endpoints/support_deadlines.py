"""Staff operations on working calendars and on policies of deadlines."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from commerce.deadline_policies.model import DeadlinePolicy, DeadlinePolicyId, DeadlineTerms
from commerce.deadline_policies.service import DeadlinePolicies
from commerce.kernel.paging import Page
from commerce.working_time.model import CalendarId, CalendarTerms, StoredCalendar
from commerce.working_time.service import WorkingCalendars
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.operations import Call, Operation, Parameter, json_response

_CALENDAR = Parameter(name="calendar_id", location="path", type=CalendarId, description="the calendar's name")
_POLICY = Parameter(name="policy_id", location="path", type=DeadlinePolicyId, description="the policy's name")


def _calendars_of(call: Call) -> WorkingCalendars:
    return WorkingCalendars(call.services.db, call.services.clock)


def _policies_of(call: Call) -> DeadlinePolicies:
    return DeadlinePolicies(call.services.db, call.services.clock)


async def list_calendars(call: Call) -> web.Response:
    """List working calendars."""
    return json_response(await _calendars_of(call).list_calendars(call.parameters["cursor"], page_size(call)))


async def get_calendar(call: Call) -> web.Response:
    """Read a working calendar. From `uncertain_from` on its public holidays are not known yet."""
    return json_response(await _calendars_of(call).get(call.parameters["calendar_id"]))


async def put_calendar(call: Call) -> web.Response:
    """Create a working calendar, or replace it whole. Open deadlines follow within a minute or so."""
    calendar_id = call.parameters["calendar_id"]
    return json_response(await _calendars_of(call).put(calendar_id, call.body, call.staff_actor))


async def delete_calendar(call: Call) -> web.Response:
    """Delete a working calendar that no policy uses."""
    await _calendars_of(call).delete(call.parameters["calendar_id"])
    return web.Response(status=204)


async def list_deadline_policies(call: Call) -> web.Response:
    """List policies of deadlines."""
    return json_response(await _policies_of(call).list_policies(call.parameters["cursor"], page_size(call)))


async def get_deadline_policy(call: Call) -> web.Response:
    """Read a policy of deadlines."""
    return json_response(await _policies_of(call).get(call.parameters["policy_id"]))


async def put_deadline_policy(call: Call) -> web.Response:
    """Create a policy of deadlines, or replace it whole.

    Open deadlines follow within a minute or so; what was answered is judged by the policy of its time.
    """
    return json_response(await _policies_of(call).put(call.parameters["policy_id"], call.body, call.staff_actor))


async def delete_deadline_policy(call: Call) -> web.Response:
    """Delete a policy of deadlines. The one called `default` stays."""
    await _policies_of(call).delete(call.parameters["policy_id"])
    return web.Response(status=204)


_CALENDARS_PATH = "/v1/admin/working-calendars"
_CALENDAR_PATH = f"{_CALENDARS_PATH}/{{calendar_id}}"
_POLICIES_PATH = "/v1/admin/deadline-policies"
_POLICY_PATH = f"{_POLICIES_PATH}/{{policy_id}}"
_reading = partial(Operation, tag="staff: deadlines", access="support_read")
_changing = partial(Operation, tag="staff: deadlines", access="support_lead")

ADMIN = [
    _reading(
        method="GET",
        path=_CALENDARS_PATH,
        handler=list_calendars,
        summary="List working calendars",
        answers={200: ("a page", Page[StoredCalendar])},
        problems=(503,),
        parameters=(cursor_parameter(CalendarId), LIMIT),
    ),
    _reading(
        method="GET",
        path=_CALENDAR_PATH,
        handler=get_calendar,
        summary="Read a working calendar",
        answers={200: ("the calendar", StoredCalendar)},
        problems=(404, 503),
        parameters=(_CALENDAR,),
    ),
    _changing(
        method="PUT",
        path=_CALENDAR_PATH,
        handler=put_calendar,
        summary="Set a working calendar",
        answers={200: ("the calendar", StoredCalendar)},
        problems=(409, 503),
        parameters=(_CALENDAR,),
        body=CalendarTerms,
    ),
    _changing(
        method="DELETE",
        path=_CALENDAR_PATH,
        handler=delete_calendar,
        summary="Delete a working calendar",
        answers={204: ("the calendar is deleted", None)},
        problems=(404, 409, 503),
        parameters=(_CALENDAR,),
    ),
    _reading(
        method="GET",
        path=_POLICIES_PATH,
        handler=list_deadline_policies,
        summary="List policies of deadlines",
        answers={200: ("a page", Page[DeadlinePolicy])},
        problems=(503,),
        parameters=(cursor_parameter(DeadlinePolicyId), LIMIT),
    ),
    _reading(
        method="GET",
        path=_POLICY_PATH,
        handler=get_deadline_policy,
        summary="Read a policy of deadlines",
        answers={200: ("the policy", DeadlinePolicy)},
        problems=(404, 503),
        parameters=(_POLICY,),
    ),
    _changing(
        method="PUT",
        path=_POLICY_PATH,
        handler=put_deadline_policy,
        summary="Set a policy of deadlines",
        answers={200: ("the policy", DeadlinePolicy)},
        problems=(409, 503),
        parameters=(_POLICY,),
        body=DeadlineTerms,
    ),
    _changing(
        method="DELETE",
        path=_POLICY_PATH,
        handler=delete_deadline_policy,
        summary="Delete a policy of deadlines",
        answers={204: ("the policy is deleted", None)},
        problems=(404, 409, 503),
        parameters=(_POLICY,),
    ),
]
