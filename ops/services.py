"""CliServices: the services that commands of the command line use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from commerce.audit.service import Audit
from commerce.catalog.service import Catalog
from commerce.dead_letters.service import DeadLetters
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from commerce.orders.service import Orders
from commerce.payments.service import Payments
from commerce.rates.service import Rates
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from commerce.shipping.carriers import open_carriers
from commerce.shipping.service import Shipping
from config.settings import Settings, load


@dataclass(frozen=True, slots=True)
class CliServices:
    """What a command may use."""

    settings: Settings
    clock: Clock
    ids: IdGenerator
    db: Database
    redis: Redis
    catalog: Catalog
    sales: Sales
    stock: StockChanges
    orders: Orders
    dead_letters: DeadLetters
    audit: Audit
    payments: Payments
    shipping: Shipping
    rates: Rates


@asynccontextmanager
async def open_cli_services(settings: Settings | None = None) -> AsyncIterator[CliServices]:
    """Connect to the shop that the settings name."""
    settings = settings or load()
    driver, clock = settings.jobs, SystemClock()
    async with AsyncExitStack() as stack:
        redis, db = await stack.enter_async_context(connect_databases(settings, "ops", keep=False))
        policy = RetryPolicy.from_settings(driver)
        yield CliServices(
            settings=settings,
            clock=clock,
            ids=IdGenerator(clock),
            db=db,
            redis=redis,
            catalog=Catalog(db, clock),
            sales=Sales(db, redis, clock),
            stock=StockChanges(db, redis, clock, policy),
            orders=Orders(db, redis, clock),
            dead_letters=DeadLetters(db, clock),
            audit=Audit(db, redis, clock),
            # Without providers: commands start no payments, and what is to be done outside is a row for the driver.
            payments=Payments(
                db, clock, IdGenerator(clock), {}, settings.payments.expiry_margin_s, Shipping.has_cash_shipments
            ),
            shipping=Shipping(db, clock, settings.shipping),
            rates=Rates(db, clock),
        )


@asynccontextmanager
async def open_fulfilment(shop: CliServices) -> AsyncIterator[Fulfilment]:
    """The shipping desk, with the carriers that the settings name. None of them is called: that is a row for the
    driver. Raises `NotReady` where what was agreed with them cannot be used."""
    rules, timeout_s = shop.settings.shipping, shop.settings.jobs.call_timeout_s
    async with open_carriers(rules, shop.clock, timeout_s=timeout_s, connections=1) as carriers:
        yield Fulfilment(shop.db, shop.clock, shop.ids, CarrierAssignment(shop.rates, carriers, rules), carriers, rules)
