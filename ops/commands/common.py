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
from commerce.desk.service import Desk
from commerce.kernel.clock import Clock, SystemClock
from commerce.kernel.database import DOWN as DATABASE_DOWN
from commerce.kernel.database import Database, open_database
from commerce.kernel.errors import Invalid, Refusal
from commerce.kernel.ids import Ids
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.migrations import check_migrated
from commerce.kernel.redisdb import DOWN as REDIS_DOWN
from commerce.kernel.redisdb import open_redis
from commerce.orders.service import Orders
from commerce.payments.service import Payments
from commerce.rates.service import Rates
from commerce.sales.service import Sales
from commerce.sales.stock import Stock
from commerce.shipping.assigning import Assigning
from commerce.shipping.carriers import open_carriers
from commerce.shipping.service import Shipping
from config.settings import Settings, SettingsError, load

Result = TypeVar("Result")
Content = TypeVar("Content")
_FILE_WIDTH = 140  # of what goes into a file or another program, where no terminal says how wide it is
out = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH)
err = Console(stderr=True, width=None if sys.stderr.isatty() else _FILE_WIDTH)


@dataclass(frozen=True, slots=True)
class Shop:
    """What a command may use."""

    settings: Settings
    clock: Clock
    ids: Ids
    db: Database
    redis: Redis
    catalog: Catalog
    sales: Sales
    stock: Stock
    orders: Orders
    dead_letters: DeadLetters
    audit: Audit
    payments: Payments
    shipping: Shipping
    rates: Rates
    desk: Desk


@asynccontextmanager
async def open_shop(settings: Settings | None = None) -> AsyncIterator[Shop]:
    """Connect to the shop that the settings name."""
    settings = settings or load()
    limits, driver, clock = settings.limits, settings.driver, SystemClock()
    async with AsyncExitStack() as stack:
        redis = open_redis(
            settings.redis(), timeout_ms=limits.redis_call_timeout_ms, connections=limits.redis_connections, name="ops"
        )
        stack.push_async_callback(redis.aclose)
        db = await open_database(
            settings.database(),
            name="ops",
            connections=limits.database_connections,
            timeout_s=limits.database_timeout_s,
        )
        stack.push_async_callback(db.close)
        async with db.connection() as connection:
            await check_migrated(connection)
        # Commands call no carrier: what is to be done outside is a row for the driver. But which there are, and who
        # books with them, the settings say.
        carriers = await stack.enter_async_context(
            open_carriers(settings.shipping, clock, timeout_s=driver.call_timeout_s, connections=1)
        )
        ids, rates, rules = Ids(clock), Rates(db, clock), settings.shipping
        policy = RetryPolicy.agreed(driver)
        yield Shop(
            settings=settings,
            clock=clock,
            ids=ids,
            db=db,
            redis=redis,
            catalog=Catalog(db, clock),
            sales=Sales(db, redis, clock),
            stock=Stock(db, redis, clock, policy),
            orders=Orders(db, redis, clock),
            dead_letters=DeadLetters(db, clock),
            audit=Audit(db, redis, clock),
            # Without providers: commands start no payments, and what is to be done outside is a row for the driver.
            payments=Payments(db, clock, ids, {}, settings.payments.margin_s),
            shipping=Shipping(db, clock, rules),
            rates=rates,
            desk=Desk(db, clock, ids, Assigning(rates, carriers, rules), carriers, rules),
        )


@contextmanager
def plain_errors() -> Iterator[None]:
    """An expected refusal ends the command with one line and status 1, not with a traceback."""
    try:
        yield
    except (Refusal, SettingsError) as error:
        fail(str(error))
    except (*DATABASE_DOWN, *REDIS_DOWN) as error:
        fail(f"a database cannot be reached: {error or type(error).__name__}")


def fail(message: str) -> None:
    """Say what is wrong on standard error and end with status 1."""
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run async code to its end, with errors in plain words."""
    with plain_errors():
        return uvloop.run(work)
    raise AssertionError  # plain_errors ends the command


def checked(given: object, kind: type[Content], option: str = "") -> Content:
    """Words from the command line as what they should be. Raises `Invalid`, which names the option."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"{option}: {error}" if option else str(error)) from None


def actor() -> str:
    """Who gives a command, as it is recorded."""
    return f"cli {getpass.getuser()}"


def interactive() -> bool:
    """Whether somebody watches, so that a progress bar is of use."""
    return sys.stderr.isatty()
