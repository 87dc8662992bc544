"""What a van's driver sees and reports, by the signed link of the route; and the links, for staff."""

from __future__ import annotations

import html
from datetime import date
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from commerce.fleet.driver_links import MAX_TOKEN_CHARS, check_link, make_link
from commerce.fleet.model import DriverRoute, DriverStop, Route, StopReport
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.money import format_money as show_money
from config.settings import SettingsError
from gateway.operations import Call, Operation, Parameter, json_response

_TAG = "vans"
_PRIVATE = {"Cache-Control": "no-store"}
"""Where customers live is not kept on the way, nor on the telephone."""
_TOKEN = Parameter(
    "token", "path", Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TOKEN_CHARS)], "of the driver's link"
)
_SEQ = Parameter("seq", "path", Annotated[int, msgspec.Meta(ge=1, le=32_767)], "the stop's number on the route")
_DAY = Parameter("day", "query", date, "which day's routes, like 2026-11-11", required=True)


class LinkedRoute(msgspec.Struct, frozen=True):
    """A route with the path of its driver's link, below the shop's public address."""

    route: Route
    link: str


class LinkedRoutes(msgspec.Struct, frozen=True):
    """A day's routes."""

    items: list[LinkedRoute]


def _key(call: Call) -> str:
    """What links are signed with. Raises `NotReady` where the settings have no key."""
    try:
        return call.services.settings.driver_link_key()
    except SettingsError as error:
        raise NotReady(str(error)) from None


def _route(call: Call) -> UUID:
    """The route that the link is for. Raises `BadLink`."""
    return check_link(_key(call), call.parameters["token"], from_ms(call.services.clock.now_ms()))


def _shown(board: DriverRoute) -> web.Response:
    return json_response(board, headers=_PRIVATE)


async def show_board(call: Call) -> web.Response:
    """The route's stops: who, where, when, and how much cash is to be collected."""
    return _shown(await call.services.route_execution.driver_route(_route(call)))


async def leave(call: Call) -> web.Response:
    """The van leaves: its parcels are out for delivery. Again changes nothing."""
    return _shown(await call.services.route_execution.depart(_route(call)))


async def report_stop(call: Call) -> web.Response:
    """What became of a stop. Again changes nothing; one that failed may still be delivered."""
    return _shown(await call.services.route_execution.report(_route(call), call.parameters["seq"], call.body))


async def board_page(call: Call) -> web.Response:
    """The same as a page for a phone, with buttons."""
    board = await call.services.route_execution.driver_route(_route(call))
    stops = "".join(_stop(stop, call) for stop in board.stops)
    button = "" if board.status != "planned" else "<button data-path='leave'>The van leaves</button>"
    text = _PAGE.format(title=_title(board), button=button, stops=stops)
    return web.Response(text=text, content_type="text/html", headers=_PRIVATE)


def _title(board: DriverRoute) -> str:
    return html.escape(f"{board.vehicle_id}, {board.day}: {board.status}")


def _stop(stop: DriverStop, call: Call) -> str:
    zone = ZoneInfo(call.services.settings.shipping.timezone)
    to, arrives = stop.address, stop.arrive_at.astimezone(zone)
    where = ", ".join(part for part in (to.line, to.district, to.city) if part)
    cash = ""
    if stop.cash_to_collect is not None:
        amount = show_money(stop.cash_to_collect.amount, stop.cash_to_collect.currency)
        cash = f"<p class=cash>collect {html.escape(amount)}</p>"
    buttons = "" if stop.status == "delivered" else "".join(
        f"<button data-path='stops/{stop.seq}' data-outcome='{outcome}'>{outcome}</button>"
        for outcome in ("delivered", "failed")
    )  # fmt: skip
    return (
        f"<li class='{stop.status}'><b>{html.escape(to.name)}</b> <a href='tel:{html.escape(to.phone)}'>"
        f"{html.escape(to.phone)}</a><br>{html.escape(where)}<br>{arrives:%H:%M}, {html.escape(stop.tracking_no or '')}"
        f" <i>{stop.status}</i>{cash}{buttons}</li>"
    )


async def list_routes(call: Call) -> web.Response:
    """A day's routes, each with the link for its driver."""
    services, day, key = call.services, call.parameters["day"], _key(call)
    zone = ZoneInfo(services.settings.shipping.timezone)
    routes = await services.fleet.routes(day)
    links = [f"/v1/vans/{make_link(key, route.route_id, route.day, zone)}/page" for route in routes]
    return json_response(LinkedRoutes([LinkedRoute(*pair) for pair in zip(routes, links, strict=True)]))


_BOARD = {200: ("the route", DriverRoute)}
_OWN = "/v1/vans/{token}"
OPERATIONS = [
    Operation("GET", _OWN, show_board, "A route", _TAG, "anyone", _BOARD, (401, 404, 503), (_TOKEN,)),
    Operation("POST", f"{_OWN}/leave", leave, "Leave", _TAG, "anyone", _BOARD, (401, 404, 409, 503), (_TOKEN,)),
    Operation(
        "POST",
        f"{_OWN}/stops/{{seq}}",
        report_stop,
        "Report a stop",
        _TAG,
        "anyone",
        _BOARD,
        (401, 404, 409, 503),
        (_TOKEN, _SEQ),
        StopReport,
    ),
    Operation(
        "GET",
        f"{_OWN}/page",
        board_page,
        "A route as a page",
        _TAG,
        "anyone",
        {200: ("a page", None)},
        (401, 404, 503),
        (_TOKEN,),
        content_type="text/html",
    ),
]
ADMIN = [
    Operation(
        "GET",
        "/v1/admin/routes",
        list_routes,
        "A day's routes",
        "staff: shipping desk",
        "warehouse",
        {200: ("routes", LinkedRoutes)},
        (503,),
        (_DAY,),
    ),
]

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<style>
body {{ font: 18px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 34rem; padding: 1rem; color: #1c2733 }}
li {{ margin: 0 0 1rem; padding: .6rem; border: 1px solid #c8c8c0; border-radius: 6px }}
li.delivered {{ opacity: .5 }} .cash {{ font-weight: 700; margin: .3rem 0 }}
button {{ font: inherit; padding: .5rem 1rem; margin: .4rem .6rem 0 0 }} #said {{ color: #a02020 }}
</style></head><body><h1>{title}</h1><p id="said" role="status"></p>{button}<ol>{stops}</ol><script>
for (const button of document.querySelectorAll("button")) button.onclick = async () => {{
  const {{path, outcome}} = button.dataset;
  const note = outcome === "failed" ? prompt("Why?") : "";
  if (note === null) return;
  const body = outcome && JSON.stringify({{outcome, ...(note && {{note}})}});
  try {{
    const answer = await fetch(path, {{method: "POST", headers: {{"Content-Type": "application/json"}}, body}});
    if (answer.ok) return location.reload();
    document.getElementById("said").textContent = (await answer.json()).detail;
  }} catch {{
    document.getElementById("said").textContent = "No connection. Nothing is lost: press again in a moment.";
  }}
}};
</script></body></html>"""
