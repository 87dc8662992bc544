"""Booking requests as orders to SF Express, and its orders as confirmations.

Fields and their limits: https://open.sf-express.com/Api/ApiDetails?level3=393.
"""

from __future__ import annotations

import re
from typing import Any

from commerce.kernel.address import Address
from commerce.kernel.external import ExternalOutcomeUnknown, ExternalRefusal
from commerce.shipping.carrier_port import BookingConfirmation, BookingRequest
from commerce.shipping.carriers.sf_express import messages, status_map
from commerce.shipping.carriers.sf_express.settings import SfExpressAccount

COUNTRY, CURRENCY = "CN", "CNY"
SENDER, RECIPIENT = 1, 2
PAID_BY_SENDER, PAID_BY_THIRD_PARTY = 1, 3
COLLECT = 1
MAX_CONTENT_NAME_CHARACTERS, MAX_SORT_CODE_CHARACTERS = 128, 64
_MAX_CHARACTERS = {
    "contact": 100,
    "mobile": 20,
    "province": 30,
    "city": 100,
    "county": 30,
    "address": 200,
    "postCode": 25,
}


def make_order(request: BookingRequest, account: SfExpressAccount) -> dict[str, Any]:
    """Make the message that creates an order at SF.

    Raises `ExternalRefusal` if SF would refuse the order or cut a part of its address. `isDocall` is left out, so no
    collection is ordered: SF collects at each warehouse every day. A return is collected at the customer's, who pays
    nothing: the owner of the monthly card is neither the sender nor at the recipient's door."""
    order: dict[str, Any] = {
        "language": "zh-CN",
        "orderId": request.booking_id.hex,
        "cargoDetails": [
            {"name": line.name[:MAX_CONTENT_NAME_CHARACTERS], "count": line.quantity} for line in request.contents
        ],
        "contactInfoList": [_contact(SENDER, request.sender), _contact(RECIPIENT, request.recipient)],
        "monthlyCard": account.monthly_card,
        "payMethod": PAID_BY_THIRD_PARTY if request.is_return else PAID_BY_SENDER,
        "expressTypeId": account.express_type,
        "parcelQty": 1,
        "totalWeight": request.weight_g / 1_000,
        "totalLength": request.length_mm / 10,
        "totalWidth": request.width_mm / 10,
        "totalHeight": request.height_mm / 10,
        "isReturnRoutelabel": 1,
        "isUnifiedWaybillNo": 1,
    }
    if request.is_return:
        order["isDocall"] = COLLECT
    if request.cod is not None:
        if request.cod.currency != CURRENCY:
            raise ExternalRefusal(
                "unsupported", f"SF Express collects {CURRENCY} on delivery, not {request.cod.currency}"
            )
        yuan, fen = divmod(request.cod.amount, 100)
        order["serviceList"] = [{"name": "COD", "value": f"{yuan}.{fen:02d}", "value1": account.cod_card}]
    return order


def _contact(kind: int, address: Address) -> dict[str, Any]:
    if address.country != COUNTRY:
        raise ExternalRefusal("unsupported", f"SF Express ships within {COUNTRY}, not from or to {address.country}")
    contact = {
        "contact": address.name,
        "mobile": digits_of(address.phone.removeprefix("+86")),
        "province": address.province,
        "city": address.city,
        "county": address.district,
        "address": address.line,
        "postCode": address.postcode,
    }
    for field, max_characters in _MAX_CHARACTERS.items():
        if len(contact[field]) > max_characters:
            # A cut address is a wrong address.
            raise ExternalRefusal(
                "too_long", f"SF Express accepts {max_characters} characters as {field}, not {len(contact[field])}"
            )
    return {"contactType": kind, "country": COUNTRY} | {name: text for name, text in contact.items() if text}


def digits_of(phone: str) -> str:
    return re.sub("[^0-9]", "", phone)


def read_order(order: messages.SfOrder) -> BookingConfirmation:
    """Convert an order to a confirmation.

    Raises `ExternalRefusal` if SF does not serve an address, and `ExternalOutcomeUnknown` while that is undecided or
    the order has no single number."""
    filter_result = str(order.filter_result)
    if filter_result == status_map.FILTER_NOT_SERVED:
        raise ExternalRefusal(
            "filter_3", f"SF Express does not serve one of the addresses: {(order.remark or '')[:200]}"
        )
    if order.filter_result is not None and filter_result != status_map.FILTER_SERVED:
        raise ExternalOutcomeUnknown(
            f"SF Express has not decided yet whether it serves the addresses: filterResult {filter_result[:40]}"
        )
    numbers = [waybill.waybill_no for waybill in order.waybill_no_info_list or () if str(waybill.waybill_type) == "1"]
    if len(numbers) != 1:
        raise ExternalOutcomeUnknown(f"SF Express's order has {len(numbers)} numbers, not one")
    return BookingConfirmation(numbers[0], _sort_code(order))


def _sort_code(order: messages.SfOrder) -> str | None:
    for label in order.route_label_info or ():
        sort_code = label.route_label_data.dest_route_label if label.route_label_data else None
        if str(label.code) == "1000" and sort_code and len(sort_code) <= MAX_SORT_CODE_CHARACTERS:
            return sort_code
    return None
