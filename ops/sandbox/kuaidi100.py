"""kuaidi100's side of its protocol: subscriptions to parcels of many carriers, queries, and the push of their news.

Forms and codes are those of https://api.kuaidi100.com/document (实时快递查询接口, 快递信息推送服务). It books nothing:
a parcel comes into being when its number is first heard, and moves from then on. The states are those of its table of
物流状态, which has no word for a parcel that is lost, only for one that was not heard of for long.
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
from ops.sandbox.shipment_store import Event, ShipmentStore, SimulatedShipment
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
_FINE = frozenset({"4", "8"})
"""What `resultv2` is where the fine states are wanted, and not only those of one digit."""


class _State(NamedTuple):
    state: str
    fine: str
    word: str
    text: str


_STEPS = {
    "picked_up": _State("1", "103", "揽收", "【{place}】快件已被揽收"),
    "left": _State("0", "1002", "干线", "【{place}】快件已发往下一站"),
    "arrived": _State("0", "1001", "在途", "快件已到达【{place}】"),
    "odd": _State("77", "7701", "其他", "【{place}】特殊处理"),
    "out": _State("5", "5", "派件", "【{place}】快递员正在派件"),
    "failed": _State("2", "206", "无法联系", "【{place}】派件不成功，无法联系收件人"),
    "delivered": _State("3", "301", "签收", "【{place}】快件已签收"),
    "turned": _State("6", "6", "退回", "【{place}】快件正在退回"),
    "returned": _State("4", "4", "退签", "【{place}】退件已由寄件人签收"),
    "lost": _State("2", "202", "超时未更新", "【{place}】快件超时未更新"),
}
_ENDS = {"delivered": ("shutdown", ""), "returned": ("shutdown", ""), "lost": ("abort", "60天无变化")}
"""With these it ends to watch a parcel: how it calls that, and why."""


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
    """A `CarrierProtocol`, which carries nothing itself."""

    name = "kuaidi100"

    def __init__(
        self,
        *,
        depot: ShipmentStore,
        courier: ShipmentSimulator,
        board: FaultRegistry[CarrierFaults],
        customer: str,
        key: str,
    ) -> None:
        self._depot = depot
        self._courier = courier
        self._board = board
        self._customer = customer
        self._key = key

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        return [web.post("/poll", self._subscribe), web.post("/poll/query.do", self._query)]

    def push(self, parcel: SimulatedShipment, events: Sequence[Event], *, wrong: bool) -> OutgoingWebhook:
        """All news up to then. With the parcel at its end, it is the last push."""
        status, message = _ENDS.get(events[-1].step, ("polling", ""))
        told = {
            "status": status,
            "billstatus": "check" if status == "shutdown" else "got",
            "message": message,
            "autoCheck": "0",
            "comOld": "",
            "comNew": "",
            "lastResult": _result(parcel, events, parcel.detail),
        }
        param = msgspec.json.encode(told).decode()
        form = {"param": param}
        if parcel.salt:
            form["sign"] = _md5(param + parcel.salt + ("!" if wrong else ""))
        headers = {"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
        return OutgoingWebhook(parcel.notify_url, headers, urlencode(form).encode())

    def is_accepted(self, status: int, body: bytes) -> bool:
        try:
            told = msgspec.json.decode(body)
            return status == 200 and told["result"] is True and told["returnCode"] == "200"
        except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
            return False

    async def _subscribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        try:
            asked = msgspec.json.decode(str(form.get("param", "")), type=_Subscription)
        except msgspec.MsgspecError:
            return _no("400", "提交的数据不完整，或者贵公司没授权")
        known = self._depot.parcel(self.name, asked.number)
        refused = self._board.hits(self._board.of(self.name).refused_share, "refused", asked.number)
        for is_wrong, code, message in (
            (form.get("schema") != "json", "400", "提交的数据不完整，或者贵公司没授权"),
            (
                not hmac.compare_digest(asked.key.encode(), self._key.encode()),
                "600",
                "您不是合法的订阅者（即授权Key出错）",
            ),
            (asked.company not in _COMPANIES, "700", f"POLL:不支持的快递公司：{asked.company}"),
            (refused, "701", "拒绝订阅的快递公司"),
            (_NUMBER.fullmatch(asked.number) is None, "702", "POLL:识别不到该单号对应的快递公司"),
            (known is not None and known.notify_url != "", "501", "POLL:重复订阅"),
        ):
            if is_wrong:
                return _no(code, message)
        parcel = known or self._receive(asked.company, asked.number, asked.parameters.phone)
        given = asked.parameters
        self._courier.follow(parcel, given.callbackurl, given.salt, given.resultv2)
        return web.json_response({"result": True, "returnCode": "200", "message": "提交成功"})

    async def _query(self, request: web.Request) -> web.Response:
        form = await request.post()
        param, sign = str(form.get("param", "")), str(form.get("sign", ""))
        signed = _md5(param + self._key + self._customer)
        if form.get("customer") != self._customer or not hmac.compare_digest(sign.encode(), signed.encode()):
            return _no("503", "验证签名失败")
        try:
            asked = msgspec.json.decode(param, type=_Query)
        except msgspec.MsgspecError:
            return _no("400", "提交的数据不完整")
        if asked.com not in _COMPANIES or _NUMBER.fullmatch(asked.num) is None:
            return _no("400", "找不到对应公司")
        parcel = self._depot.parcel(self.name, asked.num) or self._receive(asked.com, asked.num, asked.phone)
        events = self._depot.events(self.name, parcel.number)
        if not events:
            return _no("500", "查询无结果，请隔段时间再查")
        return web.json_response(_result(parcel, events, asked.resultv2))

    def _receive(self, company: str, number: str, phone: str) -> SimulatedShipment:
        return self._courier.receive(
            self.name, number, company=company, phones=phone[-4:], origin="杭州市", destination="上海市"
        )


def _result(parcel: SimulatedShipment, events: Sequence[Event], detail: str) -> dict[str, Any]:
    """The newest first."""
    last, fine = _STEPS[events[-1].step], detail in _FINE
    rows = []
    for event in reversed(events):
        step, time = _STEPS[event.step], format_china_time(from_ms(event.at_ms))
        row = {"time": time, "ftime": time, "context": step.text.format(place=event.place)}
        if detail not in ("", "0"):
            row |= {"status": step.word, "areaName": event.place, "areaCode": ""}
        if fine:
            row["statusCode"] = step.fine
        rows.append(row)
    return {
        "message": "ok",
        "nu": parcel.number,
        "ischeck": "1" if events[-1].step == "delivered" else "0",
        "condition": "F00",
        "com": parcel.company,
        "status": "200",
        "state": last.fine if fine else last.state,
        "data": rows,
    }


def _no(code: str, message: str) -> web.Response:
    return web.json_response({"result": False, "returnCode": code, "message": message})


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest().upper()
