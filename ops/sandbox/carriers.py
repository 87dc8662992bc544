"""Simulated carriers: construction, background tasks, and control of faults and shipments over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiohttp import web

from commerce.kernel.clock import Clock
from commerce.kernel.tasks import cancel_and_wait
from ops.sandbox.faults import CarrierFaults, FaultRegistry, ScenarioStep, play_scenario
from ops.sandbox.journey import TARGETS
from ops.sandbox.keys import MerchantIds
from ops.sandbox.kuaidi100 import Kuaidi100Sandbox
from ops.sandbox.protocol import CarrierProtocol
from ops.sandbox.sf_express import SfExpressSandbox
from ops.sandbox.shipment_simulator import ShipmentSimulator, ShipmentWebhookQueue
from ops.sandbox.shipment_store import DueShipmentWebhook, ShipmentStore, ShipmentStoreRefusal, SimulatedShipment
from ops.sandbox.webhook_sender import SenderSettings, WebhookSender

CARRIERS = (SfExpressSandbox.name, Kuaidi100Sandbox.name)


@dataclass(frozen=True)
class SimulatedCarriers:
    """The parts of the simulated carriers; `protocols` by the carriers' names."""

    shipment_store: ShipmentStore
    clock: Clock
    faults: FaultRegistry[CarrierFaults]
    simulator: ShipmentSimulator
    protocols: Mapping[str, CarrierProtocol]


def carrier_protocols(
    shipment_store: ShipmentStore,
    fault_registry: FaultRegistry[CarrierFaults],
    ids: MerchantIds,
    shop_url: str,
    simulator: ShipmentSimulator,
) -> list[CarrierProtocol]:
    """Return SF Express and kuaidi100 for the shop at `shop_url`; without a URL SF sends no webhooks."""
    return [
        SfExpressSandbox(
            shipment_store=shipment_store,
            simulator=simulator,
            faults=fault_registry,
            partner_id=ids.sf_express_partner_id,
            check_word=ids.sf_express_check_word,
            monthly_card=ids.sf_express_monthly_card,
            webhook_url=f"{shop_url}/v1/webhooks/carriers/sf_express" if shop_url else "",
            webhook_key=ids.sf_express_webhook_key,
        ),
        Kuaidi100Sandbox(
            shipment_store=shipment_store,
            simulator=simulator,
            faults=fault_registry,
            customer=ids.kuaidi100_customer,
            key=ids.kuaidi100_key,
        ),
    ]


@asynccontextmanager
async def run_carriers(
    shipment_store: ShipmentStore,
    clock: Clock,
    fault_registry: FaultRegistry[CarrierFaults],
    sender_settings: SenderSettings,
    create_protocols: Callable[[ShipmentSimulator], Sequence[CarrierProtocol]],
    time_factor: int,
    on_task_end: Callable[[asyncio.Task[None]], None],
    scenario: Sequence[ScenarioStep] = (),
) -> AsyncIterator[SimulatedCarriers]:
    """Move shipments and send webhooks until the end of the block.

    `on_task_end` is called when a background task ends. Raises the error of a failed task at the end of the block.
    """
    simulator = ShipmentSimulator(shipment_store, clock, fault_registry, time_factor)
    protocols = {protocol.name: protocol for protocol in create_protocols(simulator)}
    for name in protocols:
        simulator.restart(name)
    carriers = SimulatedCarriers(shipment_store, clock, fault_registry, simulator, protocols)
    queue = ShipmentWebhookQueue(shipment_store, simulator, protocols)
    sender = WebhookSender[DueShipmentWebhook](queue, clock, sender_settings)
    playing = play_scenario(clock, scenario, simulator.set_faults)
    tasks = [asyncio.create_task(sender.run()), asyncio.create_task(playing)]
    for task in tasks:
        task.add_done_callback(on_task_end)
    try:
        yield carriers
    finally:
        for task in tasks:
            await cancel_and_wait(task)
    for task in tasks:
        if not task.cancelled():
            task.result()


class ShipmentControl:
    """HTTP control of the carriers' faults and shipments, for browsers and curl.

    `GET /shipments/{tracking_no}` returns a shipment. `POST` to its `/move` takes the next step, with `?to=` all steps
    up to one of `TARGETS`.
    """

    def __init__(self, carriers: SimulatedCarriers) -> None:
        self._carriers = carriers

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        faults = f"/faults/{{carrier:{'|'.join(self._carriers.protocols)}}}"
        return [
            web.get(faults, self._get_faults),
            web.put(faults, self._put_faults),
            web.get("/shipments/{tracking_no}", self._get_shipment),
            web.post("/shipments/{tracking_no}/move", self._move),
        ]

    async def _get_faults(self, request: web.Request) -> web.Response:
        return json_response(self._carriers.faults.get(request.match_info["carrier"]))

    async def _put_faults(self, request: web.Request) -> web.Response:
        """Replace the faults of a carrier: members that the body leaves out return to their defaults."""
        try:
            faults = msgspec.json.decode(await request.read(), type=CarrierFaults)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"cannot set the faults: {error}") from None
        self._carriers.simulator.set_faults(request.match_info["carrier"], faults)
        return json_response(faults)

    async def _get_shipment(self, request: web.Request) -> web.Response:
        try:
            return self._shipment_response(self._carriers.shipment_store.get(request.match_info["tracking_no"]))
        except ShipmentStoreRefusal as refusal:
            return _refusal_response(refusal)

    async def _move(self, request: web.Request) -> web.Response:
        target = request.query.get("to")
        if target is not None and target not in TARGETS:
            raise web.HTTPBadRequest(text=f"cannot move to {target}: allowed are {', '.join(TARGETS)}")
        try:
            shipment = self._carriers.simulator.move(request.match_info["tracking_no"], target)
        except ShipmentStoreRefusal as refusal:
            return _refusal_response(refusal)
        if "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther("/")
        return self._shipment_response(shipment)

    def _shipment_response(self, shipment: SimulatedShipment) -> web.Response:
        events = self._carriers.shipment_store.list_events(shipment.carrier, shipment.tracking_no)
        members = ("carrier", "tracking_no", "order_no", "company", "state")
        document = {name: getattr(shipment, name) for name in members}
        event_documents = [{"step": event.step, "at_ms": event.at_ms, "place": event.place} for event in events]
        return json_response(document | {"events": event_documents})


def _refusal_response(refusal: ShipmentStoreRefusal) -> web.Response:
    status = 404 if refusal.code == "no_shipment" else 409
    return web.json_response({"code": refusal.code, "detail": str(refusal)}, status=status)


def json_response(value: object) -> web.Response:
    """Return a 200 response with the value as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
