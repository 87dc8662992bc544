"""Services that the commands of `floodgate` use: CliServices and its opening functions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from redis.asyncio import Redis

from commerce.aftersales.service import Aftersales
from commerce.audit.service import Audit
from commerce.cancellations.service import Cancellations
from commerce.catalog.prices import Prices
from commerce.catalog.product_store import move_products
from commerce.catalog.product_variants import ProductVariants
from commerce.catalog.products import Products
from commerce.catalog.service import Catalog
from commerce.categories.service import Categories
from commerce.categories.taxonomy_import import TaxonomyImport
from commerce.conversations.service import Conversations
from commerce.coupons.service import Coupons
from commerce.dead_letters.service import DeadLetters
from commerce.fleet.service import Fleet
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.service import Fulfilment
from commerce.jobs.staff_jobs import StaffJobs
from commerce.jobs.wake_ups import open_wake_ups
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from commerce.knowledge.service import Knowledge
from commerce.ledger.service import Ledger
from commerce.orders.persistence import persist
from commerce.orders.service import Orders
from commerce.payments.service import Payments
from commerce.pictures.picture_policy import open_picture_files
from commerce.pictures.service import ProductPictures
from commerce.product_imports.export import ProductExport
from commerce.product_imports.service import ProductImports
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.publishing_gate import PublishingGate
from commerce.product_search.indexer import ProductIndexer
from commerce.rates.service import Rates
from commerce.return_shipments.return_job_history import JOB_HISTORIES
from commerce.sale_changes.service import SaleChanges
from commerce.sales.sale_freight import SaleFreight
from commerce.sales.sale_promotions import SalePromotions
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from commerce.screening.service import Screening
from commerce.shipping.carriers import open_carriers
from commerce.shipping.service import Shipping
from commerce.training.service import Training
from commerce.wait_lists.service import WaitLists
from commerce.waiting_rooms.service import WaitingRooms
from config.settings import Settings, load
from gateway.auth import ROLES, build_issued_codes


@dataclass(frozen=True, slots=True)
class CliServices:
    """Connections and services of one command."""

    settings: Settings
    clock: Clock
    ids: IdGenerator
    db: Database
    redis: Redis
    catalog: Catalog
    sales: Sales
    sale_changes: SaleChanges
    rooms: WaitingRooms
    screening: Screening
    wait_lists: WaitLists
    promotions: SalePromotions
    stock: StockChanges
    coupons: Coupons
    orders: Orders
    dead_letters: DeadLetters
    audit: Audit
    jobs: StaffJobs
    ledger: Ledger
    payments: Payments
    shipping: Shipping
    rates: Rates
    sale_freight: SaleFreight

    @property
    def publishing_gate(self) -> PublishingGate:
        policy = self.settings.quality
        return PublishingGate(ProductGrading(self.db, self.clock, policy), policy.publish_from)

    @property
    def products(self) -> Products:
        return Products(self.db, self.clock, self.publishing_gate.check)

    @property
    def product_variants(self) -> ProductVariants:
        return ProductVariants(self.db, self.clock)

    @property
    def prices(self) -> Prices:
        return Prices(self.db, self.clock, self.ids)

    @property
    def aftersales(self) -> Aftersales:
        zone = ZoneInfo(self.settings.shipping.timezone)
        return Aftersales(self.db, self.clock, self.ids, self.settings.aftersales, zone, self.redis)

    @property
    def categories(self) -> Categories:
        return Categories(self.db, self.clock, move_products)

    @property
    def taxonomies(self) -> TaxonomyImport:
        return TaxonomyImport(self.db, self.clock)

    @property
    def knowledge(self) -> Knowledge:
        return Knowledge(self.db, self.clock, ZoneInfo(self.settings.shipping.timezone))

    @property
    def conversations(self) -> Conversations:
        policies = self.settings.conversations, self.settings.aftersales
        return Conversations(self.db, self.clock, self.ids, *policies, self.settings.data_dir)

    @property
    def pictures(self) -> ProductPictures:
        policy = self.settings.pictures
        files = open_picture_files(policy, self.settings.data_dir)
        return ProductPictures(self.db, self.clock, self.ids, policy, files)

    @property
    def product_indexer(self) -> ProductIndexer:
        return ProductIndexer(self.db, self.clock)

    @property
    def product_imports(self) -> ProductImports:
        return ProductImports(self.db, self.clock, self.ids, self.publishing_gate.check)

    @property
    def product_export(self) -> ProductExport:
        return ProductExport(self.db)

    @property
    def training(self) -> Training:
        return Training(self.db, self.clock, ZoneInfo(self.settings.shipping.timezone), ROLES)


@asynccontextmanager
async def open_cli_services(settings: Settings | None = None) -> AsyncIterator[CliServices]:
    """Connect to Redis and Postgres and build the services on them.

    Without `settings` they are loaded from the environment. Durability is not verified: commands also run against a
    server that workers refuse. Raises `SettingsError` or `NotReady` if the settings or the schema do not fit.
    """
    settings = settings or load()
    clock = SystemClock()
    ids = IdGenerator(clock)
    async with AsyncExitStack() as stack:
        redis, db = await stack.enter_async_context(connect_databases(settings, "ops", verify_durability=False))
        await stack.enter_async_context(open_wake_ups(redis, db))
        sales = Sales(db, redis, clock)
        stock = StockChanges(db, redis, clock, RetryPolicy.from_settings(settings.jobs))
        yield CliServices(
            settings=settings,
            clock=clock,
            ids=ids,
            db=db,
            redis=redis,
            catalog=Catalog(db, clock),
            sales=sales,
            sale_changes=SaleChanges(db, redis, sales, clock),
            rooms=WaitingRooms(db, sales, clock),
            screening=Screening(db, clock),
            wait_lists=WaitLists(db, redis, sales, clock),
            promotions=SalePromotions(db, sales, stock, clock, ids, settings.limits.promotions_per_sale),
            stock=stock,
            coupons=Coupons(db, redis, sales, stock, ids, clock, build_issued_codes(settings.auth)),
            orders=Orders(db, redis, clock),
            dead_letters=DeadLetters(db, redis, clock, persist),
            audit=Audit(db, redis, clock),
            jobs=StaffJobs(db, clock, settings.jobs.lease_s, JOB_HISTORIES),
            # No providers: commands start no payments. Calls to a provider are rows for the payment worker.
            ledger=Ledger(db, clock),
            payments=Payments(db, clock, ids, {}, settings.payments, Shipping.has_cash_shipments),
            shipping=Shipping(db, clock, settings.shipping),
            rates=Rates(db, clock),
            sale_freight=SaleFreight(db, sales, clock),
        )


@asynccontextmanager
async def open_fulfilment(shop: CliServices) -> AsyncIterator[Fulfilment]:
    """Open the fulfilment service with the carriers that the settings name.

    No carrier is called: a call is recorded as a row for the fulfilment worker. Raises `NotReady` if the carrier
    settings cannot be used.
    """
    policy, timeout_s = shop.settings.shipping, shop.settings.jobs.call_timeout_s
    async with open_carriers(policy, shop.clock, timeout_s=timeout_s, connections=1) as carriers:
        yield Fulfilment(
            shop.db, shop.clock, shop.ids, CarrierAssignment(shop.rates, carriers, policy), carriers, policy
        )


@asynccontextmanager
async def open_cancellations(shop: CliServices) -> AsyncIterator[Cancellations]:
    """Open the service that cancels orders, with the carriers of the settings. None of them is called."""
    policy, timeout_s = shop.settings.shipping, shop.settings.jobs.call_timeout_s
    async with open_carriers(policy, shop.clock, timeout_s=timeout_s, connections=1) as carriers:
        yield Cancellations(shop.db, shop.clock, shop.ids, shop.orders, carriers, policy, shop.settings.aftersales)


def create_fleet(shop: CliServices) -> Fleet:
    """Return the route planning service with the settings of shipping."""
    shipping = shop.settings.shipping
    return Fleet(
        shop.db,
        shop.clock,
        shop.ids,
        ZoneInfo(shipping.timezone),
        shipping.stop_service_s,
        shipping.vehicle_speed_kmh,
    )
