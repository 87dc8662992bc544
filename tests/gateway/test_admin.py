"""Staff operations over HTTP, and their roles."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

import lua
from commerce.kernel.clock import from_ms
from commerce.rights.model import include_lower_roles
from config.settings import Settings
from gateway.app import ADMIN
from gateway.auth import ROLES
from lua import SaleKeys
from ops.services import CliServices
from tests.support.gateway import TestGateway, bearer, run_workers
from tests.support.processes import run_processes, wait_for_exit
from tests.support.sales import eventually, make_sale, order_body


def new_sale(shop: CliServices, sale_id: str) -> dict[str, Any]:
    now = from_ms(shop.clock.now_ms())
    return {
        "sale": {
            "sale_id": sale_id,
            "title": "A sale",
            "currency": "CNY",
            "opens_at": (now - timedelta(seconds=1)).isoformat(),
            "closes_at": (now + timedelta(days=1)).isoformat(),
        },
        "items": {"a": {"units": 5, "limit_per_user": 2}, "b": {"units": 3, "price": 70}},
    }


async def test_staff_run_sale_from_product_to_close(shop: CliServices, gateway: TestGateway, sale_id: str) -> None:
    async def staff(method: str, path: str, **kwargs: Any) -> Any:
        answer = await gateway.call(method, f"/v1/admin{path}", user="ann", roles=["operator"], **kwargs)
        assert answer.status in (200, 201), answer.text
        return answer.body

    for sku in "ab":
        await staff("PUT", f"/variants/{sku}", json={"name": f"thing {sku}", "price": 100, "currency": "CNY"})
    draft = await staff("POST", "/sales", json=new_sale(shop, sale_id))
    assert (draft["sale_id"], draft["state"]) == (sale_id, "draft")
    assert (await staff("POST", f"/sales/{sale_id}/open"))["state"] == "open"
    await gateway.services.snapshots.refresh()
    assert (await gateway.order(order_body(sale_id, ("a", 2), ("b", 1)))).body["total"]["amount"] == 270
    change = str(shop.ids.new())
    for _ in range(2):
        body = {"sku": "b", "delta": 4, "reason": "more"}
        stored = await staff("POST", f"/sales/{sale_id}/stock-changes", headers={"Idempotency-Key": change}, json=body)
        assert (stored["status"], stored["actor"]) == ("applied", "staff ann")
    assert (await lua.cut(shop.redis, SaleKeys(sale_id))).stock == {"a": 3, "b": 6}
    assert len((await staff("GET", f"/sales/{sale_id}/stock-changes"))["items"]) == 1
    terms = await staff("PATCH", f"/sales/{sale_id}/items/b", json={"price": 90, "limit_per_user": 4})
    assert (terms["price"], terms["limit_per_user"]) == (90, 4)
    assert (await staff("POST", f"/sales/{sale_id}/pause"))["state"] == "paused"
    assert (await gateway.order(order_body(sale_id, ("b", 1)))).code == "sale_paused"
    assert (await staff("POST", f"/sales/{sale_id}/close"))["state"] == "closed"
    again = await gateway.call("POST", f"/v1/admin/sales/{sale_id}/open", user="ann", roles=["sales"])
    assert (again.status, again.code) == (409, "invalid_sale_state")
    assert [sale["sale_id"] for sale in (await staff("GET", "/sales"))["items"]] == [sale_id]
    assert (await shop.audit.audit_sale(sale_id)).clean


async def test_patch_of_terms_leaves_absent_members_and_removes_null(
    shop: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, 4)})
    path = f"/v1/admin/sales/{sale_id}/items/a"
    for method, body, price, limit in (
        ("PATCH", {"price": 90}, 90, 4),
        ("PATCH", {"limit_per_user": 3}, 90, 3),
        ("PATCH", {"limit_per_user": None}, 90, None),
        ("PATCH", {"price": 80, "limit_per_user": 2}, 80, 2),
        ("PATCH", {}, 80, 2),
    ):
        answer = await gateway.call(method, path, roles=["sales"], json=body)
        assert (answer.status, answer.body["price"], answer.body["limit_per_user"]) == (200, price, limit), body
    generation = (await shop.sales.get(sale_id)).generation
    for body in ({"price": None}, {"price": 0}, {"limit_per_user": 0}, {"limit": 3}, []):
        answer = await gateway.call("PATCH", path, roles=["sales"], json=body)
        assert (answer.status, answer.code) == (422, "invalid"), body
    await gateway.call("PATCH", path, roles=["sales"], json={})
    assert (await shop.sales.get(sale_id)).generation == generation, "nothing was changed"
    put = await gateway.call("PUT", path, roles=["sales"], json={"price": 60})
    assert (put.status, (await shop.sales.get_item(sale_id, "a")).limit_per_user) == (405, 2), "no limit is lost"


async def test_dead_letter_is_shown_retried_and_discarded_once(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    order_id = uuid4()
    await shop.redis.xadd(keys.orders, {order_id.bytes: b"\xc1 not an order"})
    async with run_workers(settings, "order_writer"):
        await eventually(lambda: _dead(shop))
    listed = await gateway.call("GET", "/v1/admin/dead-letters", user="sam", roles=["support"])
    assert [letter["order_id"] for letter in listed.body["items"]] == [str(order_id)]
    path = f"/v1/admin/dead-letters/{order_id}"
    shown = await gateway.call("GET", path, user="sam", roles=["support"])
    assert shown.body["order"] == {"unreadable": b"\xc1 not an order".hex()}
    retried = await gateway.call("POST", f"{path}/retry", user="sam", roles=["support"])
    assert (retried.status, retried.code) == (409, "conflict")
    gone = await gateway.call("POST", f"{path}/discard", user="sam", roles=["support"])
    assert (gone.body["status"], gone.body["resolved_by"]) == ("discarded", "staff sam")
    again = await gateway.call("POST", f"{path}/discard", user="sam", roles=["support"])
    assert (again.status, again.code) == (409, "dead_letter_resolved")


async def _dead(shop: CliServices) -> bool:
    return await shop.audit.count_dead_letters() == 1


STAFF_ONLY = [operation for operation in ADMIN if operation.access in ROLES]


async def test_admin_operation_without_its_role_is_refused(gateway: TestGateway) -> None:
    """Requests without a token, of customers and of every other role are refused before other checks."""
    for operation in STAFF_ONLY:
        path = re.sub(r"\{(\w+_id|id|subject)\}", str(uuid4()), operation.path)
        values = {"sku": "x", "queue": "shipments", "code": "X", "name": "x", "version": 1, "currency": "CNY"}
        path = path.format(**values, language="en", digest="0" * 64)
        anonymous = await gateway.call(operation.method, path, user=None)
        assert (anonymous.status, anonymous.code) == (401, "unauthorized"), operation.id
        customer = await gateway.call(operation.method, path, user="user")
        assert (customer.status, customer.code) == (401, "unauthorized"), operation.id
        allowed_roles = (operation.access, *operation.also_for, "operator")
        others = [role for role in ROLES if include_lower_roles([role]).isdisjoint(allowed_roles)]
        if others:
            other = await gateway.call(operation.method, path, user="ann", roles=others)
            assert (other.status, other.code) == (403, "forbidden"), operation.id
        for role in allowed_roles:
            allowed = await gateway.call(operation.method, path, user="ann", roles=[role])
            assert allowed.status not in (401, 403), operation.id


def test_support_reads_shipments_and_changes_none() -> None:
    """Staff who answer customers see where a shipment is."""
    readable = {operation.id for operation in STAFF_ONLY if "support_read" in operation.also_for}
    assert readable >= {"list_worklist", "show_shipment", "show_order_shipments", "explain_carrier_choice"}
    changes = {operation.id: operation.also_for for operation in STAFF_ONLY if operation.method != "GET"}
    assert {id_: roles for id_, roles in changes.items() if roles} == {
        "retry_job": ("warehouse",),
        "retry_jobs": ("warehouse",),
        **dict.fromkeys(("collect_return", "cancel_return_shipment"), ("support_answer",)),
        "set_return_outcome": ("support",),
        **dict.fromkeys(
            ("acknowledge_article", "begin_quiz_attempt", "submit_quiz_attempt"), ("catalog", "sales", "warehouse")
        ),
    }


async def test_admin_port_answers_while_public_port_is_full(
    make_settings: Callable[..., Settings], sale_prefix: str, tmp_path: Path
) -> None:
    """Each port has its own registry and limit; both are closed together."""
    settings = make_settings(limits={"connections": 4, "admin_connections": 3, "graceful_stop_s": 10})
    async with run_processes(settings, tmp_path) as started:
        process = await started.gateway()
        base = f"http://127.0.0.1:{started.admin_port}"
        customers = [await asyncio.open_connection("127.0.0.1", started.port) for _ in range(4)]
        assert await _is_refused(started.port)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as client:

            async def counted() -> bool:
                async with client.get(f"{base}/metrics") as answer:
                    assert answer.status == 200
                    text = await answer.text()
                counts = (("public", 4), ("admin", 1))
                return all(f'floodgate_http_connections{{port="{port}"}} {n}.0\n' in text for port, n in counts)

            await eventually(counted)
            async with client.get(f"{base}/health/ready") as answer:
                assert answer.status == 200
            others = [await asyncio.open_connection("127.0.0.1", started.admin_port) for _ in range(2)]
            assert await _is_refused(started.admin_port)
            begun = asyncio.get_running_loop().time()
            process.process.terminate()
            assert await wait_for_exit(process) == 0
            assert asyncio.get_running_loop().time() - begun < 5  # no request was in progress
        for reader, writer in (*customers, *others):
            assert await reader.read() == b""
            writer.close()


async def _is_refused(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reply = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return reply.startswith(b"HTTP/1.1 503 ")


async def test_support_cancels_order_with_reason_shown_to_customer(
    shop: CliServices, settings: Settings, gateway: TestGateway, sale_id: str
) -> None:
    keys = await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.services.snapshots.refresh()
    placed = await gateway.order(order_body(sale_id, ("a", 2)))
    path = f"/v1/admin/orders/{placed.body['order_id']}"
    early = await gateway.call("GET", path, user="ann", roles=["support"])
    assert (early.body["user_id"], early.body["order"]["status"]) == ("user", "accepted")
    reason = {"reason": "ordered twice, as reported by phone"}
    async with run_workers(settings, "order_writer", "release_worker"):
        for _ in range(2):
            gone = await gateway.call("POST", f"{path}/cancel", user="ann", roles=["support"], json=reason)
            assert (gone.status, gone.body["user_id"]) == (200, "user")
            assert (gone.body["order"]["status"], gone.body["order"]["cancel_reason"]) == ("cancelled", "by_staff")
            last = gone.body["events"][-1]
            assert (last["seq"], last["actor"], last["reason"]) == (2, "staff ann", reason["reason"])
        await eventually(lambda: _free(shop, keys, 5))
    url = f"{gateway.base}/v1/orders/{placed.body['order_id']}/events"
    async with gateway.client.get(url, headers=bearer(settings)) as stream:
        events = await stream.text()
    assert reason["reason"] in events
    assert '"actor":"staff"' in events
    assert "ann" not in events
    assert (await shop.audit.audit_sale(sale_id)).clean
    for body in ({}, {"reason": ""}, {"reason": "a\nb"}):
        assert (await gateway.call("POST", f"{path}/cancel", user="ann", roles=["support"], json=body)).status == 422
    none = await gateway.call("GET", f"/v1/admin/orders/{uuid4()}", user="ann", roles=["support"])
    assert (none.status, none.code) == (404, "not_found")


async def _free(shop: CliServices, keys: SaleKeys, units: int) -> bool:
    return (await lua.cut(shop.redis, keys)).stock == {"a": units}


async def test_admin_paths_all_need_a_role() -> None:
    assert {operation.access for operation in ADMIN if operation.path.startswith("/v1/admin")} <= set(ROLES)
