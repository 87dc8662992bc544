"""The HTTP server: operations on their ports, around the services; start and stop."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from http import HTTPStatus
from importlib.metadata import version
from time import perf_counter
from typing import cast

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from commerce.kernel.bind import explain_bind_errors
from commerce.kernel.errors import NotReady, OutcomeUnknown, ProblemError
from commerce.kernel.gc_tuning import tune_garbage_collector
from commerce.kernel.outages import DATABASES_UNAVAILABLE
from commerce.kernel.postgres import safe_error_text
from commerce.kernel.stop_signals import stop_on_signals
from commerce.kernel.tasks import cancel_and_wait
from config.settings import LimitSettings, Settings
from gateway import openapi, problems
from gateway.aiohttp_handler import SERVER
from gateway.compiled import order_path_form
from gateway.connections import ConnectionRegistry
from gateway.endpoints import (
    addresses,
    admin,
    article_editing,
    articles,
    cancellations,
    cart,
    case_rules,
    cases,
    catalog,
    categories,
    checkout,
    conversations,
    coupons,
    delivery_routes,
    freight,
    fulfilment,
    health,
    jobs,
    ledger,
    order_search,
    orders,
    payments,
    pictures,
    product_imports,
    product_prices,
    product_quality,
    product_search,
    products,
    promotions,
    refunds,
    return_receipts,
    return_shipments,
    returns,
    sale_changes,
    sales_reports,
    screening,
    shipments,
    stock,
    stuck_refunds,
    support,
    support_deadlines,
    support_reports,
    support_setup,
    training,
    wait_lists,
    waiting_rooms,
    webhooks,
)
from gateway.fast_path import FastPathConnection
from gateway.operations import Operation
from gateway.order_placement import ORDERS_PATH
from gateway.proxy_protocol import ProxiedConnections
from gateway.services import ORDER_ID, REQUEST_ID, REQUEST_ID_PATTERN, SERVICES, GatewayServices, open_gateway_services

_logger = logging.getLogger(__name__)
_READ_METHODS = ("GET", "HEAD")

PUBLIC = [
    *orders.OPERATIONS,
    *cancellations.OPERATIONS,
    *payments.OPERATIONS,
    *stuck_refunds.OPERATIONS,
    *shipments.OPERATIONS,
    *returns.OPERATIONS,
    *return_shipments.OPERATIONS,
    *conversations.OPERATIONS,
    *webhooks.OPERATIONS,
    *delivery_routes.OPERATIONS,
    *catalog.OPERATIONS,
    *categories.OPERATIONS,
    *products.OPERATIONS,
    *product_search.OPERATIONS,
    *pictures.OPERATIONS,
    *articles.OPERATIONS,
    *waiting_rooms.OPERATIONS,
    *wait_lists.OPERATIONS,
    *addresses.OPERATIONS,
    *cart.OPERATIONS,
    *checkout.OPERATIONS,
    *health.HEALTH,
]
ADMIN = [
    *admin.OPERATIONS,
    *categories.ADMIN,
    *products.ADMIN,
    *product_quality.ADMIN,
    *product_prices.ADMIN,
    *cancellations.ADMIN,
    *coupons.ADMIN,
    *sale_changes.ADMIN,
    *stock.ADMIN,
    *screening.ADMIN,
    *jobs.ADMIN,
    *promotions.ADMIN,
    *freight.ADMIN,
    *pictures.ADMIN,
    *product_imports.ADMIN,
    *wait_lists.ADMIN,
    *payments.ADMIN,
    *refunds.ADMIN,
    *stuck_refunds.ADMIN,
    *ledger.ADMIN,
    *fulfilment.ADMIN,
    *cases.ADMIN,
    *article_editing.ADMIN,
    *articles.ADMIN,
    *order_search.ADMIN,
    *support_deadlines.ADMIN,
    *support_reports.ADMIN,
    *sales_reports.ADMIN,
    *case_rules.ADMIN,
    *training.ADMIN,
    *return_shipments.ADMIN,
    *return_receipts.ADMIN,
    *support.ADMIN,
    *support_setup.ADMIN,
    *delivery_routes.ADMIN,
    *health.HEALTH,
    *health.METRICS,
]


def build_application(services: GatewayServices, operations: Sequence[Operation]) -> web.Application:
    """Build an application with these operations, their OpenAPI document and its page."""
    app = web.Application(middlewares=[_error_middleware], client_max_size=services.settings.limits.body_bytes)
    app[SERVICES] = services
    app.on_response_prepare.append(_add_common_headers)
    for operation in operations:
        if operation.method == "GET":
            app.router.add_get(operation.path, operation.__call__, expect_handler=_handle_expect)  # and HEAD
        else:
            app.router.add_route(operation.method, operation.path, operation.__call__, expect_handler=_handle_expect)
    _refuse_other_methods(app, operations)
    for path, body, content_type in _build_pages(operations, services.settings.limits):
        app.router.add_get(path, _constant_handler(body, content_type), expect_handler=_handle_expect)
    return app


def _build_pages(operations: Sequence[Operation], limits: LimitSettings) -> list[tuple[str, bytes, str]]:
    """Return path, body and content type of the OpenAPI document and its page."""
    document = openapi.build_document(operations, limits, version("floodgate"))
    return [
        ("/openapi.json", msgspec.json.encode(document), "application/json"),
        ("/docs", openapi.render_page(document).encode(), "text/html"),
    ]


def _refuse_other_methods(app: web.Application, operations: Sequence[Operation]) -> None:
    """Refuse what would reach a template through a literal path: `GET /v1/orders/quote` reads no order."""
    methods: defaultdict[str, set[str]] = defaultdict(set)
    for operation in operations:
        methods[operation.path].add(operation.method)
    templates: defaultdict[int, list[tuple[list[str], set[str]]]] = defaultdict(list)  # by number of parts
    for path in methods:
        if "{" in path:
            parts = path.split("/")
            templates[len(parts)].append((parts, methods[path]))
    for path, allowed in methods.items():
        if "{" in path:
            continue
        parts = path.split("/")
        if any(others - allowed and _fits(parts, template) for template, others in templates[len(parts)]):
            app.router.add_route("*", path, _refusing_handler(allowed), expect_handler=_handle_expect)


def _fits(parts: Sequence[str], template: Sequence[str]) -> bool:
    """Tell whether a literal path is one of those of a template with as many parts."""
    return all(other.startswith("{") or part == other for part, other in zip(parts, template, strict=True))


def _refusing_handler(allowed: AbstractSet[str]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def refuse(request: web.Request) -> web.StreamResponse:
        raise web.HTTPMethodNotAllowed(request.method, {*allowed, "HEAD"} if "GET" in allowed else allowed)

    return refuse


def _constant_handler(body: bytes, content_type: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset="utf-8" if "html" in content_type else None)

    return handle


async def _handle_expect(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the final answer is written later
        return None
    detail = "cannot meet the Expect header: only 100-continue is supported; leave it out"
    return problems.from_status(417, detail, _request_id(request))


def _request_id(request: web.Request) -> str:
    """Return the request's id: the client's if it is well-formed, else a new one that is kept."""
    if REQUEST_ID not in request:
        sent = request.headers.get("X-Request-Id")
        services = request.app[SERVICES]
        request[REQUEST_ID] = sent if sent and REQUEST_ID_PATTERN.fullmatch(sent) else services.request_ids.new()
    return request[REQUEST_ID]


async def _add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every answer has, streams included."""
    response.headers["X-Request-Id"] = _request_id(request)
    response.headers["Server"] = SERVER


@web.middleware
async def _error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem, and count the request."""
    started = perf_counter()
    services, request_id = request.app[SERVICES], _request_id(request)
    try:
        response = await handler(request)
    except ProblemError as error:
        response = problems.from_refusal(error, request_id)
        if request.method == "POST" and request.path == ORDERS_PATH:
            services.metrics_buffer.count_order(error.code)
    except web.HTTPException as error:
        response = problems.from_http(error, request_id)
    except DATABASES_UNAVAILABLE as error:
        response = problems.from_refusal(_dependency_problem(request, error), request_id)
    except Exception:
        _logger.exception("a request failed", extra=_context(request))
        response = problems.internal_error(request_id)
    if response.status == HTTPStatus.REQUEST_TIMEOUT or services.stopping.is_set():
        response.force_close()  # the start of the next request is unknown, or this process stops before it
    if response.status >= 500:
        _logger.warning("answered with a server error", extra={**_context(request), "status": response.status})
    resource = request.match_info.route.resource
    route = resource.canonical if resource else "none"
    services.metrics_buffer.count_request(
        route, request.method if resource else "any", response.status, perf_counter() - started
    )
    return response


def _dependency_problem(request: web.Request, error: BaseException) -> ProblemError:
    """Log a lost database and choose the problem: an unsafe request may have been done."""
    _logger.warning(
        "a dependency failed during a request", extra={**_context(request), "reason": safe_error_text(error)}
    )
    if request.method in _READ_METHODS:
        return NotReady(problems.UNAVAILABLE_TO_READ)
    return OutcomeUnknown(
        "a database became unavailable during the request; it may have been done: check before you repeat it"
    )


def _context(request: web.Request) -> dict[str, str]:
    # A driver's link opens its route for anybody who reads it, so its token is not logged.
    resource = request.match_info.route.resource
    path = resource.canonical if resource and "token" in request.match_info else request.path
    context = {"request_id": request[REQUEST_ID], "method": request.method, "path": path}
    if order_id := request.get(ORDER_ID):
        context["order_id"] = order_id
    if traceparent := request.headers.get("traceparent"):
        context["traceparent"] = traceparent[:64]
    return context


async def serve(settings: Settings) -> None:
    """Run one gateway process until SIGTERM, SIGINT or SIGHUP. Requests in progress are finished."""
    stop = asyncio.Event()
    stop_on_signals(stop)
    http = settings.http
    one_port = (http.host, http.port) == (http.admin_host, http.admin_port)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_gateway_services(settings))
        public = ConnectionRegistry(settings.limits, services.clock, services.client_addresses)
        admin_connections = ConnectionRegistry(
            settings.limits, services.clock, port="admin", max_connections=settings.limits.admin_connections
        )
        ports = [(http.host, http.port, [*PUBLIC, *ADMIN] if one_port else PUBLIC, public)]
        if not one_port:
            ports.append((http.admin_host, http.admin_port, ADMIN, admin_connections))
        servers = []
        for host, port, operations, connections in ports:
            timeouts = asyncio.create_task(connections.enforce_timeouts_forever())
            stack.push_async_callback(cancel_and_wait, timeouts)
            runner = web.AppRunner(build_application(services, _unique_operations(operations)), access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            is_public = connections is public
            factory = (
                fast_path_factory(connections, services, runner) if is_public else connections.aiohttp_factory(runner)
            )
            with explain_bind_errors(host, port, "FLOODGATE_HTTP__PORT" if is_public else "FLOODGATE_HTTP__ADMIN_PORT"):
                listener = _listen(host, port)
            servers.append(await asyncio.get_running_loop().create_server(factory, sock=listener))
        tune_garbage_collector()
        ports_in_use = {"host": http.host, "port": http.port, "admin_port": http.admin_port}
        _logger.info("listening", extra={**ports_in_use, "order_path": order_path_form()})
        await stop.wait()
        _logger.info("stopping")
        services.stopping.set()
        services.watcher.close()
        for server in servers:
            server.close()
        await asyncio.gather(
            *(registry.close_all(settings.limits.graceful_stop_s) for registry in (public, admin_connections))
        )


def fast_path_factory(
    connections: ConnectionRegistry, services: GatewayServices, runner: web.AppRunner
) -> Callable[[], asyncio.Protocol]:
    """Return the protocol factory of the public port, for `create_server`."""
    server = runner.server
    assert server is not None

    def make_connection() -> FastPathConnection:
        return FastPathConnection(connections, services, server)

    if services.settings.http.proxy_protocol:
        return ProxiedConnections(connections, services.clock, make_connection)
    return cast(Callable[[], asyncio.Protocol], make_connection)  # a protocol, though not by inheritance


def _unique_operations(operations: Sequence[Operation]) -> list[Operation]:
    return list({(operation.method, operation.path): operation for operation in operations}.values())


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket that gateway processes share: the kernel distributes the connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(1024)
    listener.setblocking(False)
    return listener
