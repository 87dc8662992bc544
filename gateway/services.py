"""Everything a request handler uses, wired once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from aiohttp import web
from redis.asyncio import Redis

from commerce.aftersales.case_evidence import CaseEvidence
from commerce.aftersales.return_steps import CaseFollower
from commerce.aftersales.service import Aftersales
from commerce.cancellations.service import Cancellations
from commerce.catalog.products import Products
from commerce.catalog.service import Catalog
from commerce.conversations.service import Conversations
from commerce.dead_letters.service import DeadLetters
from commerce.fleet.route_execution import RouteExecution
from commerce.fleet.service import Fleet
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.printing import DocumentPrinter
from commerce.fulfilment.service import Fulfilment
from commerce.jobs.staff_jobs import StaffJobs
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.connection_shares import use_share
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.kernel.redis_multiplexer import RedisMultiplexer
from commerce.kernel.tasks import cancel_and_wait
from commerce.orders.persistence import persist
from commerce.orders.service import Orders
from commerce.payments.provider_port import Provider
from commerce.payments.service import Payments
from commerce.pictures.shown_pictures import ShownPictures
from commerce.rates.service import Rates
from commerce.return_shipments.return_job_history import JOB_HISTORIES
from commerce.return_shipments.webhook_updates import ReturnShipmentUpdates
from commerce.rights.certificates_port import StaffCertificates
from commerce.sales.sale_freight import SaleFreight
from commerce.sales.sale_promotions import SalePromotions
from commerce.sales.server_adoption import ServerAdoption
from commerce.sales.service import Sales
from commerce.screening.service import Screening
from commerce.shipping.carrier_port import CarrierRegistry
from commerce.shipping.service import Shipping
from commerce.staff_requests.service import StaffRequests
from commerce.training.certificates import QuizCertificates
from commerce.wait_lists.service import WaitLists
from commerce.waiting_rooms.service import WaitingRooms
from commerce.waiting_rooms.tickets import RoomTickets
from config.settings import Settings
from gateway.admission import Admission
from gateway.article_services import ArticleServices
from gateway.auth import Authenticator, room_ticket_key
from gateway.background_loops import (
    adopt_sales_forever,
    adopt_sales_once,
    flush_metrics_forever,
    poll_backlog_forever,
    report_entries_forever,
)
from gateway.category_services import CategoryServices
from gateway.change_watcher import ChangeWatcher, build_watcher
from gateway.client_addresses import ClientAddresses
from gateway.database_shares import open_databases
from gateway.dependency_checks import DatabaseMonitor, SharedCheck, build_redis_check
from gateway.expected_refusals import ExpectedRefusals
from gateway.external_connections import open_connections
from gateway.fast_path_responses import BatchResponseTemplate, ResponseHeads
from gateway.fast_reads import FastReads, build_fast_reads
from gateway.fleet_services import build_fleet, build_route_execution
from gateway.fleet_usage import FleetUsage
from gateway.known_keys import KnownKeys
from gateway.load_shedding import LoadShedder
from gateway.metrics_buffer import MetricsBuffer
from gateway.order_intake import OrderIntake
from gateway.order_placement import ORDERS_PATH, OrderPlacement
from gateway.order_turns import OrderTurns
from gateway.picture_services import PictureServices
from gateway.product_services import ProductFileSlots, ProductServices, build_products
from gateway.proof_of_work import ProofOfWork
from gateway.public_pages import PublicPages
from gateway.refused_orders import RefusedOrders
from gateway.request_head import HeadParser
from gateway.request_ids import RequestIdGenerator
from gateway.resting_connections import RestingConnections
from gateway.return_services import ReturnServices, build_returns
from gateway.room_entrance import RoomEntrance
from gateway.room_joins import RoomJoins
from gateway.room_status import RoomStatus
from gateway.sale_snapshots import SaleSnapshots
from gateway.sale_stock import SaleStock, build_stock
from gateway.screening_actions import ScreeningActions, open_screening
from gateway.screening_signals import ScreeningSignals
from gateway.search_services import SearchServices
from gateway.shopping import Shopping, build_shopping
from gateway.uploads import UploadSlots
from gateway.wait_list_entrance import WaitListEntrance, open_wait_lists


@dataclass(frozen=True, slots=True)
class GatewayServices:
    """Everything that request handlers use. `stopping` is set when the process is to end."""

    settings: Settings
    clock: Clock
    ids: IdGenerator
    db: Database
    redis: Redis
    auth: Authenticator
    admission: Admission
    shedder: LoadShedder
    known_keys: KnownKeys
    order_turns: OrderTurns
    resting: RestingConnections
    expected_refusals: ExpectedRefusals
    snapshots: SaleSnapshots
    intake: OrderIntake
    adoption: ServerAdoption
    placement: OrderPlacement
    metrics_buffer: MetricsBuffer
    response_heads: ResponseHeads
    batch_template: BatchResponseTemplate
    fast_reads: FastReads
    public_pages: PublicPages
    catalog: Catalog
    sales: Sales
    rooms: WaitingRooms
    room_status: RoomStatus
    refused_orders: RefusedOrders
    room_entrance: RoomEntrance
    screening: Screening
    screening_signals: ScreeningSignals
    screening_actions: ScreeningActions
    wait_lists: WaitListEntrance
    shopping: Shopping
    stock: SaleStock
    orders: Orders
    staff_requests: StaffRequests
    payments: Payments
    providers: dict[str, Provider]
    shipping: Shipping
    carriers: CarrierRegistry
    fulfilment: Fulfilment
    printing: DocumentPrinter
    sale_freight: SaleFreight
    fleet: Fleet
    route_execution: RouteExecution
    dead_letters: DeadLetters
    jobs: StaffJobs
    watcher: ChangeWatcher
    client_addresses: ClientAddresses
    redis_check: SharedCheck
    database_monitor: DatabaseMonitor
    stopping: asyncio.Event
    uploads: UploadSlots = field(default_factory=UploadSlots)
    request_ids: RequestIdGenerator = field(default_factory=RequestIdGenerator)
    head_parser: HeadParser = field(default_factory=HeadParser)
    articles: ArticleServices = field(init=False)
    categories: CategoryServices = field(init=False)
    certificates: StaffCertificates = field(init=False)
    pictures: PictureServices = field(init=False)
    search: SearchServices = field(init=False)
    product_files: ProductFileSlots = field(default_factory=ProductFileSlots)

    def __post_init__(self) -> None:
        object.__setattr__(self, "articles", ArticleServices(self.settings, self.db, self.clock, self.ids))
        object.__setattr__(self, "categories", CategoryServices(self.db, self.clock))
        object.__setattr__(self, "certificates", QuizCertificates(self.clock))
        object.__setattr__(self, "pictures", PictureServices(self.settings, self.db, self.clock, self.ids))
        object.__setattr__(self, "search", self._build_search())

    def _build_search(self) -> SearchServices:
        return SearchServices(
            *(self.settings.catalog, self.db, self.clock, self.sales, self.snapshots, self.public_pages),
            *(self.admission, self.settings.product_index_socket()),
        )

    @property
    def product_services(self) -> ProductServices:
        return build_products(self.db, self.clock, self.ids, self.settings.quality)

    @property
    def aftersales(self) -> Aftersales:
        zone = ZoneInfo(self.settings.shipping.timezone)
        return Aftersales(self.db, self.clock, self.ids, self.settings.aftersales, zone, self.redis)

    @property
    def cancellations(self) -> Cancellations:
        return Cancellations(
            *(self.db, self.clock, self.ids, self.orders, self.carriers),
            *(self.settings.shipping, self.settings.aftersales),
        )

    @property
    def evidence(self) -> CaseEvidence:
        settings = self.settings
        return CaseEvidence(self.db, self.clock, self.ids, settings.aftersales, settings.data_dir)

    @property
    def conversations(self) -> Conversations:
        policies = self.settings.conversations, self.settings.aftersales
        return Conversations(self.db, self.clock, self.ids, *policies, self.settings.data_dir)

    @property
    def returns(self) -> ReturnServices:
        policies = self.settings.shipping, self.settings.aftersales
        return build_returns(self.db, self.clock, self.ids, self.carriers, *policies)

    @property
    def promotions(self) -> SalePromotions:
        return SalePromotions(
            *(self.db, self.sales, self.stock.changes, self.clock, self.ids), self.settings.limits.promotions_per_sale
        )


SERVICES = web.AppKey("services", GatewayServices)
REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
ORDER_ID = web.RequestKey("order_id", str)  # of the order that a request is about, for the log


def services_of(request: web.Request) -> GatewayServices:
    """Return the services of the application that handles this request."""
    return request.app[SERVICES]


@asynccontextmanager
async def open_gateway_services(settings: Settings) -> AsyncIterator[GatewayServices]:
    """Connect, check Redis and Postgres, start the background loops, and drain the intake at the end.

    Raises `NotReady` before anything listens if Redis is not as durable as promised or a migration is missing.
    """
    async with AsyncExitStack() as stack:
        services = await _build_services(stack, settings)
        stack.push_async_callback(services.fast_reads.close)
        stack.push_async_callback(services.categories.close)
        stack.push_async_callback(services.search.close)
        clock, admission, snapshots = services.clock, services.admission, services.snapshots
        with use_share("background"):
            await adopt_sales_once(services.adoption, snapshots, services.intake)  # before the gateway is ready
            await services.articles.warn_of_missing_quizzes(settings.support.certificates)
            for loop in (
                snapshots.refresh_forever(),
                services.room_status.refresh_forever(),
                services.screening_actions.refresh_forever(),
                services.screening_signals.export_forever(),
                services.wait_lists.status.refresh_forever(),
                services.watcher.poll_forever(),
                services.articles.live.refresh_forever(),
                services.public_pages.visits.export_forever(services.db, clock),
                adopt_sales_forever(services.adoption, snapshots, services.intake),
                report_entries_forever(services.adoption, services.intake, clock),
                services.database_monitor.poll_forever(),
                poll_backlog_forever(services.redis, snapshots, admission, clock),
                services.resting.resume_forever(),
                FleetUsage(
                    services.redis, admission.rate_limits, services.refused_orders, clock, services.ids.new().bytes
                ).exchange_forever(),
                flush_metrics_forever(services.metrics_buffer, admission, services.resting, services.db.shares, clock),
            ):
                stack.push_async_callback(cancel_and_wait, asyncio.create_task(loop))
        yield services
        await services.intake.drain()
        await services.screening_signals.export_rest()
        await services.public_pages.visits.export_rest(services.db, clock)


async def _build_services(stack: AsyncExitStack, settings: Settings) -> GatewayServices:
    limits, clock, refused_orders, stopping = settings.limits, SystemClock(), RefusedOrders(), asyncio.Event()
    ids, metrics_buffer, response_heads = IdGenerator(clock), MetricsBuffer(), ResponseHeads()
    redis, db, changes = await stack.enter_async_context(open_databases(settings, metrics_buffer, clock))
    sales, orders, admission = Sales(db, redis, clock), Orders(db, redis, clock), Admission(limits, clock)
    auth, catalog, known_keys = Authenticator(settings.auth, clock), Catalog(db, clock), KnownKeys(settings.metrics_dir)
    snapshots, rooms = await _open_snapshots(sales, clock), WaitingRooms(db, sales, clock)
    wait_lists = await open_wait_lists(settings, WaitLists(db, redis, sales, clock), snapshots, clock)
    room_status = await _open_rooms(settings, rooms, refused_orders, clock)
    public_pages = PublicPages(snapshots, sales, catalog, Products(db, clock), ShownPictures(db), clock)
    read_from = (stack, limits, clock, auth, snapshots, public_pages, orders, room_status, wait_lists.status)
    fast_reads = build_fast_reads(*read_from, response_heads, metrics_buffer, stopping)
    screening, signals, actions = await open_screening(settings, db, clock)
    link, providers, carriers = await open_connections(stack, settings, clock)
    intake = OrderIntake(redis, link, settings, clock, admission, metrics_buffer, snapshots.ids_with_live_keys)
    shipping, fulfilment = _build_fulfilment(settings, db, clock, ids, carriers)
    placement = OrderPlacement(settings, clock, ids, redis, snapshots, intake, orders, public_pages.visits)
    return GatewayServices(
        settings=settings,
        clock=clock,
        ids=ids,
        db=db,
        redis=redis,
        auth=auth,
        admission=admission,
        shedder=LoadShedder(admission, auth, known_keys, room_status, response_heads),
        known_keys=known_keys,
        order_turns=OrderTurns(admission),
        resting=RestingConnections(admission.is_overloaded),
        expected_refusals=ExpectedRefusals(link, snapshots, clock, response_heads, public_pages.visits),
        snapshots=snapshots,
        intake=intake,
        adoption=ServerAdoption(db, redis, clock),
        placement=placement,
        metrics_buffer=metrics_buffer,
        response_heads=response_heads,
        batch_template=BatchResponseTemplate(response_heads, ORDERS_PATH),
        fast_reads=fast_reads,
        public_pages=public_pages,
        catalog=catalog,
        sales=sales,
        rooms=rooms,
        room_status=room_status,
        refused_orders=refused_orders,
        room_entrance=_build_entrance(settings, room_status, link, signals, actions, clock),
        screening=screening,
        screening_signals=signals,
        screening_actions=actions,
        wait_lists=wait_lists,
        shopping=build_shopping(settings, db, clock, ids, snapshots, public_pages, placement, redis, providers),
        stock=build_stock(settings, db, redis, sales, ids, clock),
        orders=orders,
        staff_requests=StaffRequests(db, clock),
        payments=Payments(db, clock, ids, providers, settings.payments, Shipping.has_cash_shipments),
        providers=providers,
        shipping=shipping,
        carriers=carriers,
        fulfilment=fulfilment,
        printing=DocumentPrinter(db, fulfilment, settings.shipping.timezone),
        sale_freight=SaleFreight(db, sales, clock),
        fleet=build_fleet(settings, db, clock, ids),
        route_execution=build_route_execution(db, clock, shipping),
        dead_letters=DeadLetters(db, redis, clock, persist),
        jobs=StaffJobs(db, clock, settings.jobs.lease_s, JOB_HISTORIES),
        watcher=build_watcher(orders, shipping, db, changes, clock, limits),
        client_addresses=ClientAddresses(settings.http, admission.rate_limits.addresses),
        redis_check=build_redis_check(redis, link, settings, clock),
        database_monitor=DatabaseMonitor(settings.database(), clock),
        stopping=stopping,
    )


async def _open_snapshots(sales: Sales, clock: Clock) -> SaleSnapshots:
    """Read the sales before the first order."""
    snapshots = SaleSnapshots(sales, clock)
    await snapshots.refresh()
    return snapshots


async def _open_rooms(
    settings: Settings, rooms: WaitingRooms, refused_orders: RefusedOrders, clock: Clock
) -> RoomStatus:
    """Read the waiting rooms before an order could pass one by."""
    key = room_ticket_key(settings.auth)
    tickets = RoomTickets(key) if key else None
    status = RoomStatus(rooms, clock, tickets, refused_orders, settings.limits.concurrent_draw_downloads)
    await status.refresh()
    return status


def _build_fulfilment(
    settings: Settings, db: Database, clock: Clock, ids: IdGenerator, carriers: CarrierRegistry
) -> tuple[Shipping, Fulfilment]:
    """Build the services that send shipments."""
    shipping = Shipping(db, clock, settings.shipping, ReturnShipmentUpdates(CaseFollower(ids, settings.aftersales)))
    assignment = CarrierAssignment(Rates(db, clock), carriers, settings.shipping)
    return shipping, Fulfilment(db, clock, ids, assignment, carriers, settings.shipping)


def _build_entrance(
    settings: Settings,
    room_status: RoomStatus,
    link: RedisMultiplexer,
    signals: ScreeningSignals,
    actions: ScreeningActions,
    clock: Clock,
) -> RoomEntrance:
    """Build the entrance of waiting rooms."""
    proofs = ProofOfWork(room_ticket_key(settings.auth), link, settings.screening, clock)
    return RoomEntrance(room_status, RoomJoins(link, settings), signals, actions, proofs, clock)
