"""An account at kuaidi100, and a fake kuaidi100 that checks requests independently of the adapter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from commerce.kernel.external import HttpResponse
from commerce.shipping.carriers.kuaidi100 import Kuaidi100, Kuaidi100Account, Kuaidi100Carrier
from tests.support.http_transport import SessionTransport

CUSTOMER, KEY, SALT = "0123456789ABCDEF0123456789ABCDEF", "TestKey00001", "kuaidi100-salt-0001"
NOTIFY_URL = "http://shop.example/v1/webhooks/carriers/kuaidi100"
CARRIERS = {"zto": "zhongtong", "yto": "yuantong"}
ACCOUNT_SETTINGS: Json = {
    "customer": CUSTOMER,
    "key": KEY,
    "salt": SALT,
    "base_url": "https://poll.kuaidi100.com/",
    "notify_url": NOTIFY_URL,
}
Json = dict[str, Any]


def account(**changed: str) -> Kuaidi100Account:
    return Kuaidi100Account.load(**(ACCOUNT_SETTINGS | changed))


def carrier(transport: Any, name: str = "zto", **changed: str) -> Kuaidi100Carrier:
    return Kuaidi100Carrier(name, CARRIERS[name], Kuaidi100(account(**changed), transport, CARRIERS))


def entry(time: str, context: str, status: str, code: str | None, area: str | None = None) -> Json:
    """Make an entry of a history as it comes with resultv2=4."""
    return {
        "time": time,
        "context": context,
        "ftime": time,
        "areaCode": "CN330100000000" if area else None,
        "areaName": area,
        "status": status,
        "location": "",
        "areaCenter": "120.15,30.28" if area else None,
        "areaPinYin": "hang zhou shi" if area else None,
        "statusCode": code,
    }


HISTORY = [
    entry("2026-11-25 18:03:11", "【杭州市】已签收，签收人：本人", "本人签收", "301", "浙江,杭州市,西湖区"),
    entry("2026-11-25 09:12:45", "【杭州市】西湖一部 的 张三 正在派件", "派件", "5", "浙江,杭州市,西湖区"),
    entry("2026-11-24 23:59:59", "【嘉兴市】快件离开 嘉兴中转部", "在途", "0"),
    entry("2026-11-24 20:01:00", "【上海市】青浦 已揽收", "已揽收", "103", "上海,上海市,青浦区"),
    entry("2026-11-24 17:30:00", "已下单", "已下单", "101"),
]


def query_result(number: str, com: str = "zhongtong", data: Any = HISTORY, **changed: Any) -> Json:
    """Make the reply to a query with a history, which webhooks contain as well."""
    return {
        "message": "ok",
        "nu": number,
        "ischeck": "1",
        "com": com,
        "status": "200",
        "data": data,
        "state": "301",
        "condition": "F00",
        "isLoop": False,
    } | changed


def md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8")).hexdigest().upper()


def webhook_param(last_result: Any, **changed: Any) -> str:
    """Make a webhook's parameter as kuaidi100 writes it."""
    param = {
        "status": "polling",
        "billstatus": "change",
        "message": "",
        "autoCheck": "0",
        "comOld": "",
        "comNew": "",
        "lastResult": last_result,
    }
    return json.dumps(param | changed, ensure_ascii=False, separators=(",", ":"))


def webhook_body(param: str, salt: str = SALT) -> bytes:
    return urlencode({"sign": md5(param + salt), "param": param}).encode()


class FakeKuaidi100:
    """A fake kuaidi100: `histories` are its replies by number, `requests` the parameters that it received."""

    def __init__(self) -> None:
        self.histories: dict[str, Json] = {}
        self.subscribed: dict[str, Json] = {}
        self.requests: list[Json] = []
        self.app = web.Application()
        self.app.add_routes([web.post("/poll", self._subscribe), web.post("/poll/query.do", self._query)])

    async def _subscribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert set(form) == {"schema", "param"}
        assert form["schema"] == "json"
        param = json.loads(str(form["param"]))
        self.requests.append(param)
        if param["key"] != KEY:
            return _error("600", "POLL:您不是合法的订阅者")
        if param["company"] not in CARRIERS.values():
            return _error("700", "POLL:不支持的快递公司：" + param["company"])
        if param["number"] in self.subscribed:
            return _error("501", "POLL:重复订阅")
        self.subscribed[param["number"]] = param["parameters"]
        return web.json_response({"result": True, "returnCode": "200", "message": "提交成功"})

    async def _query(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert set(form) == {"customer", "sign", "param"}
        text = str(form["param"])
        self.requests.append(json.loads(text))
        if form["sign"] != md5(text + KEY + str(form["customer"])) or form["customer"] != CUSTOMER:
            return _error("503", "验证签名失败")
        history = self.histories.get(self.requests[-1]["num"])
        return web.json_response(history) if history else _error("500", "查询无结果，请隔段时间再查")


def _error(code: str, message: str) -> web.Response:
    return web.json_response({"result": False, "returnCode": code, "message": message})


@asynccontextmanager
async def open_fake_kuaidi100(**changed: str) -> AsyncIterator[tuple[FakeKuaidi100, Kuaidi100Carrier]]:
    """Serve a fake kuaidi100, and create the carrier zto that uses it."""
    fake = FakeKuaidi100()
    async with TestServer(fake.app) as server, aiohttp.ClientSession() as session:
        yield fake, carrier(SessionTransport(session), base_url=str(server.make_url("/")), **changed)


class FakeKuaidi100Transport:
    """Returns one response to every request, and counts them."""

    def __init__(self, content: Any = None, status: int = 200) -> None:
        self.body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.status = status
        self.request_count = 0

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.request_count += 1
        return HttpResponse(self.status, {"content-type": "application/json"}, self.body)
