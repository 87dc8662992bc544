"""SF Express as a carrier: orders, cancellations, routes, and the routes that it pushes.

Services: https://open.sf-express.com/Api/ApiDetails?level3=393 (EXP_RECE_CREATE_ORDER), …=396
(EXP_RECE_SEARCH_ORDER_RESP), …=404 (RoutePushService); EXP_RECE_UPDATE_ORDER and EXP_RECE_SEARCH_ROUTES beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hmac import compare_digest
from typing import Any, TypeVar
from uuid import UUID

from commerce.kernel.clock import Clock
from commerce.kernel.external import (
    ExternalOutcomeUnknown,
    ExternalRefusal,
    HttpTransport,
    InvalidWebhook,
    WebhookReply,
)
from commerce.kernel.ids import IdGenerator, parse_uuid_hex
from commerce.shipping.carrier_port import (
    BookingConfirmation,
    BookingRequest,
    CancelOutcome,
    CarrierWebhook,
    ShipmentUpdate,
    TrackingEvent,
)
from commerce.shipping.carriers.sf_express import messages, status_map, wire
from commerce.shipping.carriers.sf_express.orders import digits, read_order, write_order
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount

CREATE, LOOK_UP = "EXP_RECE_CREATE_ORDER", "EXP_RECE_SEARCH_ORDER_RESP"
UPDATE, ROUTES = "EXP_RECE_UPDATE_ORDER", "EXP_RECE_SEARCH_ROUTES"
CANCEL = 2
BY_NUMBER, BY_ORDER = "1", "2"
T = TypeVar("T")


class SfExpress:
    """See `commerce.shipping.carrier_port.Carrier` and `PushReader`. Asked again for an order, SF gives what it gave before, or
    calls it repeated; then it is looked up.

    SF signs nothing that it pushes. A push is believed because it knows the secret in the address that was registered;
    whoever takes it up must believe it only of parcels that were booked here.
    """

    name = "sf_express"
    system = "sf_express"
    accepts_bookings = True
    is_external = True
    needs_subscription = False

    def __init__(self, account: SfExpressAccount, outside: HttpTransport, clock: Clock) -> None:
        self._account = account
        self._outside = outside
        self._clock = clock
        self._ids = IdGenerator(clock)

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
        order = write_order(parcel, self._account)
        placed: messages.SfOrder | None
        try:
            placed = _about(parcel.booking_id, await self._ask(CREATE, order, messages.SfOrder, status_map.NOT_BOOKED))
        except ExternalRefusal as no:
            # Refused now, it may still have been taken when it was asked for before and the answer got lost.
            placed = await self._look_up(parcel.booking_id)
            if placed is None:
                if no.code == status_map.REPEATED:
                    raise ExternalOutcomeUnknown("SF Express has this order and does not find it") from None
                raise
        else:
            if str(placed.filter_result) == status_map.BY_HAND:
                # A repeated order may be answered as it stood at first; somebody may have judged it since.
                placed = await self._look_up(parcel.booking_id) or placed
        return read_order(placed)

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        """None too where SF has judged that it does not come."""
        placed = await self._look_up(booking_id)
        if placed is None or str(placed.filter_result) == status_map.WILL_NOT:
            return None
        return read_order(placed)

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        """SF remembers no cancellation of an order that it does not know: "absent" holds once every request to book it
        has ended."""
        wish = {"orderId": booking_id.hex, "dealType": CANCEL, "language": "zh-CN"}
        try:
            done = await self._ask(UPDATE, wish, messages.SfCancellation, status_map.ABSENT | status_map.CANCELLED)
            if done.order_id != booking_id.hex or str(done.res_status) != status_map.UPDATED:
                raise ExternalOutcomeUnknown(
                    f"SF Express answers a cancellation with resStatus {str(done.res_status)[:40]}"
                )
        except ExternalRefusal as no:
            if no.code in status_map.CANCELLED:
                return "cancelled"
            if tracking_no is not None:
                raise ExternalOutcomeUnknown("SF Express does not know an order that it gave a number to") from None
            return "absent"
        except ExternalOutcomeUnknown:
            # No code is known to say that it has the parcel already. What has happened to it does.
            if any(news.state for news in await self._routes(BY_ORDER, booking_id.hex)):
                return "too_late"
            raise
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        """Nothing is to be asked: SF pushes the routes of all orders that came over its platform."""

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return await self._routes(BY_NUMBER, tracking_no, checkPhoneNo=digits(phone)[-4:])

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        key = query.get("key", "").encode(errors="replace")
        if not compare_digest(key, self._account.push_key.encode()):
            raise InvalidWebhook("bad_signature", "the address is not the one that was registered with SF Express")
        by_number: dict[str, list[messages.PushedRoute]] = {}
        for route in wire.read_push(body):
            by_number.setdefault(route.mailno, []).append(route)
        try:
            pushes = [
                ShipmentUpdate(self.name, number, wire.read_routes(found), parse_uuid_hex(found[0].orderid))
                for number, found in by_number.items()
            ]
        except ValueError as why:
            raise InvalidWebhook("bad_content", str(why)) from None
        return CarrierWebhook(wire.notice_id(pushes), pushes)

    def acknowledge(self, accepted: bool) -> WebhookReply:
        body = b'{"return_code":"0000","return_msg":"OK"}'
        if not accepted:
            body = b'{"return_code":"1000","return_msg":"not stored, send it again"}'
        return WebhookReply(200, "application/json", body)

    # What the methods above have in common.

    async def _ask(self, service: str, message: dict[str, Any], kind: type[T], noes: frozenset[str]) -> T:
        body = wire.request(
            self._account, service, message, now_ms=self._clock.now_ms(), request_id=str(self._ids.new())
        )
        headers = {"Content-Type": wire.FORM, "Accept": "application/json", "User-Agent": "floodgate"}
        return wire.read_answer(await self._outside.send("POST", self._account.base_url, headers, body), kind, noes)

    async def _look_up(self, booking_id: UUID) -> messages.SfOrder | None:
        wish = {"orderId": booking_id.hex, "searchType": "1", "language": "zh-CN"}
        try:
            return _about(booking_id, await self._ask(LOOK_UP, wish, messages.SfOrder, status_map.ABSENT))
        except ExternalRefusal:
            return None

    async def _routes(self, by: str, number: str, **more: str) -> list[TrackingEvent]:
        wish = {"language": "zh-CN", "trackingType": by, "trackingNumber": [number], "methodType": "1", **more}
        try:
            found = await self._ask(ROUTES, wish, messages.Routes, status_map.ABSENT)
        except ExternalRefusal:
            return []
        if by == BY_NUMBER and any(one.mail_no != number for one in found.route_resps):
            raise ExternalOutcomeUnknown("SF Express answers about another parcel than was asked for")
        try:
            return wire.read_routes(route for one in found.route_resps for route in one.routes or ())
        except ValueError as why:
            raise ExternalOutcomeUnknown(f"SF Express's routes: {why}") from None


def _about(booking_id: UUID, order: messages.SfOrder) -> messages.SfOrder:
    if order.order_id != booking_id.hex:
        raise ExternalOutcomeUnknown("SF Express answers about another order than was asked for")
    return order
