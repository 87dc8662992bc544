"""A parcel as an order to SF Express, and what it says of one.

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
SENDER, RECEIVER = 1, 2
PAID_BY_SENDER = 1
MAX_NAME_OF_GOODS, MAX_SORT_CODE = 128, 64
_MAX = {"contact": 100, "mobile": 20, "province": 30, "city": 100, "county": 30, "address": 200, "postCode": 25}


def write_order(parcel: BookingRequest, account: SfExpressAccount) -> dict[str, Any]:
    """Raises `Refused` for what SF would not take, or would not take whole.

    Nobody is sent for it at once (`isDocall` is left out): a courier comes to a warehouse every day.
    """
    order: dict[str, Any] = {
        "language": "zh-CN",
        "orderId": parcel.booking_id.hex,
        "cargoDetails": [
            {"name": thing.name[:MAX_NAME_OF_GOODS], "count": thing.quantity} for thing in parcel.contents
        ],
        "contactInfoList": [_contact(SENDER, parcel.sender), _contact(RECEIVER, parcel.to)],
        "monthlyCard": account.monthly_card,
        "payMethod": PAID_BY_SENDER,
        "expressTypeId": account.express_type,
        "parcelQty": 1,
        "totalWeight": parcel.weight_g / 1_000,
        "totalLength": parcel.length_mm / 10,
        "totalWidth": parcel.width_mm / 10,
        "totalHeight": parcel.height_mm / 10,
        "isReturnRoutelabel": 1,
        "isUnifiedWaybillNo": 1,
    }
    if parcel.cod is not None:
        if parcel.cod.currency != CURRENCY:
            raise ExternalRefusal(
                "unsupported", f"SF Express collects {CURRENCY} at the door, not {parcel.cod.currency}"
            )
        yuan, fen = divmod(parcel.cod.amount, 100)
        order["serviceList"] = [{"name": "COD", "value": f"{yuan}.{fen:02d}", "value1": account.cod_card}]
    return order


def _contact(kind: int, address: Address) -> dict[str, Any]:
    if address.country != COUNTRY:
        raise ExternalRefusal(
            "unsupported", f"SF Express brings parcels within {COUNTRY}, not from or to {address.country}"
        )
    contact = {
        "contact": address.name,
        "mobile": digits(address.phone.removeprefix("+86")),
        "province": address.province,
        "city": address.city,
        "county": address.district,
        "address": address.line,
        "postCode": address.postcode,
    }
    for field, most in _MAX.items():
        if len(contact[field]) > most:
            # Half an address leads to a wrong door.
            raise ExternalRefusal(
                "too_long", f"SF Express takes {most} characters as {field}, not {len(contact[field])}"
            )
    return {"contactType": kind, "country": COUNTRY} | {name: text for name, text in contact.items() if text}


def digits(phone: str) -> str:
    return re.sub("[^0-9]", "", phone)


def read_order(order: messages.SfOrder) -> BookingConfirmation:
    """Raises `Refused` where SF does not serve an address, `Unclear` as long as that or the number is open."""
    judged = str(order.filter_result)
    if judged == status_map.WILL_NOT:
        raise ExternalRefusal(
            "filter_3", f"SF Express does not serve one of the addresses: {(order.remark or '')[:200]}"
        )
    if order.filter_result is not None and judged != status_map.MAY_COME:
        raise ExternalOutcomeUnknown(f"SF Express has not judged yet whether it comes: filterResult {judged[:40]}")
    numbers = [bill.waybill_no for bill in order.waybill_no_info_list or () if str(bill.waybill_type) == "1"]
    if len(numbers) != 1:
        raise ExternalOutcomeUnknown(f"SF Express has an order with {len(numbers)} numbers, not one")
    return BookingConfirmation(numbers[0], _sort_code(order))


def _sort_code(order: messages.SfOrder) -> str | None:
    for label in order.route_label_info or ():
        said = label.route_label_data.dest_route_label if label.route_label_data else None
        if str(label.code) == "1000" and said and len(said) <= MAX_SORT_CODE:
            return said
    return None
