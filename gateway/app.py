"""All wiring in one place: which operations, on which port, around which services; starting and stopping."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from importlib.metadata import version
from time import perf_counter

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from commerce.kernel.bind import explain_bind_errors
from commerce.kernel.errors import NotReady, OutcomeUnknown, ProblemError
from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE as DATABASE_DOWN
from commerce.kernel.postgres import safe_error_text
from commerce.kernel.redis_client import REDIS_UNAVAILABLE as REDIS_DOWN
from commerce.kernel.tasks import cancel_and_wait
from config.settings import Settings
from gateway import openapi, problems
from gateway.connections import SERVER, ConnectionRegistry
from gateway.endpoints import admin, catalog, delivery_routes, fulfilment, health, orders, payments, shipments
from gateway.fast_path import FastPathConnection
from gateway.operations import Operation
from gateway.services import ORDER_ID, REQUEST_ID, REQUEST_ID_PATTERN, SERVICES, GatewayServices, open_gateway_services

_logger = logging.getLogger(__name__)
_READS = ("GET", "HEAD")

PUBLIC = [
    *orders.OPERATIONS,
    *payments.OPERATIONS,
    *shipments.OPERATIONS,
    *delivery_routes.OPERATIONS,
    *catalog.OPERATIONS,
    *health.HEALTH,
]
ADMIN = [*admin.OPERATIONS, *payments.ADMIN, *fulfilment.ADMIN, *delivery_routes.ADMIN, *health.HEALTH, *health.METRICS]


def build(services: GatewayServices, operations: Sequence[Operation]) -> web.Application:
    """An application that offers these operations, their OpenAPI document and a page to read it."""
    app = web.Application(middlewares=[_outermost], client_max_size=services.settings.limits.body_bytes)
    app[SERVICES] = services
    app.on_response_prepare.append(_sign)
    for operation in operations:
        if operation.method == "GET":
            app.router.add_get(operation.path, operation.__call__, expect_handler=_expectation)  # and HEAD
        else:
            app.router.add_route(operation.method, operation.path, operation.__call__, expect_handler=_expectation)
    document = openapi.document(operations, services.settings.limits, version("floodgate"))
    for path, body, kind in (
        ("/openapi.json", msgspec.json.encode(document), "application/json"),
        ("/docs", openapi.page(document).encode(), "text/html"),
    ):
        app.router.add_get(path, _constant(body, kind), expect_handler=_expectation)
    return app


def _constant(body: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8" if "html" in content_type else None)

    return answer


async def _expectation(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself is still to come
        return None
    return problems.from_status(417, "the only expectation that is met is 100-continue", _request_id(request))


def _request_id(request: web.Request) -> str:
    """The one that the client gave, if it is one; else a new one. It is the request's from then on."""
    if REQUEST_ID not in request:
        given = request.headers.get("X-Request-Id")
        services = request.app[SERVICES]
        request[REQUEST_ID] = given if given and REQUEST_ID_PATTERN.fullmatch(given) else services.request_ids.new()
    return request[REQUEST_ID]


async def _sign(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer has, streams too."""
    response.headers["X-Request-Id"] = _request_id(request)
    response.headers["Server"] = SERVER


@web.middleware
async def _outermost(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every request gets an id, a count, and an answer that is a problem if it is none of ours."""
    started = perf_counter()
    services, request_id = request.app[SERVICES], _request_id(request)
    try:
        response = await handler(request)
    except ProblemError as refusal:
        response = problems.from_refusal(refusal, request_id)
        if request.method == "POST" and request.path == orders.ORDERS_PATH:
            services.metrics_buffer.order(refusal.code)
    except web.HTTPException as error:
        response = problems.from_http(error, request_id)
    except (*DATABASE_DOWN, *REDIS_DOWN) as error:
        response = problems.from_refusal(_dependency_down(request, error), request_id)
    except Exception:
        _logger.exception("a request failed", extra=_context(request))
        response = problems.internal_error(request_id)
    if response.status == HTTPStatus.REQUEST_TIMEOUT or services.stopping.is_set():
        response.force_close()  # where the next request begins is not known, or nobody will be there to answer it
    if response.status >= 500:
        _logger.warning("answered %s", response.status, extra=_context(request))
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "none"
    services.metrics_buffer.request(
        route, request.method if resource else "any", response.status, perf_counter() - started
    )
    return response


def _dependency_down(request: web.Request, error: BaseException) -> ProblemError:
    _logger.warning("a dependency failed during a request", extra={**_context(request), "why": safe_error_text(error)})
    if request.method in _READS:
        return NotReady("a database does not answer; repeat the request")
    return OutcomeUnknown("a database went away meanwhile: look whether it was done, or repeat the request")


def _context(request: web.Request) -> dict[str, str]:
    # A driver's link opens its route for whoever reads it, so that its path is not logged as it came.
    resource = request.match_info.route.resource
    path = resource.canonical if resource and "token" in request.match_info else request.path
    context = {"request_id": request[REQUEST_ID], "method": request.method, "path": path}
    if order_id := request.get(ORDER_ID):
        context["order_id"] = order_id
    if traceparent := request.headers.get("traceparent"):
        context["traceparent"] = traceparent[:64]
    return context


async def serve(settings: Settings) -> None:
    """Run one gateway process until SIGTERM or SIGINT; requests in hand are finished."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    http = settings.http
    together = (http.host, http.port) == (http.admin_host, http.admin_port)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_gateway_services(settings))
        crowd = ConnectionRegistry(settings.limits, services.clock)
        staff = ConnectionRegistry(
            settings.limits, services.clock, port="admin", most=settings.limits.admin_connections
        )
        ports = [(http.host, http.port, [*PUBLIC, *ADMIN] if together else PUBLIC, crowd)]
        if not together:
            ports.append((http.admin_host, http.admin_port, ADMIN, staff))
        servers = []
        for host, port, operations, connections in ports:
            watching = asyncio.create_task(connections.enforce_timeouts_forever())
            stack.push_async_callback(cancel_and_wait, watching)
            runner = web.AppRunner(build(services, _once(operations)), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            express = connections is crowd
            factory = (
                fast_path_factory(connections, services, runner) if express else connections.aiohttp_factory(runner)
            )
            with explain_bind_errors(host, port, "FLOODGATE_HTTP__PORT" if express else "FLOODGATE_HTTP__ADMIN_PORT"):
                listener = _listen(host, port)
            servers.append(await loop.create_server(factory, sock=listener))
        tune_garbage_collector()
        _logger.info("listening", extra={"host": http.host, "port": http.port, "admin_port": http.admin_port})
        await stop.wait()
        _logger.info("stopping")
        services.stopping.set()
        services.watcher.close()
        for server in servers:
            server.close()
        await asyncio.gather(*(book.close_all(settings.limits.graceful_stop_s) for book in (crowd, staff)))


def fast_path_factory(
    connections: ConnectionRegistry, services: GatewayServices, runner: web.AppRunner
) -> Callable[[], asyncio.Protocol]:
    """What `create_server` makes connections with where orders come in."""
    server = runner.server
    assert server is not None
    return lambda: FastPathConnection(connections, services, server)


def _once(operations: Sequence[Operation]) -> list[Operation]:
    return list({(operation.method, operation.path): operation for operation in operations}.values())


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket that other gateway processes may share: the kernel spreads connections over them."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener
