"""The sandbox's carriers together: their parcels on the move, and what drills ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from aiohttp import web

from commerce.kernel.clock import Clock
from commerce.kernel.tasks import cancel_and_wait
from ops.sandbox.faults import CarrierFaults, FaultRegistry, Step, play
from ops.sandbox.journey import TARGETS
from ops.sandbox.keys import MerchantIds
from ops.sandbox.kuaidi100 import Kuaidi100Sandbox
from ops.sandbox.protocol import CarrierProtocol
from ops.sandbox.sf_express import SfExpressSandbox
from ops.sandbox.shipment_simulator import Pushes, ShipmentSimulator
from ops.sandbox.shipment_store import DuePush, ShipmentStore, ShipmentStoreRefusal, SimulatedShipment
from ops.sandbox.webhook_sender import Sending, WebhookSender

CARRIERS = (SfExpressSandbox.name, Kuaidi100Sandbox.name)


@dataclass(frozen=True)
class SimulatedCarriers:
    """Everything of theirs; `protocols` by the carriers' names."""

    depot: ShipmentStore
    clock: Clock
    board: FaultRegistry[CarrierFaults]
    courier: ShipmentSimulator
    protocols: Mapping[str, CarrierProtocol]


def carrier_protocols(
    depot: ShipmentStore, board: FaultRegistry[CarrierFaults], ids: MerchantIds, shop: str, courier: ShipmentSimulator
) -> list[CarrierProtocol]:
    """SF Express and kuaidi100, as agreed with a shop at the address `shop`; empty: SF pushes nothing."""
    return [
        SfExpressSandbox(
            depot=depot,
            courier=courier,
            board=board,
            partner_id=ids.sf_express_partner_id,
            check_word=ids.sf_express_check_word,
            monthly_card=ids.sf_express_monthly_card,
            push_url=f"{shop}/v1/webhooks/carriers/sf_express" if shop else "",
            webhook_key=ids.sf_express_webhook_key,
        ),
        Kuaidi100Sandbox(
            depot=depot, courier=courier, board=board, customer=ids.kuaidi100_customer, key=ids.kuaidi100_key
        ),
    ]


@asynccontextmanager
async def run_carriers(
    depot: ShipmentStore,
    clock: Clock,
    board: FaultRegistry[CarrierFaults],
    sending: Sending,
    make: Callable[[ShipmentSimulator], Sequence[CarrierProtocol]],
    speed: int,
    over: Callable[[asyncio.Task[None]], None],
    scenario: Sequence[Step] = (),
) -> AsyncIterator[SimulatedCarriers]:
    """Carriers whose parcels move and whose pushes are sent; `over` is told when one of its tasks ends. Raises what
    went wrong with them."""
    courier = ShipmentSimulator(depot, clock, board, speed)
    protocols = {protocol.name: protocol for protocol in make(courier)}
    for name in protocols:
        courier.restart(name)
    carriers = SimulatedCarriers(depot, clock, board, courier, protocols)
    sender = WebhookSender[DuePush](Pushes(depot, courier, protocols), clock, sending)
    tasks = [asyncio.create_task(sender.run()), asyncio.create_task(play(clock, scenario, courier.switch))]
    for task in tasks:
        task.add_done_callback(over)
    try:
        yield carriers
    finally:
        for task in tasks:
            await cancel_and_wait(task)
    for task in tasks:
        if not task.cancelled():
            task.result()


class ParcelControl:
    """Switches of the carriers; `GET /parcels/{number}`, and `POST` to its `/move`, which takes the next step, or with
    `?to=` all steps to one of `TARGETS`. For browsers and for curl."""

    def __init__(self, carriers: SimulatedCarriers) -> None:
        self._carriers = carriers

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        switches = f"/switches/{{carrier:{'|'.join(self._carriers.protocols)}}}"
        return [
            web.get(switches, self._switches),
            web.put(switches, self._switch),
            web.get("/parcels/{number}", self._show),
            web.post("/parcels/{number}/move", self._move),
        ]

    async def _switches(self, request: web.Request) -> web.Response:
        return _json(self._carriers.board.of(request.match_info["carrier"]))

    async def _switch(self, request: web.Request) -> web.Response:
        """What the body does not name behaves well again."""
        try:
            switches = msgspec.json.decode(await request.read(), type=CarrierFaults)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        self._carriers.courier.switch(request.match_info["carrier"], switches)
        return _json(switches)

    async def _show(self, request: web.Request) -> web.Response:
        try:
            return self._told(self._carriers.depot.find(request.match_info["number"]))
        except ShipmentStoreRefusal as refusal:
            return _refused(refusal)

    async def _move(self, request: web.Request) -> web.Response:
        target = request.query.get("to")
        if target is not None and target not in TARGETS:
            raise web.HTTPBadRequest(text=f"a parcel can be moved to {', '.join(TARGETS)}")
        try:
            parcel = self._carriers.courier.move(request.match_info["number"], target)
        except ShipmentStoreRefusal as refusal:
            return _refused(refusal)
        if "text/html" in request.headers.get("Accept", ""):
            raise web.HTTPSeeOther("/")
        return self._told(parcel)

    def _told(self, parcel: SimulatedShipment) -> web.Response:
        events = self._carriers.depot.events(parcel.carrier, parcel.number)
        told = [{"step": event.step, "at_ms": event.at_ms, "place": event.place} for event in events]
        named = ("carrier", "number", "order_no", "company", "state")
        return _json({name: getattr(parcel, name) for name in named} | {"events": told})


def _refused(refusal: ShipmentStoreRefusal) -> web.Response:
    status = 404 if refusal.code == "no_parcel" else 409
    return web.json_response({"code": refusal.code, "detail": str(refusal)}, status=status)


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
