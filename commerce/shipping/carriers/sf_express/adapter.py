"""SF Express as a carrier: orders, cancellations, routes, and webhooks with routes.

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
from commerce.shipping.carriers.sf_express.orders import digits_of, make_order, read_order
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount
from commerce.shipping.model import to_tracking_no

CREATE_ORDER, SEARCH_ORDER = "EXP_RECE_CREATE_ORDER", "EXP_RECE_SEARCH_ORDER_RESP"
UPDATE_ORDER, SEARCH_ROUTES = "EXP_RECE_UPDATE_ORDER", "EXP_RECE_SEARCH_ROUTES"
CANCEL = 2
BY_TRACKING_NO, BY_ORDER_ID = "1", "2"
_HEADERS = {"Content-Type": wire.FORM, "Accept": "application/json", "User-Agent": "floodgate"}
T = TypeVar("T")


class SfExpress:
    """Implements `commerce.shipping.carrier_port.Carrier` and `CarrierWebhookReader`.

    SF answers a repeated order with its first reply, or reports a duplicate; then the order is looked up.

    SF signs no webhooks. A webhook is accepted because it knows the secret in the registered address; the caller must
    apply it only to shipments that were booked here."""

    name = "sf_express"
    system = "sf_express"
    accepts_bookings = True
    collects_returns = True
    is_external = True
    needs_subscription = False
    min_poll_interval_s = 0.0  # its documents limit the calls of an account per second, not those for a number

    def __init__(self, account: SfExpressAccount, transport: HttpTransport, clock: Clock) -> None:
        self._account = account
        self._transport = transport
        self._clock = clock
        self._ids = IdGenerator(clock)

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        message = make_order(request, self._account)
        order: messages.SfOrder | None
        try:
            order = await self._call(CREATE_ORDER, message, messages.SfOrder, status_map.BOOKING_REFUSALS)
            _check_order_id(order, request.booking_id)
        except ExternalRefusal as refusal:
            # Refused now, the order may still exist from an earlier request whose reply was lost.
            order = await self._find_order(request.booking_id)
            if order is None:
                if refusal.code == status_map.DUPLICATE_ORDER:
                    raise ExternalOutcomeUnknown("SF Express reports a duplicate order and does not find it") from None
                raise
        else:
            if str(order.filter_result) == status_map.FILTER_BY_HAND:
                # The reply to a repeated order may be the first one; SF may have decided since.
                order = await self._find_order(request.booking_id) or order
        return read_order(order)

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        """Find the confirmation of a booking; None also if SF does not serve the addresses."""
        order = await self._find_order(booking_id)
        if order is None or str(order.filter_result) == status_map.FILTER_NOT_SERVED:
            return None
        return read_order(order)

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        """Cancel an order.

        SF does not remember the cancellation of an order that it does not know: "absent" is final only once every
        request to book it has ended."""
        message = {"orderId": booking_id.hex, "dealType": CANCEL, "language": "zh-CN"}
        refusals = status_map.ABSENT_CODES | status_map.CANCELLED_CODES
        try:
            result = await self._call(UPDATE_ORDER, message, messages.SfCancellation, refusals)
            if result.order_id != booking_id.hex or str(result.res_status) != status_map.UPDATED:
                raise ExternalOutcomeUnknown(
                    f"SF Express answers a cancellation with resStatus {str(result.res_status)[:40]}"
                )
        except ExternalRefusal as refusal:
            if refusal.code in status_map.CANCELLED_CODES:
                return "cancelled"
            if tracking_no is not None:
                raise ExternalOutcomeUnknown("SF Express does not find an order that has its number") from None
            return "absent"
        except ExternalOutcomeUnknown:
            # No known code means that SF has the shipment already. Its routes do.
            if any(event.status for event in await self._fetch_routes(BY_ORDER_ID, booking_id.hex)):
                return "too_late"
            raise
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        """Do nothing: SF sends the routes of all orders that came over its platform."""

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return await self._fetch_routes(BY_TRACKING_NO, tracking_no, checkPhoneNo=digits_of(phone)[-4:])

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        key = query.get("key", "").encode(errors="replace")
        if not compare_digest(key, self._account.webhook_key.encode()):
            raise InvalidWebhook("bad_signature", "the address is not the one that was registered with SF Express")
        by_tracking_no: dict[str, list[messages.SfWebhookRoute]] = {}
        for route in wire.decode_webhook(body):
            by_tracking_no.setdefault(route.mailno, []).append(route)
        try:
            updates = [
                ShipmentUpdate(self.name, tracking_no, wire.read_routes(routes), parse_uuid_hex(routes[0].orderid))
                for tracking_no, routes in by_tracking_no.items()
            ]
        except ValueError as error:
            raise InvalidWebhook("bad_content", str(error)) from None
        return CarrierWebhook(wire.make_webhook_id(updates), updates)

    def acknowledge(self, accepted: bool) -> WebhookReply:
        body = b'{"return_code":"0000","return_msg":"OK"}'
        if not accepted:
            body = b'{"return_code":"1000","return_msg":"not stored, send it again"}'
        return WebhookReply(200, "application/json", body)

    async def _call(self, service: str, message: dict[str, Any], kind: type[T], refusals: frozenset[str]) -> T:
        body = wire.make_request(
            self._account, service, message, now_ms=self._clock.now_ms(), request_id=str(self._ids.new())
        )
        response = await self._transport.send("POST", self._account.base_url, _HEADERS, body)
        return wire.read_reply(response, kind, refusals)

    async def _find_order(self, booking_id: UUID) -> messages.SfOrder | None:
        message = {"orderId": booking_id.hex, "searchType": "1", "language": "zh-CN"}
        try:
            order = await self._call(SEARCH_ORDER, message, messages.SfOrder, status_map.ABSENT_CODES)
        except ExternalRefusal:
            return None
        _check_order_id(order, booking_id)
        return order

    async def _fetch_routes(self, tracking_type: str, number: str, **fields: str) -> list[TrackingEvent]:
        message = {
            "language": "zh-CN",
            "trackingType": tracking_type,
            "trackingNumber": [number],
            "methodType": "1",
            **fields,
        }
        try:
            reply = await self._call(SEARCH_ROUTES, message, messages.SfRoutes, status_map.ABSENT_CODES)
        except ExternalRefusal:
            return []
        if tracking_type == BY_TRACKING_NO and any(
            to_tracking_no(shipment.mail_no) != to_tracking_no(number) for shipment in reply.route_resps
        ):
            raise ExternalOutcomeUnknown("SF Express answers about another shipment than the requested one")
        try:
            return wire.read_routes(route for shipment in reply.route_resps for route in shipment.routes or ())
        except ValueError as error:
            raise ExternalOutcomeUnknown(f"cannot read SF Express's routes: {error}") from None


def _check_order_id(order: messages.SfOrder, booking_id: UUID) -> None:
    if order.order_id != booking_id.hex:
        raise ExternalOutcomeUnknown("SF Express answers about another order than the requested one")
