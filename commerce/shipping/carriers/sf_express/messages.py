"""The JSON that SF Express sends, as far as it is read. Fields that are not named here are ignored.

Decoding is strict, but SF is not: its tables and its samples differ in whether codes are numbers or texts and whether
`success` is, so both are read there.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from commerce.shipping.model import TrackingNo

Word = str | int
Code = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,30}\Z")]
MaybeCode = Annotated[str, msgspec.Meta(pattern=r"^[!-~]{0,30}\Z")]


class SfEnvelope(msgspec.Struct, frozen=True, rename="camel"):
    """What the platform answers. `api_result_data` is the JSON text of a service's answer, if it was passed on."""

    api_result_code: str
    api_error_msg: str | None = None
    api_result_data: str | None = None


class Result(msgspec.Struct, frozen=True, rename="camel"):
    """What a service answers; `msg_data` is as it sees fit."""

    success: bool | str
    error_code: Word | None = None
    error_msg: str | None = None
    msg_data: msgspec.Raw = msgspec.Raw(b"null")


class Waybill(msgspec.Struct, frozen=True, rename="camel"):
    """`waybill_type` is 1 for a parcel's own number, 2 for those of its further parts, 3 for that of a signed paper."""

    waybill_type: Word
    waybill_no: TrackingNo


class SfLabelData(msgspec.Struct, frozen=True, rename="camel"):
    dest_route_label: str | None = None


class Label(msgspec.Struct, frozen=True, rename="camel"):
    code: Word | None = None
    route_label_data: SfLabelData | None = None


class SfOrder(msgspec.Struct, frozen=True, rename="camel"):
    """An order that was placed, or was looked up."""

    order_id: str
    filter_result: Word | None = None
    remark: str | None = None
    waybill_no_info_list: list[Waybill] | None = None
    route_label_info: list[Label] | None = None


class SfCancellation(msgspec.Struct, frozen=True, rename="camel"):
    """`res_status` is 2 if it was done."""

    order_id: str
    res_status: Word


class SfRoute(msgspec.Struct, frozen=True, rename="camel"):
    """Something that happened to a parcel. `accept_time` is China's."""

    accept_time: str
    op_code: Code
    remark: str | None = None
    accept_address: str | None = None
    reason_code: MaybeCode | None = None
    reason_name: str | None = None


class RoutesOfOne(msgspec.Struct, frozen=True, rename="camel"):
    mail_no: str
    routes: list[SfRoute] | None = None


class Routes(msgspec.Struct, frozen=True, rename="camel"):
    route_resps: list[RoutesOfOne]


class PushedRoute(SfRoute, frozen=True, rename="camel", kw_only=True):
    """SF gives each an `id` too, which is not read: whether it is the same in a repetition is written nowhere."""

    mailno: TrackingNo
    orderid: str | None = None


MAX_PUSHED = 100
"""SF says that it sends up to ten at once."""


class PushedRoutes(msgspec.Struct, frozen=True):
    routes: Annotated[list[PushedRoute], msgspec.Meta(min_length=1, max_length=MAX_PUSHED)] = msgspec.field(
        name="WaybillRoute"
    )


class PushedBody(msgspec.Struct, frozen=True):
    body: PushedRoutes = msgspec.field(name="Body")
