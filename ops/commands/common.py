"""What commands share: running async code, reaching the shop, saying errors in one line."""

from __future__ import annotations

import getpass
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import typer
import uvloop
from redis.asyncio import Redis
from rich.console import Console
from rich.markup import escape

from commerce.audit.service import Audit
from commerce.catalog.service import Catalog
from commerce.dead_letters.service import DeadLetters
from commerce.fulfilment.carrier_assignment import CarrierAssignment
from commerce.fulfilment.service import Fulfilment
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.errors import Invalid, ProblemError
from commerce.kernel.ids import IdGenerator
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.postgres import POSTGRES_UNAVAILABLE as DATABASE_DOWN
from commerce.kernel.postgres import Database
from commerce.kernel.redis_client import REDIS_UNAVAILABLE as REDIS_DOWN
from commerce.kernel.startup import connect_databases
from commerce.orders.service import Orders
from commerce.payments.service import Payments
from commerce.rates.service import Rates
from commerce.sales.service import Sales
from commerce.sales.stock_changes import StockChanges
from commerce.shipping.carriers import open_carriers
from commerce.shipping.service import Shipping
from config.settings import Settings, SettingsError, load

Result = TypeVar("Result")
Content = TypeVar("Content")
_FILE_WIDTH = 140  # of what goes into a file or another program, where no terminal says how wide it is
out = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)


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


@contextmanager
def exit_on_error() -> Iterator[None]:
    """An expected refusal ends the command with one line and status 1, not with a traceback."""
    try:
        yield
    except (ProblemError, SettingsError) as error:
        fail(str(error))
    except (*DATABASE_DOWN, *REDIS_DOWN) as error:
        fail(f"a database cannot be reached: {error or type(error).__name__}")


def fail(message: str) -> None:
    """Say what is wrong on standard error and end with status 1."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code to its end, with errors in plain words."""
    with exit_on_error():
        return uvloop.run(work)
    raise AssertionError  # plain_errors ends the command


def parse_argument(given: object, kind: type[Content], otherwise: str | None = None) -> Content:
    """Words from the command line as what they should be. Raises `Invalid`, which says `otherwise`."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Invalid(otherwise or str(error)) from None


def actor() -> str:
    """Who gives a command, as it is recorded."""
    return f"cli {getpass.getuser()}"


def interactive() -> bool:
    """Whether somebody watches, so that a progress bar is of use."""
    return sys.stderr.isatty()
