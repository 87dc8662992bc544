"""Staff operations on teams, templates of replies and saved views."""

from __future__ import annotations

from functools import partial
from typing import Annotated
from uuid import UUID

import msgspec
from aiohttp import web

from commerce.conversations.model import Language, TeamId, TemplateId
from commerce.conversations.support_model import (
    ReplyTemplate,
    SavedView,
    SupportTeam,
    TeamInput,
    TemplateInput,
    ViewInput,
)
from commerce.kernel.paging import Page
from gateway.endpoints.parameters import LIMIT, cursor_parameter, page_size
from gateway.endpoints.support import SUPPORT_ANSWER, SUPPORT_READ
from gateway.operations import Call, Operation, Parameter, json_response

_TEAMS_PATH, _TEMPLATES_PATH, _VIEWS_PATH = (
    f"/v1/admin/{name}" for name in ("support-teams", "reply-templates", "conversation-views")
)
_TemplateCursor = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\.(?:zh|en)\Z")]
_TEAM = Parameter(name="team_id", location="path", type=TeamId, description="the team's id")
_TEMPLATE = Parameter(name="template_id", location="path", type=TemplateId, description="the template's id")
_LANGUAGE = Parameter(name="language", location="path", type=Language, description="`zh` or `en`")
_ANY_LANGUAGE = Parameter(name="language", location="query", type=Language, description="only in this language")
_VIEW = Parameter(name="view_id", location="path", type=UUID, description="the view's id")


async def list_support_teams(call: Call) -> web.Response:
    """List the teams of support with their members."""
    return json_response(await call.services.conversations.teams.list_teams(call.parameters["cursor"], page_size(call)))


async def put_support_team(call: Call) -> web.Response:
    """Create a team, or replace it with its members."""
    teams, team_id = call.services.conversations.teams, call.parameters["team_id"]
    return json_response(await teams.put(team_id, call.body, call.staff_actor))


async def delete_support_team(call: Call) -> web.Response:
    """Delete a team that no conversation belongs to, and with it its policies of deadlines."""
    await call.services.conversations.teams.delete(call.parameters["team_id"])
    return web.Response(status=204)


async def list_reply_templates(call: Call) -> web.Response:
    """List templates of replies."""
    templates, parameters = call.services.conversations.templates, call.parameters
    return json_response(await templates.list_templates(parameters["language"], parameters["cursor"], page_size(call)))


async def put_reply_template(call: Call) -> web.Response:
    """Create a template in a language, or replace it.

    422 `placeholder_unknown` names the placeholders that exist.
    """
    templates, parameters = call.services.conversations.templates, call.parameters
    return json_response(
        await templates.put(parameters["template_id"], parameters["language"], call.body, call.staff_actor)
    )


async def delete_reply_template(call: Call) -> web.Response:
    """Delete a template in a language."""
    parameters = call.parameters
    await call.services.conversations.templates.delete(parameters["template_id"], parameters["language"])
    return web.Response(status=204)


async def list_saved_views(call: Call) -> web.Response:
    """List your saved views and those that are shared."""
    views, staff = call.services.conversations.views, call.identity.subject
    return json_response(await views.list_views(staff, call.parameters["cursor"], page_size(call)))


async def save_view(call: Call) -> web.Response:
    """Save a filter of the queue, for yourself or shared."""
    view = await call.services.conversations.views.add(call.identity.subject, call.body)
    return json_response(view, 201, {"Location": f"{_VIEWS_PATH}/{view.view_id}"})


async def replace_view(call: Call) -> web.Response:
    """Replace a view of yours."""
    views, view_id = call.services.conversations.views, call.parameters["view_id"]
    return json_response(await views.replace(view_id, call.identity.subject, call.body))


async def delete_view(call: Call) -> web.Response:
    """Delete a view of yours."""
    await call.services.conversations.views.delete(call.parameters["view_id"], call.identity.subject)
    return web.Response(status=204)


_operation = partial(Operation, tag="staff: support setup", access=SUPPORT_ANSWER)
_read = partial(Operation, tag="staff: support setup", access=SUPPORT_READ, method="GET", problems=(503,))

ADMIN = [
    _read(
        path=_TEAMS_PATH,
        handler=list_support_teams,
        summary="List teams of support",
        answers={200: ("a page of teams", Page[SupportTeam])},
        parameters=(cursor_parameter(TeamId), LIMIT),
    ),
    _operation(
        method="PUT",
        path=f"{_TEAMS_PATH}/{{team_id}}",
        handler=put_support_team,
        summary="Put a team of support",
        answers={200: ("the team", SupportTeam)},
        problems=(503,),
        parameters=(_TEAM,),
        body=TeamInput,
    ),
    _operation(
        access="support_lead",  # as whoever sets policies of deadlines
        method="DELETE",
        path=f"{_TEAMS_PATH}/{{team_id}}",
        handler=delete_support_team,
        summary="Delete a team of support",
        answers={204: ("deleted", None)},
        problems=(404, 409, 503),
        parameters=(_TEAM,),
    ),
    _read(
        path=_TEMPLATES_PATH,
        handler=list_reply_templates,
        summary="List templates of replies",
        answers={200: ("a page of templates", Page[ReplyTemplate])},
        parameters=(_ANY_LANGUAGE, cursor_parameter(_TemplateCursor), LIMIT),
    ),
    _operation(
        method="PUT",
        path=f"{_TEMPLATES_PATH}/{{template_id}}/{{language}}",
        handler=put_reply_template,
        summary="Put a template of replies",
        answers={200: ("the template", ReplyTemplate)},
        problems=(503,),
        parameters=(_TEMPLATE, _LANGUAGE),
        body=TemplateInput,
    ),
    _operation(
        method="DELETE",
        path=f"{_TEMPLATES_PATH}/{{template_id}}/{{language}}",
        handler=delete_reply_template,
        summary="Delete a template of replies",
        answers={204: ("deleted", None)},
        problems=(404, 503),
        parameters=(_TEMPLATE, _LANGUAGE),
    ),
    _read(
        path=_VIEWS_PATH,
        handler=list_saved_views,
        summary="List saved views of the queue",
        answers={200: ("a page of views", Page[SavedView])},
        parameters=(cursor_parameter(UUID), LIMIT),
    ),
    _operation(
        method="POST",
        is_one_transaction=True,
        path=_VIEWS_PATH,
        handler=save_view,
        summary="Save a view of the queue",
        answers={201: ("the view", SavedView)},
        problems=(409, 503),
        body=ViewInput,
    ),
    _operation(
        method="PUT",
        path=f"{_VIEWS_PATH}/{{view_id}}",
        handler=replace_view,
        summary="Replace a saved view",
        answers={200: ("the view", SavedView)},
        problems=(404, 409, 503),
        parameters=(_VIEW,),
        body=ViewInput,
    ),
    _operation(
        method="DELETE",
        path=f"{_VIEWS_PATH}/{{view_id}}",
        handler=delete_view,
        summary="Delete a saved view",
        answers={204: ("deleted", None)},
        problems=(404, 503),
        parameters=(_VIEW,),
    ),
]
