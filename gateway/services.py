"""Everything a request handler may use, wired once."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import web
from redis.asyncio import Redis

import lua
from commerce.catalog.service import Catalog
from commerce.dead_letters.service import DeadLetters
from commerce.fleet.route_execution import RouteExecution
from commerce.fleet.service import Fleet
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.printing import DocumentPrinter
from commerce.fulfilment.service import Fulfilment as ShippingDesk
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Connection, Database
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from commerce.kernel.startup import connect_databases
from commerce.kernel.tasks import cancel_and_wait
from commerce.orders.persistence import persist
from commerce.orders.pricing import OrderLimits
from commerce.orders.service import Orders
from commerce.payments.provider_port import Provider
from commerce.payments.providers import open_providers
from commerce.payments.service import Payments
from commerce.rates.service import Rates
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from commerce.shipping.carrier_port import CarrierRegistry, TrackingEvent
from commerce.shipping.carriers import open_carriers
from commerce.shipping.service import Shipping
from config.settings import Settings
from gateway import metrics
from gateway.admission import Admission
from gateway.auth import Authenticator
from gateway.change_watcher import ChangeWatcher
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_intake import OrderIntake
from gateway.order_placement import OrderPlacement
from gateway.sale_snapshots import SaleSnapshots
from lua import SaleKeys

_logger = logging.getLogger(__name__)
_BACKLOG_EVERY_S = 0.25
_CARRY_OVER_EVERY_S = 1.0


class RequestIdGenerator:
    """Names for requests that bring none: unique over processes, and cheap."""

    def __init__(self) -> None:
        self._process = secrets.token_hex(4)
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"{self._process}-{self._count:x}"


@dataclass(frozen=True, slots=True)
class GatewayServices:
    """One of each; `stopping` is set when the process is to end."""

    settings: Settings
    clock: Clock
    ids: IdGenerator
    db: Database
    redis: Redis
    auth: Authenticator
    admission: Admission
    snapshots: SaleSnapshots
    intake: OrderIntake
    placement: OrderPlacement
    metrics_buffer: MetricsBuffer
    request_ids: RequestIdGenerator
    catalog: Catalog
    sales: Sales
    stock: StockChanges
    orders: Orders
    payments: Payments
    providers: dict[str, Provider]
    shipping: Shipping
    carriers: CarrierRegistry
    fulfilment: ShippingDesk
    printing: DocumentPrinter
    rates: Rates
    fleet: Fleet
    route_execution: RouteExecution
    dead_letters: DeadLetters
    watcher: ChangeWatcher
    stopping: asyncio.Event


SERVICES = web.AppKey("services", GatewayServices)
REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
ORDER_ID = web.RequestKey("order_id", str)
"""of an order that this request is about, for the log"""


def services_of(request: web.Request) -> GatewayServices:
    """The services of the application that handles this request."""
    return request.app[SERVICES]


@asynccontextmanager
async def open_gateway_services(settings: Settings) -> AsyncIterator[GatewayServices]:
    """Connect, check that the servers are what they should be, and keep up with them until the end.

    Raises `NotReady` (Redis does not keep what is promised, a migration is missing) before anything listens.
    """
    limits, clock = settings.limits, SystemClock()
    async with AsyncExitStack() as stack:
        redis, db = await stack.enter_async_context(connect_databases(settings, "gateway"))
        driver = settings.jobs
        policy = RetryPolicy.from_settings(driver)
        sales, orders, admission = Sales(db, redis, clock), Orders(db, redis, clock), Admission(limits, clock)
        snapshots = SaleSnapshots(sales, clock)
        await snapshots.refresh()
        link = RedisMultiplexer(
            settings.redis(),
            timeout_s=limits.redis_call_timeout_ms / 1000,
            name="intake",
            required_durability=(settings.durability, settings.replicas),
        )
        stack.push_async_callback(link.close)
        await link.execute_command("PING")
        ids, tally = IdGenerator(clock), MetricsBuffer()
        providers = await stack.enter_async_context(
            open_providers(settings.payments, clock, timeout_s=driver.call_timeout_s, connections=4)
        )
        intake = OrderIntake(redis, link, settings, clock, admission, tally, snapshots.ids_with_live_keys)
        carriers = await stack.enter_async_context(
            open_carriers(settings.shipping, clock, timeout_s=driver.call_timeout_s, connections=1)
        )
        rates, shipping = Rates(db, clock), Shipping(db, clock, settings.shipping)
        assigning, zone = CarrierAssignment(rates, carriers, settings.shipping), ZoneInfo(settings.shipping.timezone)
        parcels = ShippingDesk(db, clock, ids, assigning, carriers, settings.shipping)
        order_limits = OrderLimits(
            limits.lines_per_order, limits.addresses_per_order, limits.payments_per_order, limits.quantity_per_line
        )
        services = GatewayServices(
            settings=settings,
            clock=clock,
            ids=ids,
            db=db,
            redis=redis,
            auth=Authenticator(settings.auth, clock),
            admission=admission,
            snapshots=snapshots,
            intake=intake,
            placement=OrderPlacement(settings, clock, ids, redis, snapshots, intake, order_limits),
            metrics_buffer=tally,
            request_ids=RequestIdGenerator(),
            catalog=Catalog(db, clock),
            sales=sales,
            stock=StockChanges(db, redis, clock, policy),
            orders=orders,
            payments=Payments(
                db, clock, ids, providers, settings.payments.expiry_margin_s, Shipping.has_cash_shipments
            ),
            providers=providers,
            shipping=shipping,
            carriers=carriers,
            fulfilment=parcels,
            printing=DocumentPrinter(db, parcels, settings.shipping.timezone),
            rates=rates,
            fleet=Fleet(db, clock, ids, zone, settings.shipping.stop_service_s, settings.shipping.vehicle_speed_kmh),
            route_execution=RouteExecution(db, clock, partial(_hear, shipping)),
            dead_letters=DeadLetters(db, clock, persist),
            watcher=ChangeWatcher(
                {"order": orders.latest_event_seqs, "parcels": shipping.progress}, clock, limits.concurrent_event_streams
            ),
            stopping=asyncio.Event(),
        )
        for follow in (
            snapshots.refresh_forever(),
            services.watcher.poll_forever(),
            _follow_backlog(services),
            _carry_over(services),
        ):
            task = asyncio.create_task(follow)
            stack.push_async_callback(cancel_and_wait, task)
        yield services
        await services.intake.drain()


async def _hear(
    shipping: Shipping,
    connection: Connection,
    shipment_id: UUID,
    news: Sequence[TrackingEvent],
    actor: str,
    now: datetime,
) -> None:
    """What a van's driver reports of a parcel."""
    await shipping.apply_tracking_events(connection, shipment_id, news, "fleet", actor, now)


async def _carry_over(services: GatewayServices) -> None:
    """Bring what was counted into the metrics, once a second."""
    while True:
        services.metrics_buffer.flush()
        metrics.WAITING.set(services.admission.waiting)
        await services.clock.sleep(_CARRY_OVER_EVERY_S)


async def _follow_backlog(services: GatewayServices) -> None:
    """Keep `admission` informed of how many accepted orders wait for the writer."""
    while True:
        try:
            sales = [SaleKeys(sale_id) for sale_id in services.snapshots.loaded()]
            services.admission.backlog = sum(await lua.accepted_counts(services.redis, sales))
        except Exception as error:  # noqa: BLE001  # an order's own call finds out and says what is wrong
            _logger.warning("the backlog cannot be looked at", extra={"why": str(error)})
        await services.clock.sleep(_BACKLOG_EVERY_S)
