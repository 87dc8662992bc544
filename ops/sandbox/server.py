"""HTTP server of the sandbox: the systems' interfaces under `/<name>/`, the pages and the control."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from commerce.kernel.bind import explain_bind_errors, local_url
from commerce.kernel.china_time import CHINA
from commerce.kernel.clock import DAY_MS, Clock, SystemClock, to_ms
from commerce.kernel.stop_signals import stop_on_signals
from commerce.kernel.tasks import cancel_and_wait
from ops.sandbox import state_files
from ops.sandbox.alipay import AlipaySandbox
from ops.sandbox.carriers import (
    CARRIERS,
    ShipmentControl,
    SimulatedCarriers,
    carrier_protocols,
    json_response,
    run_carriers,
)
from ops.sandbox.faults import (
    CarrierFaults,
    FaultRegistry,
    ProviderFaultRegistry,
    ProviderFaults,
    ScenarioStep,
    play_scenario,
    read_scenario,
)
from ops.sandbox.keys import Keys, make_keys, read_keys
from ops.sandbox.pages import Pages
from ops.sandbox.payment_simulator import PaymentSimulator, WebhookScheduler
from ops.sandbox.payment_store import PaymentStore
from ops.sandbox.protocol import CarrierProtocol, ProviderProtocol
from ops.sandbox.shipment_store import ShipmentStore
from ops.sandbox.webhook_sender import SenderSettings
from ops.sandbox.wechatpay import WeChatPaySandbox

_logger = logging.getLogger(__name__)
_MAX_BODY_BYTES = 1 << 20
_SHUTDOWN_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Sandbox:
    """The parts of the simulated providers; `protocols` by the providers' names."""

    payment_store: PaymentStore
    clock: Clock
    faults: ProviderFaultRegistry
    payment_simulator: PaymentSimulator
    protocols: Mapping[str, ProviderProtocol]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Event that ends the server: set by a signal or after a failure."""

    def set_faults(self, provider: str, faults: ProviderFaults) -> None:
        """Replace the provider's faults, for waiting trades as well."""
        self.faults.set(provider, faults)
        self.payment_simulator.restart(provider)

    def stop_on_failure(self, task: asyncio.Task[None]) -> None:
        """Stop the server if a background task has failed. Pass this to `add_done_callback`."""
        if not task.cancelled() and (error := task.exception()):
            _logger.critical("sandbox task failed", exc_info=error)
            self.stop.set()


def build_app(sandbox: Sandbox, carriers: SimulatedCarriers | None = None) -> web.Application:
    """Build the application. Only the interfaces of providers and carriers are slow or down."""
    control, providers = _Control(sandbox, carriers), tuple(sandbox.protocols)
    pages = Pages(sandbox.payment_store, sandbox.clock, sandbox.payment_simulator, sandbox.faults, providers, carriers)
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    # The routes of the carriers' faults must come before the route of any name.
    shipment_routes = ShipmentControl(carriers).build_routes() if carriers else ()
    app.router.add_routes([*pages.build_routes(), *shipment_routes, *control.build_routes()])
    systems: list[tuple[FaultRegistry[Any], ProviderProtocol | CarrierProtocol]] = []
    systems += [(sandbox.faults, provider) for provider in sandbox.protocols.values()]
    if carriers is not None:
        systems += [(carriers.faults, carrier) for carrier in carriers.protocols.values()]
    for fault_registry, protocol in systems:
        fault_middleware = _build_fault_middleware(sandbox.clock, fault_registry, protocol.name)
        system_app = web.Application(middlewares=[fault_middleware], client_max_size=_MAX_BODY_BYTES)
        system_app.router.add_routes(protocol.build_routes())
        app.add_subapp(f"/{protocol.name}/", system_app)
    return app


def _build_fault_middleware(clock: Clock, fault_registry: FaultRegistry[Any], system: str) -> Middleware:
    count = 0

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal count
        count += 1
        faults, is_selected = fault_registry.get(system), fault_registry.is_selected
        if faults.is_down(clock.now_ms()):
            if request.transport is not None and is_selected(0.5, "hang_up", f"{system}/{count}"):
                request.transport.close()
            return web.Response(status=503, text=f"{system} is unavailable")
        is_slow = is_selected(faults.slow_share, "slow", f"{system}/{count}")
        response = await handler(request)
        if is_slow:  # the request is carried out by now: a client that times out does not know the outcome
            await clock.sleep(faults.slow_ms / 1_000)
        return response

    return middleware


class _Control:
    """HTTP control of the providers' faults, and the records of all systems, for tests and drills."""

    def __init__(self, sandbox: Sandbox, carriers: SimulatedCarriers | None) -> None:
        self._sandbox = sandbox
        self._carriers = carriers

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        return [
            web.get("/faults/{provider}", self._get_faults),
            web.put("/faults/{provider}", self._put_faults),
            web.get(r"/statement/{provider}/{day:\d{4}-\d\d-\d\d}", self._get_statement),
            web.get("/totals", self._get_totals),
            web.get("/health", self._get_health),
        ]

    def _read_provider(self, request: web.Request) -> str:
        provider = request.match_info["provider"]
        if provider not in self._sandbox.protocols:
            raise web.HTTPNotFound(text=f"there is no provider {provider}")
        return provider

    async def _get_faults(self, request: web.Request) -> web.Response:
        return json_response(self._sandbox.faults.get(self._read_provider(request)))

    async def _put_faults(self, request: web.Request) -> web.Response:
        """Replace the faults of a provider: members that the body leaves out return to their defaults."""
        provider = self._read_provider(request)
        try:
            faults = msgspec.json.decode(await request.read(), type=ProviderFaults)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"cannot set the faults: {error}") from None
        self._sandbox.set_faults(provider, faults)
        return json_response(faults)

    async def _get_statement(self, request: web.Request) -> web.Response:
        """Return a provider's statement of payments and refunds of a day in China."""
        provider = self._read_provider(request)
        try:
            day = datetime.fromisoformat(request.match_info["day"]).replace(tzinfo=CHINA)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"cannot read the day: {error}") from None
        from_ms = to_ms(day)
        trades = self._sandbox.payment_store.list_paid_trades(provider, from_ms, from_ms + DAY_MS)
        refunds = self._sandbox.payment_store.list_refunds(provider, from_ms, from_ms + DAY_MS)
        return web.Response(text=self._sandbox.protocols[provider].build_statement(trades, refunds))

    async def _get_totals(self, request: web.Request) -> web.Response:
        totals = {provider: self._sandbox.payment_store.totals(provider) for provider in self._sandbox.protocols}
        if self._carriers is not None:
            totals |= {carrier: self._carriers.shipment_store.totals(carrier) for carrier in self._carriers.protocols}
        return json_response(totals)

    async def _get_health(self, request: web.Request) -> web.Response:
        return json_response({"status": "ok"})


@asynccontextmanager
async def run_providers(
    payment_store: PaymentStore,
    clock: Clock,
    fault_registry: ProviderFaultRegistry,
    sender_settings: SenderSettings,
    create_protocols: Callable[[PaymentSimulator], Sequence[ProviderProtocol]],
    scenario: Sequence[ScenarioStep] = (),
) -> AsyncIterator[Sandbox]:
    """Run robot payments, webhooks and the scenario of the providers until the end of the block.

    A background task that fails sets the event `stop`; its error is raised at the end of the block.
    """
    simulator = PaymentSimulator(payment_store, clock, fault_registry)
    protocols = {protocol.name: protocol for protocol in create_protocols(simulator)}
    sandbox = Sandbox(payment_store, clock, fault_registry, simulator, protocols)
    scheduler = WebhookScheduler(payment_store, clock, simulator, protocols, sender_settings)
    playing = play_scenario(clock, scenario, sandbox.set_faults)
    tasks = [asyncio.create_task(scheduler.run()), asyncio.create_task(playing)]
    for task in tasks:
        task.add_done_callback(sandbox.stop_on_failure)
    try:
        yield sandbox
    finally:
        for task in tasks:
            await cancel_and_wait(task)
    for task in tasks:
        if not task.cancelled():
            task.result()


PROVIDERS = (AlipaySandbox.name, WeChatPaySandbox.name)


def provider_protocols(
    payment_store: PaymentStore, clock: Clock, keys: Keys, public_url: str, simulator: PaymentSimulator
) -> list[ProviderProtocol]:
    """Return Alipay and WeChat Pay; `public_url` is the address of the pages for customers."""
    sandbox_key = load_pem_private_key(keys.alipay_platform.private.encode(), None)
    merchant_key = load_pem_public_key(keys.alipay_merchant.public.encode())
    assert isinstance(sandbox_key, RSAPrivateKey)
    assert isinstance(merchant_key, RSAPublicKey)
    return [
        AlipaySandbox(
            payment_store=payment_store,
            clock=clock,
            app_id=keys.ids.alipay_app_id,
            seller_id=keys.ids.alipay_seller_id,
            sandbox_key=sandbox_key,
            merchant_key=merchant_key,
            on_trade=simulator.on_trade,
            on_refund=simulator.on_refund,
            public_url=public_url,
            decide_refund=simulator.decide_refund,
        ),
        WeChatPaySandbox(
            payment_store=payment_store,
            clock=clock,
            app_id=keys.ids.wechatpay_app_id,
            mch_id=keys.ids.wechatpay_mch_id,
            api_v3_key=keys.ids.wechatpay_api_v3_key,
            platform_private_key=keys.wechatpay_platform.private,
            platform_certificate=keys.wechatpay_platform_certificate,
            merchant_serial=keys.ids.wechatpay_merchant_serial,
            merchant_public_key=keys.wechatpay_merchant.public,
            on_trade=simulator.on_trade,
            on_refund=simulator.on_refund,
            public_url=public_url,
            decide_refund=simulator.decide_refund,
        ),
    ]


@dataclass(frozen=True)
class SandboxOptions:
    """Options of a sandbox process; `data` and `keys` are directories."""

    data: Path
    keys: Path
    host: str = "127.0.0.1"
    port: int = 0
    fault_scenario: Path | None = None
    seed: int = 0
    shop_url: str = ""
    """URL of the shop that receives SF Express's webhooks; empty: SF sends none."""
    time_factor: int = 3_600
    """Number of times that shipments move faster than in reality."""
    public_url: str | None = None
    """URL of the pages for customers' browsers; None: the address that the server listens on."""
    sender_settings: SenderSettings = field(default_factory=SenderSettings)


async def serve(options: SandboxOptions) -> None:
    """Run until SIGTERM or SIGINT. Generates missing keys.

    Raises `NotReady` if the port cannot be used, `ValueError` or `OSError` if a file is not valid.
    """
    state_files.refuse_old_state(options.data)
    make_keys(options.keys)
    keys = read_keys(options.keys)
    scenario = read_scenario(options.fault_scenario, PROVIDERS, CARRIERS) if options.fault_scenario else []
    provider_steps = [step for step in scenario if step.system in PROVIDERS]
    carrier_steps = [step for step in scenario if step.system in CARRIERS]
    options.data.mkdir(parents=True, exist_ok=True)
    provider_faults = ProviderFaultRegistry(options.seed, options.data / state_files.PROVIDER_FAULTS)
    carrier_faults = FaultRegistry(CarrierFaults, options.seed, options.data / state_files.CARRIER_FAULTS)
    clock, sender_settings = SystemClock(), options.sender_settings
    with (
        _listen(options) as listener,
        closing(PaymentStore(options.data / state_files.PAYMENTS)) as payment_store,
        closing(ShipmentStore(options.data / state_files.SHIPMENTS)) as shipment_store,
    ):
        url = options.public_url or local_url(options.host, listener.getsockname()[1])
        create_providers = partial(provider_protocols, payment_store, clock, keys, url)
        shop_url = options.shop_url.rstrip("/")
        create_carriers = partial(carrier_protocols, shipment_store, carrier_faults, keys.ids, shop_url)
        async with (
            run_providers(
                payment_store, clock, provider_faults, sender_settings, create_providers, provider_steps
            ) as sandbox,
            run_carriers(
                shipment_store,
                clock,
                carrier_faults,
                sender_settings,
                create_carriers,
                options.time_factor,
                sandbox.stop_on_failure,
                carrier_steps,
            ) as carriers,
        ):
            stop_on_signals(sandbox.stop)
            app = build_app(sandbox, carriers)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)
            await runner.setup()
            try:
                await web.SockSite(runner, listener).start()
                _logger.info("listening", extra={"url": url, "keys": str(options.keys)})
                await sandbox.stop.wait()
                _logger.info("stopping")
            finally:
                await runner.cleanup()


def _listen(options: SandboxOptions) -> socket.socket:
    with explain_bind_errors(options.host, options.port, "--port"):
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family)
