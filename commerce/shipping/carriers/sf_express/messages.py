"""The JSON that SF Express sends, as far as it is read. Fields that are not named here are ignored.

Decoding is strict, but SF is not: its tables and its samples differ on whether codes are numbers or texts, and on
whether `success` is a text. There both are read.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from commerce.shipping.model import TrackingNo

TextOrNumber = str | int


class SfEnvelope(msgspec.Struct, frozen=True, rename="camel"):
    """The platform's reply.

    `api_result_data` is the JSON text of the service's reply if the request reached it."""

    api_result_code: str
    api_error_msg: str | None = None
    api_result_data: str | None = None


class SfResult(msgspec.Struct, frozen=True, rename="camel"):
    """A service's reply; the form of `msg_data` depends on the service."""

    success: bool | str
    error_code: TextOrNumber | None = None
    error_msg: str | None = None
    msg_data: msgspec.Raw = msgspec.Raw(b"null")


class SfWaybill(msgspec.Struct, frozen=True, rename="camel"):
    """A number. `waybill_type` is 1 for the shipment, 2 for its further pieces, 3 for the signed receipt."""

    waybill_type: TextOrNumber
    waybill_no: TrackingNo


class SfLabelData(msgspec.Struct, frozen=True, rename="camel"):
    dest_route_label: str | None = None


class SfLabel(msgspec.Struct, frozen=True, rename="camel"):
    code: TextOrNumber | None = None
    route_label_data: SfLabelData | None = None


class SfOrder(msgspec.Struct, frozen=True, rename="camel"):
    """An order at SF, as created or as found."""

    order_id: str
    filter_result: TextOrNumber | None = None
    remark: str | None = None
    waybill_no_info_list: list[SfWaybill] | None = None
    route_label_info: list[SfLabel] | None = None


class SfCancellation(msgspec.Struct, frozen=True, rename="camel"):
    """The reply to a cancellation. `res_status` is 2 if the order is cancelled."""

    order_id: str
    res_status: TextOrNumber


class SfRoute(msgspec.Struct, frozen=True, rename="camel"):
    """SF's tracking event. `accept_time` is in China's time."""

    accept_time: str
    op_code: str
    remark: str | None = None
    accept_address: str | None = None
    reason_code: str | None = None
    reason_name: str | None = None


class SfShipmentRoutes(msgspec.Struct, frozen=True, rename="camel"):
    mail_no: str
    routes: list[SfRoute] | None = None


class SfRoutes(msgspec.Struct, frozen=True, rename="camel"):
    route_resps: list[SfShipmentRoutes]


class SfWebhookRoute(SfRoute, frozen=True, rename="camel", kw_only=True):
    """A route in a webhook. Its `id` is not read: no document says that it is the same in a repetition."""

    mailno: TrackingNo
    orderid: str | None = None


MAX_WEBHOOK_ROUTES = 100
"""SF's documents promise at most ten."""


class SfWebhookRoutes(msgspec.Struct, frozen=True):
    routes: Annotated[list[SfWebhookRoute], msgspec.Meta(min_length=1, max_length=MAX_WEBHOOK_ROUTES)] = msgspec.field(
        name="WaybillRoute"
    )


class SfWebhookBody(msgspec.Struct, frozen=True):
    body: SfWebhookRoutes = msgspec.field(name="Body")
