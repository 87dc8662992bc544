"""kuaidi100 as a source of tracking events of other carriers, with which staff book."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from commerce.kernel.external import (
    ExternalOutcomeUnknown,
    ExternalRefusal,
    HttpTransport,
    InvalidWebhook,
    WebhookReply,
)
from commerce.shipping.carrier_port import (
    BookingConfirmation,
    BookingRequest,
    CancelOutcome,
    CarrierWebhook,
    ShipmentUpdate,
    TrackingEvent,
)
from commerce.shipping.carriers.kuaidi100 import status_map, wire
from commerce.shipping.carriers.kuaidi100.settings import Kuaidi100Account, names_by_code
from commerce.shipping.model import to_tracking_no

_HEADERS = {
    "Content-Type": "application/x-www-form-urlencoded",
    "Accept": "application/json",
    "User-Agent": "floodgate",
}
_TRACKING_NO = re.compile(r"[0-9A-Za-z-]{1,64}")


class Kuaidi100:
    """The system that all `Kuaidi100Carrier`s share, and the reader of its webhooks.

    Implements `commerce.shipping.carrier_port.CarrierWebhookReader`. `carriers` maps names in the rate table to
    kuaidi100's codes. Raises `ValueError` if the map cannot be used."""

    system = "kuaidi100"

    def __init__(self, account: Kuaidi100Account, transport: HttpTransport, carriers: Mapping[str, str]) -> None:
        self._account = account
        self._transport = transport
        self._names = names_by_code(carriers)
        self.min_poll_interval_s = account.min_poll_interval_s

    async def subscribe(self, com: str, tracking_no: str, phone: str) -> None:
        """Request webhooks for a shipment of the carrier with code `com`.

        Idempotent: up to four times a month, kuaidi100 answers a repeated request as such."""
        form = wire.make_subscribe_form(self._account, com, tracking_no, phone)
        reply = await self._post("/poll", form, wire.Kuaidi100SubscribeReply)
        code = str(reply.return_code)
        if code not in status_map.SUBSCRIBED_CODES or (code == "200" and not reply.result):
            raise status_map.subscribe_error(code, reply.message or "")

    async def fetch_tracking(self, com: str, tracking_no: str, phone: str) -> list[TrackingEvent]:
        """Fetch a shipment's history.

        kuaidi100 locks a number that is queried more often than every half hour."""
        form = wire.make_query_form(self._account, com, tracking_no, phone)
        reply = await self._post("/poll/query.do", form, wire.Kuaidi100Reply)
        code = str(reply.status if reply.return_code is None else reply.return_code)
        if code in status_map.NO_HISTORY_CODES:
            return []
        if code != "200":
            raise status_map.query_error(code, reply.message or "")
        if reply.com != com or to_tracking_no(reply.nu or "") != to_tracking_no(tracking_no):
            raise ExternalOutcomeUnknown("kuaidi100 answers about another shipment than the requested one")
        if reply.data is None:
            raise ExternalOutcomeUnknown("kuaidi100 answers without a history")
        try:
            return wire.read_events(reply.data)
        except ValueError as error:
            raise ExternalOutcomeUnknown(f"cannot read kuaidi100's history of a shipment: {error}") from None

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        """Verify and decode a webhook. Equal histories have equal ids.

        A webhook does not contain the time at which it was sent, so none is ever stale."""
        param = wire.read_signed_param(body, self._account.salt)
        content = wire.decode_param(param)
        history = content.last_result
        com, tracking_no = content.com_old or history.com or "", history.nu or ""
        if com not in self._names:
            raise InvalidWebhook("foreign", f"the settings name no carrier with the code {com[:40]!r}")
        if not _TRACKING_NO.fullmatch(tracking_no):
            raise InvalidWebhook("bad_content", f"{tracking_no[:40]!r} is not a tracking number")
        try:
            events = wire.read_events(history.data or [])
        except ValueError as error:
            raise InvalidWebhook("bad_content", str(error)) from None
        return CarrierWebhook(
            hashlib.sha256(param.encode("utf-8", "surrogateescape")).hexdigest(),
            [ShipmentUpdate(self._names[com], tracking_no, events)],
        )

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """Make the reply. kuaidi100 repeats a webhook that is not accepted three times, half an hour apart.

        It reads the body only. The status is for our own statistics: a forged webhook must not count as our error."""
        if accepted:
            body = '{"result":true,"returnCode":"200","message":"成功"}'
            return WebhookReply(200, "application/json", body.encode())
        body = '{"result":false,"returnCode":"500","message":"not stored, send it again"}'
        return WebhookReply(400, "application/json", body.encode())

    async def _post(self, path: str, form: bytes, kind: type[wire.T]) -> wire.T:
        status, _, body = await self._transport.send("POST", self._account.base_url + path, _HEADERS, form)
        return wire.decode_reply(status, body, kind)


class Kuaidi100Carrier:
    """A carrier that kuaidi100 tracks under the code `com`.

    Implements `commerce.shipping.carrier_port.Carrier`. The carrier itself is never called: staff book with it."""

    system = Kuaidi100.system
    accepts_bookings = False
    collects_returns = False
    is_external = True
    needs_subscription = True

    def __init__(self, name: str, com: str, kuaidi100: Kuaidi100) -> None:
        self.name = name
        self.min_poll_interval_s = kuaidi100.min_poll_interval_s
        self._com = com
        self._kuaidi100 = kuaidi100

    async def book(self, request: BookingRequest) -> BookingConfirmation:
        raise self._not_booked_here()

    async def find_booking(self, booking_id: UUID) -> BookingConfirmation | None:
        raise self._not_booked_here()

    async def cancel(self, booking_id: UUID, tracking_no: str | None) -> CancelOutcome:
        return "cancelled"

    async def subscribe(self, tracking_no: str, phone: str) -> None:
        await self._kuaidi100.subscribe(self._com, tracking_no, phone)

    async def fetch_tracking(self, tracking_no: str, phone: str) -> list[TrackingEvent]:
        return await self._kuaidi100.fetch_tracking(self._com, tracking_no, phone)

    def _not_booked_here(self) -> ExternalRefusal:
        return ExternalRefusal(
            "not_booked_here", f"cannot book {self.name} here: book with the carrier and enter the tracking number"
        )
