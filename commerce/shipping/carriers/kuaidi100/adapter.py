"""kuaidi100 as a way to hear of parcels that other carriers bring and that the desk has booked with them."""

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

_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", "User-Agent": "floodgate"}
_NUMBER = re.compile(r"[0-9A-Za-z-]{1,64}")


class Kuaidi100:
    """The system behind all `Kuaidi100Carrier`, and their pushes: see `commerce.shipping.carrier_port.PushReader`.

    `carriers` has kuaidi100's codes by names in the rate table; raises `ValueError` where it cannot be used.
    """

    system = "kuaidi100"

    def __init__(self, account: Kuaidi100Account, outside: HttpTransport, carriers: Mapping[str, str]) -> None:
        self._account = account
        self._outside = outside
        self._names = names_by_code(carriers)

    async def subscribe(self, com: str, number: str, phone: str) -> None:
        """Ask for a parcel's pushes. A parcel may be asked for four times a month, which then counts as repeated."""
        form = wire.follow_form(self._account, com, number, phone)
        answer = await self._ask("/poll", form, wire.FollowAnswer)
        code = str(answer.return_code)
        if code not in status_map.FOLLOWED or (code == "200" and not answer.result):
            raise status_map.follow_failure(code, answer.message or "")

    async def fetch_tracking(self, com: str, number: str, phone: str) -> list[TrackingEvent]:
        """A parcel's history. It is locked for who asks for the same one more often than every half hour."""
        answer = await self._ask(
            "/poll/query.do", wire.query_form(self._account, com, number, phone), wire.Kuaidi100Reply
        )
        code = str(answer.status if answer.return_code is None else answer.return_code)
        if code in status_map.NOT_HEARD_OF:
            return []
        if code != "200":
            raise status_map.query_failure(code, answer.message or "")
        if answer.com != com or (answer.nu or "").upper() != number.upper():
            raise ExternalOutcomeUnknown("kuaidi100 answers about another parcel than was asked for")
        if answer.data is None:
            raise ExternalOutcomeUnknown("kuaidi100 answers without a history")
        try:
            return wire.read_news(answer.data)
        except ValueError as why:
            raise ExternalOutcomeUnknown(f"kuaidi100's history of a parcel: {why}") from None

    def read_webhook(
        self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes, now: datetime
    ) -> CarrierWebhook:
        """The same history again is the same notice. Nothing in it says when it was sent, so none is ever stale."""
        param = wire.read_form(body, self._account.salt)
        pushed = wire.read_pushed(param)
        found = pushed.last_result
        com, number = pushed.com_old or found.com or "", found.nu or ""
        if com not in self._names:
            raise InvalidWebhook("foreign", f"parcels of {com[:40]!r} are not followed here")
        if not _NUMBER.fullmatch(number):
            raise InvalidWebhook("bad_content", f"{number[:40]!r} is no parcel's number")
        try:
            news = wire.read_news(found.data or [])
        except ValueError as why:
            raise InvalidWebhook("bad_content", str(why)) from None
        return CarrierWebhook(
            hashlib.sha256(param.encode()).hexdigest(), [ShipmentUpdate(self._names[com], number, news)]
        )

    def acknowledge(self, accepted: bool) -> WebhookReply:
        """What is not accepted comes again, three times, half an hour apart. It reads the body; the status is for us,
        since whoever sends what is not genuine must not make us look broken."""
        if accepted:
            body = '{"result":true,"returnCode":"200","message":"成功"}'
            return WebhookReply(200, "application/json", body.encode())
        body = '{"result":false,"returnCode":"500","message":"not stored, send it again"}'
        return WebhookReply(400, "application/json", body.encode())

    async def _ask(self, path: str, form: bytes, kind: type[wire.T]) -> wire.T:
        status, _, body = await self._outside.send("POST", self._account.base_url + path, _FORM, form)
        return wire.read_answer(status, body, kind)


class Kuaidi100Carrier:
    """One carrier that kuaidi100 follows under its code `com`: see `commerce.shipping.carrier_port.Carrier`.

    Nothing is ever asked of the carrier itself, so a booking is a matter between it and the desk.
    """

    system = Kuaidi100.system
    accepts_bookings = False
    is_external = True
    needs_subscription = True

    def __init__(self, name: str, com: str, kuaidi100: Kuaidi100) -> None:
        self.name = name
        self._com = com
        self._kuaidi100 = kuaidi100

    async def book(self, parcel: BookingRequest) -> BookingConfirmation:
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
        return ExternalRefusal("not_booked_here", f"the desk books {self.name} by itself and says the number")
