"""The sandbox as a server: the interface of each provider and carrier under `/<name>/`, the pages, what drills need."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from commerce.kernel import logs
from commerce.kernel.bind import explain_bind_errors
from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import DAY_MS, Clock, SystemClock, to_ms
from commerce.kernel.errors import NotReady
from commerce.kernel.tasks import cancel_and_wait
from ops.sandbox.alipay import AlipaySandbox
from ops.sandbox.carriers import CARRIERS, ParcelControl, SimulatedCarriers, carrier_protocols, run_carriers
from ops.sandbox.faults import (
    CarrierFaults,
    FaultRegistry,
    ProviderFaultRegistry,
    ProviderFaults,
    Step,
    play,
    read_scenario,
)
from ops.sandbox.keys import Keys, make_keys, read_keys
from ops.sandbox.pages import Pages
from ops.sandbox.payment_simulator import PaymentSimulator, WebhookScheduler
from ops.sandbox.payment_store import PaymentStore
from ops.sandbox.protocol import CarrierProtocol, SandboxProtocol
from ops.sandbox.shipment_store import ShipmentStore
from ops.sandbox.webhook_sender import Sending
from ops.sandbox.wechatpay import WeChatPaySandbox

_logger = logging.getLogger(__name__)
_BODY_BYTES = 1 << 20
_STOP_S = 3.0
"""Both providers' days are China's."""


@dataclass(frozen=True)
class Sandbox:
    """Everything together; `protocols` by the providers' names."""

    bank: PaymentStore
    clock: Clock
    board: ProviderFaultRegistry
    plans: PaymentSimulator
    protocols: Mapping[str, SandboxProtocol]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is to stop, or cannot go on."""

    def switch(self, provider: str, switches: ProviderFaults) -> None:
        """From now on, for the trades that wait as well."""
        self.board.set(provider, switches)
        self.plans.restart(provider)

    def over(self, task: asyncio.Task[None]) -> None:
        """Without this task it cannot go on, unless the task was done."""
        if not task.cancelled() and (error := task.exception()):
            _logger.critical("the sandbox cannot go on", exc_info=error)
            self.stop.set()


def build(sandbox: Sandbox, carriers: SimulatedCarriers | None = None) -> web.Application:
    """The application; only the interfaces of providers and carriers are slow or down."""
    control, names = _Control(sandbox, carriers), tuple(sandbox.protocols)
    app = web.Application(client_max_size=_BODY_BYTES)
    app.router.add_routes(
        [
            *Pages(sandbox.bank, sandbox.clock, sandbox.plans, sandbox.board, names, carriers).routes(),
            *(ParcelControl(carriers).routes() if carriers else ()),  # before the switches of anybody
            web.get("/switches/{provider}", control.switches),
            web.put("/switches/{provider}", control.switch),
            web.get(r"/statement/{provider}/{day:\d{4}-\d\d-\d\d}", control.statement),
            web.get("/books", control.books),
            web.get("/health", control.health),
        ]
    )
    sides: list[tuple[FaultRegistry[Any], SandboxProtocol | CarrierProtocol]] = []
    sides += [(sandbox.board, provider) for provider in sandbox.protocols.values()]
    if carriers is not None:
        sides += [(carriers.board, carrier) for carrier in carriers.protocols.values()]
    for board, protocol in sides:
        behaviour = _misbehaviour(sandbox.clock, board, protocol.name)
        part = web.Application(middlewares=[behaviour], client_max_size=_BODY_BYTES)
        part.router.add_routes(protocol.routes())
        app.add_subapp(f"/{protocol.name}/", part)
    return app


def _misbehaviour(clock: Clock, board: FaultRegistry[Any], provider: str) -> Middleware:
    count = 0

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal count
        count += 1
        switches, hits = board.of(provider), board.hits
        if switches.is_down(clock.now_ms()):
            if request.transport is not None and hits(0.5, "hang_up", f"{provider}/{count}"):
                request.transport.close()
            return web.Response(status=503, text="the provider is down")
        slow = hits(switches.slow_share, "slow", f"{provider}/{count}")
        response = await handler(request)
        if slow:  # what was asked is done by now: a client that gives up does not know
            await clock.sleep(switches.slow_ms / 1_000)
        return response

    return middleware


class _Control:
    """What whoever runs a drill asks of the sandbox."""

    def __init__(self, sandbox: Sandbox, carriers: SimulatedCarriers | None) -> None:
        self._sandbox = sandbox
        self._carriers = carriers

    def _provider(self, request: web.Request) -> str:
        provider = request.match_info["provider"]
        if provider not in self._sandbox.protocols:
            raise web.HTTPNotFound(text=f"there is no provider {provider}")
        return provider

    async def switches(self, request: web.Request) -> web.Response:
        return _json(self._sandbox.board.of(self._provider(request)))

    async def switch(self, request: web.Request) -> web.Response:
        """What the body does not name behaves well again."""
        provider = self._provider(request)
        try:
            switches = msgspec.json.decode(await request.read(), type=ProviderFaults)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        self._sandbox.switch(provider, switches)
        return _json(switches)

    async def statement(self, request: web.Request) -> web.Response:
        """What was paid and refunded on a day in China."""
        provider = self._provider(request)
        try:
            day = datetime.fromisoformat(request.match_info["day"]).replace(tzinfo=CHINA)
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        from_ms = to_ms(day)
        trades = self._sandbox.bank.trades(provider, from_ms, from_ms + DAY_MS)
        refunds = self._sandbox.bank.refunds(provider, from_ms, from_ms + DAY_MS)
        return web.Response(text=self._sandbox.protocols[provider].statement(trades, refunds))

    async def books(self, request: web.Request) -> web.Response:
        books = {provider: self._sandbox.bank.totals(provider) for provider in self._sandbox.protocols}
        if self._carriers is not None:
            books |= {carrier: self._carriers.depot.books(carrier) for carrier in self._carriers.protocols}
        return _json(books)

    async def health(self, request: web.Request) -> web.Response:
        return _json({"status": "ok"})


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


@asynccontextmanager
async def running(
    bank: PaymentStore,
    clock: Clock,
    board: ProviderFaultRegistry,
    sending: Sending,
    make: Callable[[PaymentSimulator], Sequence[SandboxProtocol]],
    scenario: Sequence[Step] = (),
) -> AsyncIterator[Sandbox]:
    """A sandbox of providers that pays, notifies and plays its scenario; `make` makes the protocols around the plans.

    Raises what went wrong with its tasks, of which `stop` tells before.
    """
    plans = PaymentSimulator(bank, clock, board)
    protocols = {protocol.name: protocol for protocol in make(plans)}
    sandbox = Sandbox(bank, clock, board, plans, protocols)
    notifier = WebhookScheduler(bank, clock, plans, protocols, sending)
    tasks = [asyncio.create_task(notifier.run()), asyncio.create_task(play(clock, scenario, sandbox.switch))]
    for task in tasks:
        task.add_done_callback(sandbox.over)
    try:
        yield sandbox
    finally:
        for task in tasks:
            await cancel_and_wait(task)
    for task in tasks:
        if not task.cancelled():
            task.result()


PROVIDERS = (AlipaySandbox.name, WeChatPaySandbox.name)


def _protocols(
    bank: PaymentStore, clock: Clock, keys: Keys, url: str, plans: PaymentSimulator
) -> list[SandboxProtocol]:
    sandbox_key = load_pem_private_key(keys.alipay_platform.private.encode(), None)
    merchant_key = load_pem_public_key(keys.alipay_merchant.public.encode())
    assert isinstance(sandbox_key, RSAPrivateKey)
    assert isinstance(merchant_key, RSAPublicKey)
    return [
        AlipaySandbox(
            bank=bank,
            clock=clock,
            app_id=keys.ids.alipay_app_id,
            seller_id=keys.ids.alipay_seller_id,
            sandbox_key=sandbox_key,
            merchant_key=merchant_key,
            on_trade=plans.on_trade,
            on_refund=plans.on_refund,
            public_url=url,
        ),
        WeChatPaySandbox(
            bank=bank,
            clock=clock,
            app_id=keys.ids.wechatpay_app_id,
            mch_id=keys.ids.wechatpay_mch_id,
            api_v3_key=keys.ids.wechatpay_api_v3_key,
            platform_private_key=keys.wechatpay_platform.private,
            platform_certificate=keys.wechatpay_platform_certificate,
            merchant_serial=keys.ids.wechatpay_merchant_serial,
            merchant_public_key=keys.wechatpay_merchant.public,
            on_trade=plans.on_trade,
            on_refund=plans.on_refund,
            public_url=url,
        ),
    ]


@dataclass(frozen=True)
class Start:
    """How a sandbox is started; `data` and `keys` are directories."""

    data: Path
    keys: Path
    host: str = "127.0.0.1"
    port: int = 0
    scenario: Path | None = None
    seed: int = 0
    shop: str = ""
    """Where the shop is that SF Express pushes to; empty: SF pushes nothing."""
    speed: int = 3_600
    """How much faster than the world's the clock goes that parcels move on."""
    public_url: str | None = None
    """What a customer's browser reaches the pages by; else the address that is listened on."""
    sending: Sending = field(default_factory=Sending)


async def serve(start: Start) -> None:
    """Run until SIGTERM or SIGINT. Makes keys that are missing.

    Raises `NotReady` if the port cannot be had, `ValueError` or `OSError` if a file is wrong.
    """
    make_keys(start.keys)
    keys = read_keys(start.keys)
    scenario = read_scenario(start.scenario, PROVIDERS, CARRIERS) if start.scenario else []
    theirs = [step for step in scenario if step.provider in CARRIERS]
    scenario = [step for step in scenario if step not in theirs]
    start.data.mkdir(parents=True, exist_ok=True)
    board = ProviderFaultRegistry(start.seed, start.data / "switches.json")
    carrier_board = FaultRegistry(CarrierFaults, start.seed, start.data / "carrier-switches.json")
    clock = SystemClock()
    with explain_bind_errors(start.host, start.port, "--port"):
        family = socket.AF_INET6 if ":" in start.host else socket.AF_INET
        listener = socket.create_server((start.host, start.port), family=family)
    with (
        listener,
        closing(PaymentStore(start.data / "sandbox.sqlite")) as bank,
        closing(ShipmentStore(start.data / "parcels.sqlite")) as depot,
    ):
        host = f"[{start.host}]" if ":" in start.host else start.host
        url = start.public_url or f"http://{host}:{listener.getsockname()[1]}"
        make = partial(_protocols, bank, clock, keys, url)
        make_carriers = partial(carrier_protocols, depot, carrier_board, keys.ids, start.shop.rstrip("/"))
        async with (
            running(bank, clock, board, start.sending, make, scenario) as sandbox,
            run_carriers(
                depot, clock, carrier_board, start.sending, make_carriers, start.speed, sandbox.over, theirs
            ) as carriers,
        ):
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, sandbox.stop.set)
            runner = web.AppRunner(build(sandbox, carriers), access_log=None, shutdown_timeout=_STOP_S)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                _logger.info("listening", extra={"url": url, "keys": str(start.keys)})
                await sandbox.stop.wait()
                _logger.info("stopping")
            finally:
                await runner.cleanup()


def main() -> None:
    """`python -m ops.sandbox`."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.sandbox",
        description="Payment providers and carriers on this machine, for development and drills. It is no real bank: "
        "it moves no money and no parcels, and anybody who reaches its port may pay, refuse and change what it does.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sending = Sending()
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8_090, help="0 takes a free one")
    parser.add_argument("--data", type=Path, default=Path(".floodgate/sandbox"), help="directory of the books")
    parser.add_argument("--keys", type=Path, default=Path(".floodgate/sandbox/keys"), help="made if it is missing")
    parser.add_argument("--scenario", type=Path, help="TOML file with [[step]] after_s, provider, switches")
    parser.add_argument(
        "--seed", type=int, default=0, help="what is struck; the same seed, the same trades and parcels"
    )
    parser.add_argument("--shop", default="", help="address of the shop that SF Express pushes to; empty: it does not")
    parser.add_argument("--speed", type=int, default=3_600, help="how much faster than the world's parcels' clock goes")
    parser.add_argument("--public-url", help="of the pages for customers, if it is not the address listened on")
    parser.add_argument(
        "--notify-host",
        action="append",
        default=[],
        help="one more host that callbacks may go to, besides this machine",
    )
    parser.add_argument("--timeout-s", type=float, default=sending.timeout_s, help="for the answer to a callback")
    parser.add_argument("--concurrency", type=int, default=sending.concurrency, help="callbacks under way at once")
    parser.add_argument(
        "--longest-wait-s",
        type=float,
        default=sending.longest_wait_s,
        help="caps the waits between a callback's attempts",
    )
    given = parser.parse_args()
    logs.configure_logging("info", None, 0, "sandbox")
    hosts = sending.hosts | set(given.notify_host)
    start = Start(
        given.data,
        given.keys,
        given.host,
        given.port,
        given.scenario,
        given.seed,
        given.shop,
        max(1, given.speed),
        given.public_url,
        Sending(hosts, given.timeout_s, given.concurrency, given.longest_wait_s),
    )
    try:
        uvloop.run(serve(start))
    except (NotReady, OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
