"""kuaidi100's side of its protocol for many carriers: subscriptions, queries and webhooks.

Formats and codes are those of https://api.kuaidi100.com/document (实时快递查询接口, 快递信息推送服务). It accepts no
bookings: a shipment is created at the first request for its number and moves from then on. The states are those of its
table 物流状态. It has no state for a lost shipment, only for one without updates for a long time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from commerce.kernel.china_time import format_china_time
from commerce.kernel.clock import from_ms
from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.shipment_simulator import ShipmentSimulator
from ops.sandbox.shipment_store import ShipmentStore, SimulatedEvent, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook

_COMPANIES = frozenset(
    {
        "zhongtong",
        "yuantong",
        "yunda",
        "shentong",
        "shunfeng",
        "jd",
        "jtexpress",
        "ems",
        "youzhengguonei",
        "debangwuliu",
    }
)
_NUMBER = re.compile(r"[A-Za-z0-9-]{6,32}")
_FINE_FORMATS = frozenset({"4", "8"})
"""values of `resultv2` that request states of several digits"""


class _State(NamedTuple):
    state: str
    fine_state: str
    word: str
    text: str


_STEPS = {
    "picked_up": _State("1", "103", "揽收", "【{place}】快件已被揽收"),
    "departed": _State("0", "1002", "干线", "【{place}】快件已发往下一站"),
    "arrived": _State("0", "1001", "在途", "快件已到达【{place}】"),
    "unknown_code": _State("77", "7701", "其他", "【{place}】特殊处理"),
    "out": _State("5", "5", "派件", "【{place}】快递员正在派件"),
    "failed": _State("2", "206", "无法联系", "【{place}】派件不成功，无法联系收件人"),
    "delivered": _State("3", "301", "签收", "【{place}】快件已签收"),
    "turned_back": _State("6", "6", "退回", "【{place}】快件正在退回"),
    "returned": _State("4", "4", "退签", "【{place}】退件已由寄件人签收"),
    "lost": _State("2", "202", "超时未更新", "【{place}】快件超时未更新"),
}
_FINAL_STATUSES = {"delivered": ("shutdown", ""), "returned": ("shutdown", ""), "lost": ("abort", "60天无变化")}
"""status and message of the last webhook, by final step"""


class _Parameters(msgspec.Struct):
    callbackurl: str
    salt: str = ""
    resultv2: str = ""
    phone: str = ""


class _Subscription(msgspec.Struct):
    company: str
    number: str
    key: str
    parameters: _Parameters


class _Query(msgspec.Struct):
    com: str
    num: str
    phone: str = ""
    resultv2: str = ""


class Kuaidi100Sandbox:
    """The `CarrierProtocol` of kuaidi100, which tracks shipments and accepts no bookings."""

    name = "kuaidi100"

    def __init__(
        self,
        *,
        shipment_store: ShipmentStore,
        simulator: ShipmentSimulator,
        faults: FaultRegistry[CarrierFaults],
        customer: str,
        key: str,
    ) -> None:
        self._shipment_store = shipment_store
        self._simulator = simulator
        self._faults = faults
        self._customer = customer
        self._key = key

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/poll", self._subscribe), web.post("/poll/query.do", self._query)]

    def build_webhook(
        self, shipment: SimulatedShipment, events: Sequence[SimulatedEvent], *, has_wrong_signature: bool
    ) -> OutgoingWebhook:
        """Build the webhook with all events so far; a final step makes it the last one."""
        status, message = _FINAL_STATUSES.get(events[-1].step, ("polling", ""))
        document = {
            "status": status,
            "billstatus": "check" if status == "shutdown" else "got",
            "message": message,
            "autoCheck": "0",
            "comOld": "",
            "comNew": "",
            "lastResult": _build_result(shipment, events, shipment.result_format),
        }
        param = msgspec.json.encode(document).decode()
        form = {"param": param}
        if shipment.salt:
            form["sign"] = _md5(param + shipment.salt + ("!" if has_wrong_signature else ""))
        headers = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
        return OutgoingWebhook(shipment.webhook_url, headers, urlencode(form).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        try:
            response = msgspec.json.decode(body)
            return status == 200 and response["result"] is True and response["returnCode"] == "200"
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return False

    async def _subscribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            subscription = msgspec.json.decode(str(form.get("param", "")), type=_Subscription)
        except msgspec.MsgspecError:
            return _build_refusal("400", "提交的数据不完整，或者贵公司没授权")
        company, number, parameters = subscription.company, subscription.number, subscription.parameters
        existing = self._shipment_store.find(self.name, number)
        is_refused = self._faults.is_selected(self._faults.get(self.name).refused_share, "refused", number)
        for is_wrong, code, message in (
            (form.get("schema") != "json", "400", "提交的数据不完整，或者贵公司没授权"),
            (
                not hmac.compare_digest(subscription.key.encode(), self._key.encode()),
                "600",
                "您不是合法的订阅者（即授权Key出错）",
            ),
            (company not in _COMPANIES, "700", f"POLL:不支持的快递公司：{company}"),
            (is_refused, "701", "拒绝订阅的快递公司"),
            (_NUMBER.fullmatch(number) is None, "702", "POLL:识别不到该单号对应的快递公司"),
            (existing is not None and existing.webhook_url != "", "501", "POLL:重复订阅"),
        ):
            if is_wrong:
                return _build_refusal(code, message)
        shipment = existing or self._create_shipment(company, number, parameters.phone)
        self._simulator.subscribe(shipment, parameters.callbackurl, parameters.salt, parameters.resultv2)
        return web.json_response({"result": True, "returnCode": "200", "message": "提交成功"})

    async def _query(self, request: web.Request) -> web.Response:
        form = await request.post()
        param, sign = str(form.get("param", "")), str(form.get("sign", ""))
        expected_sign = _md5(param + self._key + self._customer)
        if form.get("customer") != self._customer or not hmac.compare_digest(sign.encode(), expected_sign.encode()):
            return _build_refusal("503", "验证签名失败")
        try:
            query = msgspec.json.decode(param, type=_Query)
        except msgspec.MsgspecError:
            return _build_refusal("400", "提交的数据不完整")
        if query.com not in _COMPANIES or _NUMBER.fullmatch(query.num) is None:
            return _build_refusal("400", "找不到对应公司")
        existing = self._shipment_store.find(self.name, query.num)
        shipment = existing or self._create_shipment(query.com, query.num, query.phone)
        events = self._shipment_store.list_events(self.name, shipment.tracking_no)
        if not events:
            return _build_refusal("500", "查询无结果，请隔段时间再查")
        return web.json_response(_build_result(shipment, events, query.resultv2))

    def _create_shipment(self, company: str, number: str, phone: str) -> SimulatedShipment:
        return self._simulator.create_shipment(
            self.name, number, company=company, phone_endings=phone[-4:], origin="杭州市", destination="上海市"
        )


def _build_result(shipment: SimulatedShipment, events: Sequence[SimulatedEvent], result_format: str) -> dict[str, Any]:
    """Build the member `lastResult` in the requested format, newest event first."""
    last_state, is_fine = _STEPS[events[-1].step], result_format in _FINE_FORMATS
    rows = []
    for event in reversed(events):
        state, time = _STEPS[event.step], format_china_time(from_ms(event.at_ms))
        row = {"time": time, "ftime": time, "context": state.text.format(place=event.place)}
        if result_format not in ("", "0"):
            row |= {"status": state.word, "areaName": event.place, "areaCode": ""}
        if is_fine:
            row["statusCode"] = state.fine_state
        rows.append(row)
    return {
        "message": "ok",
        "nu": shipment.tracking_no,
        "ischeck": "1" if events[-1].step == "delivered" else "0",
        "condition": "F00",
        "com": shipment.company,
        "status": "200",
        "state": last_state.fine_state if is_fine else last_state.state,
        "data": rows,
    }


def _build_refusal(code: str, message: str) -> web.Response:
    return web.json_response({"result": False, "returnCode": code, "message": message})


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()
