"""Delivery routes for their drivers, opened by a signed link; and the links, for staff."""

from __future__ import annotations

import html
from functools import partial
from typing import Annotated
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from commerce.fleet.driver_links import MAX_TOKEN_CHARS, check_link, make_link
from commerce.fleet.model import DriverRoute, DriverStop, Route, StopReport
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.moments import Day
from commerce.kernel.money import format_money
from config.settings import SettingsError
from gateway.operations import Call, Operation, Parameter, json_response

_PRIVATE_HEADERS = {"Cache-Control": "no-store"}
"""Neither a proxy nor the driver's phone keeps customers' addresses."""
_TOKEN = Parameter(
    name="token",
    location="path",
    type=Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TOKEN_CHARS)],
    description="the token of the driver's link",
)
_SEQ = Parameter(
    name="seq",
    location="path",
    type=Annotated[int, msgspec.Meta(ge=1, le=32_767)],
    description="the stop's number on the route",
)
_DAY = Parameter(
    name="day", location="query", type=Day, description="the day of the routes, such as 2026-11-11", required=True
)


class LinkedRoute(msgspec.Struct, frozen=True):
    """A route with the path of its driver's link, relative to the shop's public address."""

    route: Route
    link: str


class LinkedRoutes(msgspec.Struct, frozen=True):
    """A day's routes."""

    items: list[LinkedRoute]


def _link_key(call: Call) -> str:
    """Return the key that signs driver links. Raises `NotReady` if the settings have none."""
    try:
        return call.services.settings.driver_link_key()
    except SettingsError as error:
        raise NotReady(str(error)) from None


def _check_route_token(call: Call) -> UUID:
    """Verify the link's token and return its route. Raises `BadLink`."""
    return check_link(_link_key(call), call.parameters["token"], from_ms(call.services.clock.now_ms()))


def _private_response(route: DriverRoute) -> web.Response:
    return json_response(route, headers=_PRIVATE_HEADERS)


async def show_driver_route(call: Call) -> web.Response:
    """Read the route's stops: receiver, address, times, and the cash to collect."""
    return _private_response(await call.services.route_execution.driver_route(_check_route_token(call)))


async def depart_route(call: Call) -> web.Response:
    """Record that the vehicle departs: its shipments are out for delivery. A repeat changes nothing."""
    return _private_response(await call.services.route_execution.depart(_check_route_token(call)))


async def report_stop(call: Call) -> web.Response:
    """Report the outcome of a stop. A repeat changes nothing; a failed stop may still be delivered."""
    return _private_response(
        await call.services.route_execution.report(_check_route_token(call), call.parameters["seq"], call.body)
    )


async def show_driver_route_page(call: Call) -> web.Response:
    """Show the route as a page for a phone, with buttons."""
    route = await call.services.route_execution.driver_route(_check_route_token(call))
    zone = ZoneInfo(call.services.settings.shipping.timezone)
    stops = "".join(_stop_html(stop, zone) for stop in route.stops)
    button = "<button data-path='depart'>Depart</button>" if route.status == "planned" else ""
    title = html.escape(f"{route.vehicle_id}, {route.day}: {route.status}")
    text = _PAGE.format(title=title, button=button, stops=stops)
    return web.Response(text=text, content_type="text/html", headers=_PRIVATE_HEADERS)


def _stop_html(stop: DriverStop, zone: ZoneInfo) -> str:
    address, arrives_at = stop.address, stop.arrive_at.astimezone(zone)
    lines = ", ".join(part for part in (address.line, address.district, address.city) if part)
    cash = ""
    if stop.cash_to_collect is not None:
        amount = format_money(stop.cash_to_collect.amount, stop.cash_to_collect.currency)
        cash = f"<p class=cash>collect {html.escape(amount)}</p>"
    buttons = "" if stop.status == "delivered" else "".join(
        f"<button data-path='stops/{stop.seq}' data-outcome='{outcome}'>{outcome}</button>"
        for outcome in ("delivered", "failed")
    )  # fmt: skip
    phone, tracking_no = html.escape(address.phone), html.escape(stop.tracking_no or "")
    return (
        f"<li class='{stop.status}'><b>{html.escape(address.name)}</b> <a href='tel:{phone}'>{phone}</a>"
        f"<br>{html.escape(lines)}<br>{arrives_at:%H:%M}, {tracking_no} <i>{stop.status}</i>{cash}{buttons}</li>"
    )


async def list_routes(call: Call) -> web.Response:
    """List a day's routes, each with the link for its driver."""
    services, day, key = call.services, call.parameters["day"], _link_key(call)
    zone = ZoneInfo(services.settings.shipping.timezone)
    routes = await services.fleet.list_routes(day)
    return json_response(
        LinkedRoutes(
            [
                LinkedRoute(route, f"/v1/driver-routes/{make_link(key, route.route_id, route.day, zone)}/page")
                for route in routes
            ]
        )
    )


_ROUTE_PATH = "/v1/driver-routes/{token}"
_ROUTE_ANSWER = {200: ("the route", DriverRoute)}
_operation = partial(Operation, tag="delivery routes", access="anyone", share="staff")

OPERATIONS = [
    _operation(
        method="GET",
        path=_ROUTE_PATH,
        handler=show_driver_route,
        summary="Read a route",
        answers=_ROUTE_ANSWER,
        problems=(401, 404, 503),
        parameters=(_TOKEN,),
    ),
    _operation(
        method="POST",
        path=f"{_ROUTE_PATH}/depart",
        handler=depart_route,
        summary="Depart",
        answers=_ROUTE_ANSWER,
        problems=(401, 404, 409, 503),
        parameters=(_TOKEN,),
    ),
    _operation(
        method="POST",
        path=f"{_ROUTE_PATH}/stops/{{seq}}",
        handler=report_stop,
        summary="Report a stop",
        answers=_ROUTE_ANSWER,
        problems=(401, 404, 409, 503),
        parameters=(_TOKEN, _SEQ),
        body=StopReport,
    ),
    _operation(
        method="GET",
        path=f"{_ROUTE_PATH}/page",
        handler=show_driver_route_page,
        summary="Read a route as a page",
        answers={200: ("a page", None)},
        problems=(401, 404, 503),
        parameters=(_TOKEN,),
        content_type="text/html",
    ),
]
ADMIN = [
    Operation(
        method="GET",
        path="/v1/admin/routes",
        handler=list_routes,
        summary="List a day's routes",
        tag="staff: fulfilment",
        access="warehouse",
        answers={200: ("the routes", LinkedRoutes)},
        problems=(503,),
        parameters=(_DAY,),
    ),
]

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">
<style>
body {{ font: 18px/1.4 system-ui, sans-serif; margin: 0 auto; max-width: 34rem; padding: 1rem; color: #1c2733 }}
li {{ margin: 0 0 1rem; padding: .6rem; border: 1px solid #c8c8c0; border-radius: 6px }}
li.delivered {{ opacity: .5 }} .cash {{ font-weight: 700; margin: .3rem 0 }}
button {{ font: inherit; padding: .5rem 1rem; margin: .4rem .6rem 0 0 }} #status {{ color: #a02020 }}
</style></head><body><h1>{title}</h1><p id="status" role="status"></p>{button}<ol>{stops}</ol><script>
for (const button of document.querySelectorAll("button")) button.onclick = async () => {{
  const {{path, outcome}} = button.dataset;
  const note = outcome === "failed" ? prompt("Why?") : "";
  if (note === null) return;
  const body = outcome && JSON.stringify({{outcome, ...(note && {{note}})}});
  try {{
    const answer = await fetch(path, {{method: "POST", headers: {{"Content-Type": "application/json"}}, body}});
    if (answer.ok) return location.reload();
    document.getElementById("status").textContent = (await answer.json()).detail;
  }} catch {{
    document.getElementById("status").textContent = "No connection. Nothing is lost: press again in a moment.";
  }}
}};
</script></body></html>"""
