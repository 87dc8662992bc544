"""Exchanges over HTTP to their end: the case, both orders and their streams tell one story.

All workers run, and the simulated Alipay is paid. Only carriers' events come from the test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from config.settings import Settings
from ops.services import CliServices
from tests.gateway.test_order_story_http import OrderEventStream, read_order, read_to_end
from tests.support.gateway import TestGateway, bearer, run_workers
from tests.support.sales import eventually
from tests.support.whole_shop import WholeShop, open_whole_shop

PRICES = {"a": 100, "b": 150, "c": 60}


def count_ended(result: str) -> float:
    """Return how many exchanges this process has ended so."""
    labels = {"queue": "cases", "kind": "case.exchange", "system": "internal", "result": result}
    return REGISTRY.get_sample_value("floodgate_jobs_total", labels) or 0


@dataclass
class ExchangingCustomer:
    """A customer of a whole shop, and its staff."""

    whole: WholeShop

    @property
    def gateway(self) -> TestGateway:
        return self.whole.pay.gateway

    async def buy(self, sku: str) -> UUID:
        """Order a unit, pay it by Alipay, and have it delivered."""
        order_id = await self.whole.pay.add_order((sku, 1))
        await self.pay(order_id, PRICES[sku])
        await self.deliver(order_id)
        return order_id

    async def pay(self, order_id: UUID, amount: int) -> None:
        [payment] = await self.whole.pay.start_payments(order_id, ("alipay", amount))
        self.whole.pay.pay_at_provider("alipay", payment["payment_id"])

    async def deliver(self, order_id: UUID) -> None:
        """Have all of an order delivered once it is paid."""

        async def is_booked() -> bool:
            await self.whole.work_until_idle()
            shipments = await self.whole.ship.list_shipments(order_id)
            return bool(shipments) and all(shipment.tracking_no for shipment in shipments)

        await eventually(is_booked)
        await self.whole.deliver(order_id)

    async def return_for(self, order_id: UUID, wanted_sku: str) -> tuple[UUID, dict[str, Any]]:
        """Return the unit of an order for another: requested, approved, received and inspected as good.

        Returns the case and its preview of the prices."""
        [shipment] = await self.whole.ship.list_shipments(order_id)
        line = {"line_no": 0, "quantity": 1, "shipment_id": str(shipment.shipment_id), "wanted_sku": wanted_sku}
        body = {"kind": "exchange", "reason": "too_small", "lines": [line]}
        path = f"/v1/orders/{order_id}/returns"
        preview = await self.gateway.call("POST", f"{path}/preview", json=body)
        assert (preview.status, preview.body["obstacles"]) == (200, [])
        answer = await self.gateway.call("POST", path, json=body, headers={"Idempotency-Key": f"exchange-{order_id}"})
        assert answer.status == 201, answer.text
        case_id = UUID(answer.body["case"]["case_id"])
        await self._staff("support", f"cases/{case_id}/approve", case_id, {"reason": "within seven days"})
        receipt = {"case_id": str(case_id), "warehouse": "hz", "lines": {"0": 1}}
        await self._staff("warehouse", "return-receipts", case_id, receipt)
        results = {"0": {"resellable": 1, "damaged": 0, "rejected": 0}}
        await self._staff("warehouse", f"cases/{case_id}/inspect", case_id, {"lines": results})
        return case_id, preview.body["exchange"]

    async def resolve(self, case_id: UUID) -> None:
        await self._staff("support", f"cases/{case_id}/resolve", case_id, {"reason": "as good as new"})

    async def exchange(self, order_id: UUID, wanted_sku: str) -> tuple[UUID, dict[str, Any]]:
        """Exchange the unit of an order as `return_for` does, and resolve the case."""
        case_id, prices = await self.return_for(order_id, wanted_sku)
        await self.resolve(case_id)
        return case_id, prices

    async def _staff(self, role: str, path: str, case_id: UUID, body: dict[str, Any]) -> None:
        """Change a case as staff who have just read it."""
        body = {**body, "version": (await self.read_case(case_id))["version"]}
        answer = await self.gateway.call("POST", f"/v1/admin/{path}", user="sue", roles=[role], json=body)
        assert answer.status in (200, 201), answer.text

    async def read_case(self, case_id: UUID) -> dict[str, Any]:
        case: dict[str, Any] = (await self.gateway.call("GET", f"/v1/returns/{case_id}")).body["case"]
        return case

    async def wait_for_replacement(self, case_id: UUID) -> UUID:
        """Wait until the case names the order that replaces its units, and return that."""

        async def find() -> str | None:
            return (await self.read_case(case_id))["exchange_order_id"]

        return UUID(await eventually(find))

    async def wait_for_end(self, case_id: UUID) -> dict[str, Any]:
        """Wait until nothing of a case is open, and return it."""

        async def find() -> dict[str, Any] | None:
            case = await self.read_case(case_id)
            return case if case["ended_at"] else None

        case = await eventually(find)
        assert (case["status"], case["waits_for"]) == ("resolved", "nobody")
        return case

    async def read_story(self, order_id: UUID, kind: str) -> list[str]:
        """Read the stream of an order that has ended to its end. Returns the reasons of one kind of events."""
        await self.whole.ship.make_all_due()
        await self.whole.work_until_idle()
        url = f"{self.gateway.base}/v1/orders/{order_id}/events"
        async with self.gateway.client.get(url, headers=bearer(self.gateway.settings)) as response:
            events = await read_to_end(OrderEventStream(response))
        return [event["reason"] for event in events if event.get("kind", "status") == kind]

    async def read_stock(self) -> dict[str, int]:
        """Return the free units of each SKU once all releases are applied."""
        await self.whole.pay.wait_until_idle()
        rows = await self.whole.pay.shop.redis.hgetall(self.whole.pay.keys.stock)
        return {sku.decode(): int(units) for sku, units in rows.items()}

    async def check(self) -> None:
        """Check that the audit and the provider's records agree."""
        await self.whole.pay.wait_until_idle()
        await self.whole.check_audit()
        await self.whole.cases.check_records()


@pytest.fixture
async def customer(
    shop: CliServices, make_settings: Callable[..., Settings], sale_id: str
) -> AsyncIterator[ExchangingCustomer]:
    items: dict[str, tuple[int, int, int | None]] = {sku: (5, price, None) for sku, price in PRICES.items()}
    async with open_whole_shop(shop, make_settings, sale_id, items) as whole:
        settings = whole.pay.settings
        prompt = settings.aftersales.model_copy(update={"money_poll_s": 1})
        async with run_workers(settings.model_copy(update={"aftersales": prompt}), "aftersales_worker"):
            yield ExchangingCustomer(whole)
            await ExchangingCustomer(whole).check()


async def test_exchange_at_the_same_price_is_an_order_of_nothing(customer: ExchangingCustomer) -> None:
    order_id, ended = await customer.buy("a"), count_ended("exchanged")
    case_id, prices = await customer.exchange(order_id, "a")
    assert prices == {"price": 100, "credit": 100, "to_pay": 0, "to_refund": 0}
    replacement_id = await customer.wait_for_replacement(case_id)
    case = await customer.wait_for_end(case_id)
    assert (case["kind"], case["money_state"], case["amount"], case["fee"]) == ("exchange", "done", 100, 100)
    await customer.deliver(replacement_id)
    first, second = await read_order(customer.gateway, order_id), await read_order(customer.gateway, replacement_id)
    assert (first["payment_state"], first["return_state"], first["refunds"]) == ("paid", "returned", None)
    assert (second["status"], second["total"]["amount"], second["payment_state"]) == ("delivered", 0, "nothing_due")
    assert (first["replacements"], first["replaces"]) == ([str(replacement_id)], None)
    assert (second["replacements"], second["replaces"]) == (None, str(order_id))
    assert second["price"]["discounts"][0]["label"] == f"in exchange for units of order {order_id}"
    assert await customer.read_story(order_id, "exchange") == [
        f"order {replacement_id} replaces the returned units",
        "the exchange is done: 1.00 CNY is taken off the new order",
    ]
    assert await customer.read_story(replacement_id, "exchange") == [
        f"it replaces units of order {order_id}",
        "the exchange is done",
    ]
    assert (await customer.read_stock())["a"] == 4
    assert count_ended("exchanged") == ended + 1


async def test_exchange_for_more_is_done_once_the_difference_is_paid(customer: ExchangingCustomer) -> None:
    order_id = await customer.buy("a")
    case_id, prices = await customer.exchange(order_id, "b")
    assert prices == {"price": 150, "credit": 100, "to_pay": 50, "to_refund": 0}
    replacement_id = await customer.wait_for_replacement(case_id)
    case = await customer.read_case(case_id)
    assert (case["waits_for"], case["money_state"], case["ended_at"]) == ("customer", "fixed", None)
    unpaid = await read_order(customer.gateway, replacement_id)
    assert (unpaid["status"], unpaid["total"]["amount"]) == ("awaiting_payment", 50)
    assert (await read_order(customer.gateway, order_id))["return_state"] == "in_progress"
    await customer.pay(replacement_id, 50)
    assert (await customer.wait_for_end(case_id))["kind"] == "exchange"
    await customer.deliver(replacement_id)
    first, second = await read_order(customer.gateway, order_id), await read_order(customer.gateway, replacement_id)
    assert (first["payment_state"], first["return_state"], first["refunds"]) == ("paid", "returned", None)
    assert (second["status"], second["payment_state"]) == ("delivered", "paid")
    [offered, done] = await customer.read_story(order_id, "exchange")
    assert offered.startswith(f"order {replacement_id} replaces the returned units; 0.50 CNY more is to be paid by ")
    assert done == "the exchange is done: 1.00 CNY is taken off the new order"
    assert await customer.read_stock() == {"a": 5, "b": 4, "c": 5}


async def test_exchange_without_its_difference_paid_in_time_is_refunded(customer: ExchangingCustomer) -> None:
    order_id = await customer.buy("a")
    case_id, _ = await customer.exchange(order_id, "b")
    replacement_id = await customer.wait_for_replacement(case_id)
    await customer.whole.pay.expire_orders(replacement_id)
    await customer.whole.pay.wait_for_order(replacement_id, "cancelled", "expired")
    await customer.whole.ship.make_all_due()  # the case looks at an order of yesterday only now and then
    case = await customer.wait_for_end(case_id)
    assert (case["kind"], case["money_state"], case["amount"]) == ("return", "done", 100)
    first, second = await read_order(customer.gateway, order_id), await read_order(customer.gateway, replacement_id)
    assert (first["payment_state"], first["refunds"]["done"], first["return_state"]) == ("refunded", 100, "returned")
    assert (first["replacements"], second["replaces"]) == (None, str(order_id))
    assert second["status"] == "cancelled"
    assert (await customer.read_story(order_id, "exchange"))[-1] == (
        "the difference was not paid in time; the units are refunded instead"
    )
    assert await customer.read_story(replacement_id, "exchange") == [f"it replaces units of order {order_id}"]
    assert await customer.read_stock() == {"a": 5, "b": 5, "c": 5}


async def test_exchange_for_less_refunds_the_difference(customer: ExchangingCustomer) -> None:
    order_id = await customer.buy("a")
    case_id, prices = await customer.exchange(order_id, "c")
    assert prices == {"price": 60, "credit": 100, "to_pay": 0, "to_refund": 40}
    replacement_id = await customer.wait_for_replacement(case_id)
    case = await customer.wait_for_end(case_id)
    assert (case["kind"], case["money_state"]) == ("exchange", "done")
    first, second = await read_order(customer.gateway, order_id), await read_order(customer.gateway, replacement_id)
    assert (first["payment_state"], first["refunds"]["done"]) == ("partly_refunded", 40)
    assert second["total"]["amount"] == 0
    assert sum(refund.amount for refund in customer.whole.pay.payment_store.list_refunds("alipay")) == 40
    assert "exchanged; the replacement costs less" in "".join(await customer.read_story(order_id, "refund"))
    assert await customer.read_stock() == {"a": 5, "b": 5, "c": 4}


async def test_exchange_for_units_that_are_gone_is_refunded_as_a_return(customer: ExchangingCustomer) -> None:
    """Another customer buys the last units after the approval."""
    order_id, ended = await customer.buy("a"), count_ended("refunded")
    case_id, _ = await customer.return_for(order_id, "b")
    await customer.whole.pay.add_order(("b", 5), user="rival")
    await customer.resolve(case_id)
    case = await customer.wait_for_end(case_id)
    assert (case["kind"], case["exchange_order_id"], case["amount"]) == ("return", None, 100)
    order = await read_order(customer.gateway, order_id)
    assert (order["payment_state"], order["refunds"]["done"], order["return_state"]) == ("refunded", 100, "returned")
    assert await customer.read_story(order_id, "exchange") == [
        "the replacement cannot be reserved: it is sold out (b); the units are refunded instead"
    ]
    listed = (await customer.gateway.call("GET", "/v1/orders")).body["items"]
    assert [item["order_id"] for item in listed] == [str(order_id)]
    assert await customer.read_stock() == {"a": 5, "b": 0, "c": 5}
    assert count_ended("refunded") == ended + 1
