"""SF Express's side of its open platform for one customer: bookings, cancellations and routes.

Formats and codes are those of https://open.sf-express.com (速运类API: EXP_RECE_CREATE_ORDER,
EXP_RECE_SEARCH_ORDER_RESP, EXP_RECE_UPDATE_ORDER, EXP_RECE_SEARCH_ROUTES and 路由推送; codes of routes at
developSupport/734349). Bookings are confirmed at once. The allowed age of a timestamp is not documented, so only its
form is checked.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote_plus, urlencode

import msgspec
from aiohttp import web

from commerce.kernel.china_time import format_china_time
from commerce.kernel.clock import from_ms
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.shipment_simulator import ShipmentSimulator
from ops.sandbox.shipment_store import ShipmentStore, ShipmentStoreRefusal, SimulatedEvent, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook

_REQUIRED = ("partnerID", "requestID", "serviceCode", "timestamp", "msgDigest", "msgData")
_PLATFORM = {
    "A1001": "必传参数不可为空",
    "A1004": "无对应服务权限",
    "A1006": "数字签名无效",
}
_CODES = {
    "duplicate": ("8016", "重复下单"),
    "no_shipment": ("8024", "未下单"),
    "cancelled": ("8037", "已消单"),
    "too_late": ("8044", "此订单已经处理中，无法接收订单修改请求"),
}
_STEPS = {
    "picked_up": ("50", "", "顺丰速运 已收取快件"),
    "departed": ("30", "", "快件在【{place}】完成分拣,准备发往下一站"),
    "arrived": ("31", "", "快件到达 【{place}】"),
    "unknown_code": ("9901", "", "快件在【{place}】特殊处理"),
    "out": ("44", "", "正在派送途中,请您准备签收"),
    "failed": ("70", "", "快件派送不成功,待进一步处理"),
    "delivered": ("80", "", "您的快件已签收,感谢您使用顺丰"),
    "turned_back": ("99", "", "快件正在转寄中"),
    "returned": ("631", "", "快件已退回"),
    "lost": ("8000", "6", "快件遗失"),
}
"""opCode, reasonCode and remark by step"""
_MAX_NUMBERS = 100


class _Contact(msgspec.Struct):
    contactType: int  # noqa: N815
    address: str
    city: str = ""
    mobile: str = ""
    tel: str = ""


class _Order(msgspec.Struct):
    orderId: str = ""  # noqa: N815
    monthlyCard: str = ""  # noqa: N815
    contactInfoList: list[_Contact] = []  # noqa: N815
    cargoDetails: list[dict[str, Any]] = []  # noqa: N815


class _Search(msgspec.Struct):
    orderId: str = ""  # noqa: N815


class _Update(msgspec.Struct):
    orderId: str = ""  # noqa: N815
    dealType: int = 1  # noqa: N815


class _Routes(msgspec.Struct):
    trackingType: str | int = "1"  # noqa: N815
    trackingNumber: list[str] | str = []  # noqa: N815
    checkPhoneNo: str = ""  # noqa: N815


class _Refusal(Exception):
    """An error code of SF Express in response to a valid request."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SfExpressSandbox:
    """The `CarrierProtocol` of SF Express.

    `webhook_url` is the URL that the shop registered for routes, without its key; empty if it registered none.
    """

    name = "sf_express"

    def __init__(
        self,
        *,
        shipment_store: ShipmentStore,
        simulator: ShipmentSimulator,
        faults: FaultRegistry[CarrierFaults],
        partner_id: str,
        check_word: str,
        monthly_card: str,
        webhook_url: str,
        webhook_key: str,
    ) -> None:
        self._shipment_store = shipment_store
        self._simulator = simulator
        self._faults = faults
        self._partner_id = partner_id
        self._check_word = check_word
        self._monthly_card = monthly_card
        self._webhook_url = webhook_url
        self._webhook_key = webhook_key
        self._services: dict[str, Callable[[bytes], dict[str, Any]]] = {
            "EXP_RECE_CREATE_ORDER": self._create,
            "EXP_RECE_SEARCH_ORDER_RESP": self._search,
            "EXP_RECE_UPDATE_ORDER": self._update,
            "EXP_RECE_SEARCH_ROUTES": self._routes,
        }

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/std/service", self._service)]

    def build_webhook(
        self, shipment: SimulatedShipment, events: Sequence[SimulatedEvent], *, has_wrong_signature: bool
    ) -> OutgoingWebhook:
        """Build the webhook of the last route. Its id is the same at every attempt."""
        event = events[-1]
        route = {
            "id": _hash_digits(f"{event.tracking_no}/{event.event_no}", 15),
            "mailno": shipment.tracking_no,
            "orderid": shipment.order_no,
            **_build_route(event),
        }
        query = urlencode({"key": self._webhook_key[::-1] if has_wrong_signature else self._webhook_key})
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        return OutgoingWebhook(
            f"{self._webhook_url}?{query}", headers, msgspec.json.encode({"Body": {"WaybillRoute": [route]}})
        )

    def is_accepted(self, status: int, body: bytes) -> bool:
        try:
            return status == 200 and msgspec.json.decode(body)["return_code"] == "0000"
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return False

    # All services have one URL.

    async def _service(self, request: web.Request) -> web.Response:
        form = await request.post()
        values = {name: value for name in _REQUIRED if isinstance(value := form.get(name), str)}
        code, data = "A1000", ""
        if len(values) < len(_REQUIRED) or not all(values.values()) or not values["timestamp"].isdigit():
            code = "A1001"
        elif values["partnerID"] != self._partner_id or not self._is_signed(values):
            code = "A1006"
        elif values["serviceCode"] not in self._services:
            code = "A1004"
        else:
            data = msgspec.json.encode(self._call_service(values["serviceCode"], values["msgData"].encode())).decode()
        return web.json_response(
            {
                "apiResponseID": secrets.token_hex(16).upper(),
                "apiErrorMsg": _PLATFORM.get(code, ""),
                "apiResultCode": code,
                "apiResultData": data or None,
            }
        )

    def _is_signed(self, values: dict[str, str]) -> bool:
        # Encoded as by Java's URLEncoder, which leaves * and encodes ~.
        text = quote_plus(values["msgData"] + values["timestamp"] + self._check_word, safe="*").replace("~", "%7E")
        digest = base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest())
        return hmac.compare_digest(digest, values["msgDigest"].encode())

    def _call_service(self, service: str, data: bytes) -> dict[str, Any]:
        try:
            result = self._services[service](data)
        except msgspec.MsgspecError:
            code, message = "4002", "报文解析错误"
        except ShipmentStoreRefusal as refusal:
            code, message = _CODES[refusal.code]
        except _Refusal as refusal:
            code, message = refusal.code, str(refusal)
        else:
            return {"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": result}
        return {"success": False, "errorCode": code, "errorMsg": message, "msgData": None}

    def _create(self, data: bytes) -> dict[str, Any]:
        order = msgspec.json.decode(data, type=_Order)
        sender, receiver = (_find_contact(order, kind) for kind in (1, 2))
        if not order.orderId:
            raise _Refusal("6118", "订单号不能为空")
        if len(order.orderId) > 64 or re.fullmatch(r"[0-9A-Za-z_-]+", order.orderId) is None:
            raise _Refusal("9003", "客户订单号格式错误，只能包含数字和字母")
        if order.monthlyCard != self._monthly_card:
            raise _Refusal("20052", "月结卡号不匹配 不允许操作该订单")
        if sender is None or receiver is None:
            raise _Refusal(*(("8039", "寄方地址错误") if sender is None else ("8040", "到方地址错误")))
        if not order.cargoDetails:
            raise _Refusal("4002", "报文解析错误")
        phone_endings = ",".join((contact.mobile or contact.tel)[-4:] for contact in (sender, receiver))
        shipment = self._simulator.create_shipment(
            self.name,
            f"SF{_hash_digits(order.orderId, 13)}",
            order_no=order.orderId,
            phone_endings=phone_endings,
            origin=sender.city or sender.address[:20],
            destination=receiver.city or receiver.address[:20],
            webhook_url=self._webhook_url,
            is_refused=self._faults.is_selected(self._faults.get(self.name).refused_share, "refused", order.orderId),
        )
        return _build_booking(shipment)

    def _search(self, data: bytes) -> dict[str, Any]:
        shipment = self._shipment_store.find_booking(self.name, msgspec.json.decode(data, type=_Search).orderId)
        if shipment is None:
            raise ShipmentStoreRefusal("no_shipment", "there is no such order")
        return _build_booking(shipment)

    def _update(self, data: bytes) -> dict[str, Any]:
        request = msgspec.json.decode(data, type=_Update)
        if request.dealType != 2:
            raise _Refusal("8252", "订单已确认")
        shipment = self._shipment_store.cancel(self.name, request.orderId)
        return {
            "orderId": shipment.order_no,
            "waybillNoInfoList": [{"waybillType": 1, "waybillNo": shipment.tracking_no}],
            "resStatus": 2,
            "extraInfoList": None,
        }

    def _routes(self, data: bytes) -> dict[str, Any]:
        """Return routes, and none for an unknown shipment or a wrong telephone number."""
        request = msgspec.json.decode(data, type=_Routes)
        numbers, phone_ending = request.trackingNumber, request.checkPhoneNo
        if isinstance(numbers, str):
            numbers = numbers.split(",")
        find = self._shipment_store.find_booking if str(request.trackingType) == "2" else self._shipment_store.find
        responses = []
        for number in numbers[:_MAX_NUMBERS]:
            shipment, events = find(self.name, number), []
            if shipment is not None and (not phone_ending or phone_ending in shipment.phone_endings.split(",")):
                events = self._shipment_store.list_events(self.name, shipment.tracking_no)
            routes = [_build_route(event) for event in events]
            responses.append({"mailNo": shipment.tracking_no if shipment else number, "routes": routes})
        return {"routeResps": responses}


def _find_contact(order: _Order, kind: int) -> _Contact | None:
    contacts = (contact for contact in order.contactInfoList if contact.contactType == kind and contact.address)
    return next((contact for contact in contacts if contact.mobile or contact.tel), None)


def _hash_digits(text: str, count: int) -> str:
    """Return digits that depend on the text only, so that a run can be repeated."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % 10**count:0{count}}"


def _build_booking(shipment: SimulatedShipment) -> dict[str, Any]:
    """Build the response to a booking. A refused one has no tracking number, only a filter result."""
    refused = shipment.state == "refused"
    place = sum(shipment.destination.encode()) % 900 + 100
    label = {
        "waybillNo": shipment.tracking_no,
        "destCityCode": str(place),
        "destDeptCode": f"{place}AB",
        "destRouteLabel": f"{place}W-AB-01",
        "codingMapping": f"S{place % 90 + 10}",
        "proName": "顺丰标快",
    }
    return {
        "orderId": shipment.order_no,
        "originCode": str(sum(shipment.origin.encode()) % 900 + 100),
        "destCode": str(place),
        "filterResult": 3 if refused else 2,
        "remark": "1" if refused else "",
        "waybillNoInfoList": None if refused else [{"waybillType": 1, "waybillNo": shipment.tracking_no}],
        "routeLabelInfo": None if refused else [{"code": "1000", "routeLabelData": label, "message": ""}],
    }


def _build_route(event: SimulatedEvent) -> dict[str, str]:
    code, reason, remark = _STEPS[event.step]
    return {
        "acceptTime": format_china_time(from_ms(event.at_ms)),
        "acceptAddress": event.place,
        "remark": remark.format(place=event.place),
        "opCode": code,
        "reasonCode": reason,
    }
