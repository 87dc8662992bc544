"""SF Express's side of its open platform: bookings, their cancelling, routes, and the push of routes, for one customer.

Forms and codes are those of https://open.sf-express.com (速运类API: EXP_RECE_CREATE_ORDER, EXP_RECE_SEARCH_ORDER_RESP,
EXP_RECE_UPDATE_ORDER, EXP_RECE_SEARCH_ROUTES and the push of routes; codes of routes at developSupport/734349).
Bookings are confirmed at once. How old a timestamp may be is not documented, so only its form is checked.
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
from ops.sandbox.shipment_store import Event, ShipmentStore, ShipmentStoreRefusal, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook

_REQUIRED = ("partnerID", "requestID", "serviceCode", "timestamp", "msgDigest", "msgData")
_PLATFORM = {
    "A1001": "必传参数不可为空",
    "A1004": "无对应服务权限",
    "A1006": "数字签名无效",
}
_CODES = {
    "known": ("8016", "重复下单"),
    "no_parcel": ("8024", "未下单"),
    "cancelled": ("8037", "已消单"),
    "too_late": ("8044", "此订单已经处理中，无法接收订单修改请求"),
}
_STEPS = {
    "picked_up": ("50", "", "顺丰速运 已收取快件"),
    "left": ("30", "", "快件在【{place}】完成分拣,准备发往下一站"),
    "arrived": ("31", "", "快件到达 【{place}】"),
    "odd": ("9901", "", "快件在【{place}】特殊处理"),
    "out": ("44", "", "正在派送途中,请您准备签收"),
    "failed": ("70", "", "快件派送不成功,待进一步处理"),
    "delivered": ("80", "", "您的快件已签收,感谢您使用顺丰"),
    "turned": ("99", "", "快件正在转寄中"),
    "returned": ("631", "", "快件已退回"),
    "lost": ("8000", "6", "快件遗失"),
}
"""opCode, reasonCode and remark."""
_MOST_NUMBERS = 100


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


class _Asked(msgspec.Struct):
    orderId: str = ""  # noqa: N815


class _Update(msgspec.Struct):
    orderId: str = ""  # noqa: N815
    dealType: int = 1  # noqa: N815


class _Routes(msgspec.Struct):
    trackingType: str | int = "1"  # noqa: N815
    trackingNumber: list[str] | str = []  # noqa: N815
    checkPhoneNo: str = ""  # noqa: N815


class _No(Exception):
    """What was asked is refused."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class SfExpressSandbox:
    """A `CarrierProtocol`. `push_url` is the address that the shop has registered for routes, without its key; none:
    it has registered none."""

    name = "sf_express"

    def __init__(
        self,
        *,
        depot: ShipmentStore,
        courier: ShipmentSimulator,
        board: FaultRegistry[CarrierFaults],
        partner_id: str,
        check_word: str,
        monthly_card: str,
        push_url: str,
        webhook_key: str,
    ) -> None:
        self._depot = depot
        self._courier = courier
        self._board = board
        self._partner_id = partner_id
        self._check_word = check_word
        self._monthly_card = monthly_card
        self._push_url = push_url
        self._webhook_key = webhook_key
        self._services: dict[str, Callable[[bytes], dict[str, Any]]] = {
            "EXP_RECE_CREATE_ORDER": self._create,
            "EXP_RECE_SEARCH_ORDER_RESP": self._search,
            "EXP_RECE_UPDATE_ORDER": self._update,
            "EXP_RECE_SEARCH_ROUTES": self._routes,
        }

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/std/service", self._service)]

    def push(self, parcel: SimulatedShipment, events: Sequence[Event], *, wrong: bool) -> OutgoingWebhook:
        """One route. Its id is the same whenever it is sent."""
        event = events[-1]
        route = {
            "id": _digits(f"{event.number}/{event.n}", 15),
            "mailno": parcel.number,
            "orderid": parcel.order_no,
            **_route(event),
        }
        query = urlencode({"key": self._webhook_key[::-1] if wrong else self._webhook_key})
        headers = {"Content-Type": "application/json;charset=UTF-8"}
        return OutgoingWebhook(
            f"{self._push_url}?{query}", headers, msgspec.json.encode({"Body": {"WaybillRoute": [route]}})
        )

    def is_accepted(self, status: int, body: bytes) -> bool:
        try:
            return status == 200 and msgspec.json.decode(body)["return_code"] == "0000"
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return False

    # The one address of all services.

    async def _service(self, request: web.Request) -> web.Response:
        form = await request.post()
        given = {name: value for name in _REQUIRED if isinstance(value := form.get(name), str)}
        code, data = "A1000", ""
        if len(given) < len(_REQUIRED) or not all(given.values()) or not given["timestamp"].isdigit():
            code = "A1001"
        elif given["partnerID"] != self._partner_id or not self._is_signed(given):
            code = "A1006"
        elif given["serviceCode"] not in self._services:
            code = "A1004"
        else:
            data = msgspec.json.encode(self._answer(given["serviceCode"], given["msgData"].encode())).decode()
        return web.json_response(
            {
                "apiResponseID": secrets.token_hex(16).upper(),
                "apiErrorMsg": _PLATFORM.get(code, ""),
                "apiResultCode": code,
                "apiResultData": data or None,
            }
        )

    def _is_signed(self, given: dict[str, str]) -> bool:
        # As Java's URLEncoder does it, which leaves * and encodes ~.
        text = quote_plus(given["msgData"] + given["timestamp"] + self._check_word, safe="*").replace("~", "%7E")
        digest = base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest())
        return hmac.compare_digest(digest, given["msgDigest"].encode())

    def _answer(self, service: str, data: bytes) -> dict[str, Any]:
        try:
            found = self._services[service](data)
        except msgspec.MsgspecError:
            code, why = "4002", "报文解析错误"
        except ShipmentStoreRefusal as refusal:
            code, why = _CODES[refusal.code]
        except _No as no:
            code, why = no.code, str(no)
        else:
            return {"success": True, "errorCode": "S0000", "errorMsg": None, "msgData": found}
        return {"success": False, "errorCode": code, "errorMsg": why, "msgData": None}

    def _create(self, data: bytes) -> dict[str, Any]:
        order = msgspec.json.decode(data, type=_Order)
        sender, receiver = (_contact(order, kind) for kind in (1, 2))
        if not order.orderId:
            raise _No("6118", "订单号不能为空")
        if len(order.orderId) > 64 or re.fullmatch(r"[0-9A-Za-z_-]+", order.orderId) is None:
            raise _No("9003", "客户订单号格式错误，只能包含数字和字母")
        if order.monthlyCard != self._monthly_card:
            raise _No("20052", "月结卡号不匹配 不允许操作该订单")
        if sender is None or receiver is None:
            raise _No(*(("8039", "寄方地址错误") if sender is None else ("8040", "到方地址错误")))
        if not order.cargoDetails:
            raise _No("4002", "报文解析错误")
        phones = ",".join((one.mobile or one.tel)[-4:] for one in (sender, receiver))
        parcel = self._courier.receive(
            self.name,
            f"SF{_digits(order.orderId, 13)}",
            order_no=order.orderId,
            phones=phones,
            origin=sender.city or sender.address[:20],
            destination=receiver.city or receiver.address[:20],
            notify_url=self._push_url,
            refused=self._board.hits(self._board.of(self.name).refused_share, "refused", order.orderId),
        )
        return _booking(parcel)

    def _search(self, data: bytes) -> dict[str, Any]:
        parcel = self._depot.booking(self.name, msgspec.json.decode(data, type=_Asked).orderId)
        if parcel is None:
            raise ShipmentStoreRefusal("no_parcel", "there is no such order")
        return _booking(parcel)

    def _update(self, data: bytes) -> dict[str, Any]:
        asked = msgspec.json.decode(data, type=_Update)
        if asked.dealType != 2:
            raise _No("8252", "订单已确认")
        parcel = self._depot.cancel(self.name, asked.orderId)
        return {
            "orderId": parcel.order_no,
            "waybillNoInfoList": [{"waybillType": 1, "waybillNo": parcel.number}],
            "resStatus": 2,
            "extraInfoList": None,
        }

    def _routes(self, data: bytes) -> dict[str, Any]:
        """None of a parcel that it does not know, nor for who does not know its telephone."""
        asked = msgspec.json.decode(data, type=_Routes)
        numbers = asked.trackingNumber if isinstance(asked.trackingNumber, list) else asked.trackingNumber.split(",")
        find = self._depot.booking if str(asked.trackingType) == "2" else self._depot.parcel
        answers = []
        for number in numbers[:_MOST_NUMBERS]:
            parcel = find(self.name, number)
            known = parcel is not None and (not asked.checkPhoneNo or asked.checkPhoneNo in parcel.phones.split(","))
            events = self._depot.events(self.name, parcel.number) if parcel and known else []
            answers.append({"mailNo": parcel.number if parcel else number, "routes": [_route(one) for one in events]})
        return {"routeResps": answers}


def _contact(order: _Order, kind: int) -> _Contact | None:
    found = (one for one in order.contactInfoList if one.contactType == kind and one.address)
    return next((one for one in found if one.mobile or one.tel), None)


def _digits(text: str, count: int) -> str:
    """The same for the same text, so that a run can be repeated."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % 10**count:0{count}}"


def _booking(parcel: SimulatedShipment) -> dict[str, Any]:
    """Of one that is refused there is no number, only that it cannot be brought."""
    refused = parcel.state == "refused"
    place = sum(parcel.destination.encode()) % 900 + 100
    label = {
        "waybillNo": parcel.number,
        "destCityCode": str(place),
        "destDeptCode": f"{place}AB",
        "destRouteLabel": f"{place}W-AB-01",
        "codingMapping": f"S{place % 90 + 10}",
        "proName": "顺丰标快",
    }
    return {
        "orderId": parcel.order_no,
        "originCode": str(sum(parcel.origin.encode()) % 900 + 100),
        "destCode": str(place),
        "filterResult": 3 if refused else 2,
        "remark": "1" if refused else "",
        "waybillNoInfoList": None if refused else [{"waybillType": 1, "waybillNo": parcel.number}],
        "routeLabelInfo": None if refused else [{"code": "1000", "routeLabelData": label, "message": ""}],
    }


def _route(event: Event) -> dict[str, str]:
    code, reason, remark = _STEPS[event.step]
    return {
        "acceptTime": format_china_time(from_ms(event.at_ms)),
        "acceptAddress": event.place,
        "remark": remark.format(place=event.place),
        "opCode": code,
        "reasonCode": reason,
    }
