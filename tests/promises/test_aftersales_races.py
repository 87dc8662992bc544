"""Hundreds of returns, cancellations, exchanges and refunds at once of the same fifty orders.

Afterwards nothing is beyond what was delivered or captured, and the audit finds no difference.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any
from uuid import UUID

from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse
from tests.support.whole_shop import BEYOND, WholeShop, open_whole_shop

ORDERS, REQUESTS_PER_ORDER, AT_ONCE = 50, 10, 100
UNITS = {"a": 3, "b": 2}
TOTAL = 3 * 101 + 2 * 57


class Customer:
    """Sends requests about an order, of its customer and of staff, as if the others did not exist."""

    def __init__(self, whole: WholeShop, random: Random, number: int, order_id: UUID) -> None:
        self._whole, self._random, self._order_id = whole, random, order_id
        self._user, self._keys = f"user-{number}", iter(range(1_000))

    async def send(self) -> list[GatewayResponse]:
        """Send one of the requests, and what follows from its success."""
        lines = [
            {"line_no": number, "quantity": self._random.randint(1, 2)} for number in self._random.sample((0, 1), 1)
        ]
        match self._random.randrange(6):
            case 0:
                return [await self._own("cancel", {"lines": lines})]
            case 1:
                return [await self._own("cancel", None)]
            case 2:
                key = f"race-{next(self._keys)}"
                return [await self._staff("refunds", {"idempotency_key": key, "reason": "a race", "lines": lines})]
            case 3:
                return [await self._staff("cancel", {"reason": "a race", "lines": lines})]
            case _:
                return await self._open_case(lines)

    async def _open_case(self, lines: Sequence[dict[str, Any]]) -> list[GatewayResponse]:
        kind = self._random.choice(("return", "exchange", "claim", "refund_only"))
        more: dict[str, Any] = {"claim": "damaged", "reason": "damaged_or_defective"} if kind == "claim" else {}
        wanted = {"wanted_sku": self._random.choice(list(UNITS))} if kind == "exchange" else {}
        query = "SELECT shipment_id, line_no FROM shipment_lines WHERE order_id = $1"
        shipments = {
            row["line_no"]: {"shipment_id": str(row["shipment_id"])}
            for row in await self._whole.pay.fetch_rows(query, self._order_id)
        }
        lines = [{**line, **shipments.get(line["line_no"], {}), **wanted} for line in lines]
        answers = [await self._own("returns", {"kind": kind, "reason": "changed_my_mind", "lines": lines, **more})]
        while answers[-1].status in (200, 201) and len(answers) < 3:
            case = answers[-1].body["case"]
            path = f"/v1/admin/cases/{case['case_id']}/{'approve' if len(answers) == 1 else 'resolve'}"
            body = {"version": case["version"], "reason": "a race"}
            answers.append(await self._call("POST", path, body, staff=True))
        return answers

    async def _own(self, action: str, body: Any) -> GatewayResponse:
        return await self._call("POST", f"/v1/orders/{self._order_id}/{action}", body)

    async def _staff(self, action: str, body: Any) -> GatewayResponse:
        return await self._call("POST", f"/v1/admin/orders/{self._order_id}/{action}", body, staff=True)

    async def _call(self, method: str, path: str, body: Any, *, staff: bool = False) -> GatewayResponse:
        headers = {"Idempotency-Key": f"{self._order_id}-{next(self._keys)}"}
        sender: dict[str, Any] = {"user": "sam", "roles": ["support"]} if staff else {"user": self._user}
        return await self._whole.pay.gateway.call(method, path, headers=headers, json=body, **sender)


async def test_five_hundred_racing_requests_undo_nothing_twice(
    make_settings: Callable[..., Settings], shop: CliServices, sale_id: str
) -> None:
    random = Random("aftersales races")
    items = {"a": (400, 101, None), "b": (400, 57, None)}
    async with open_whole_shop(shop, make_settings, sale_id, items) as whole:
        order_ids = await whole.add_paid_orders(ORDERS, *UNITS.items(), total=TOTAL)
        await whole.work_until_idle()
        for order_id in order_ids[::2]:
            await whole.deliver(order_id)
        customers = [Customer(whole, random, number, order_id) for number, order_id in enumerate(order_ids)]
        senders = customers * REQUESTS_PER_ORDER
        random.shuffle(senders)
        answers: list[GatewayResponse] = []
        for first in range(0, len(senders), AT_ONCE):
            for sent in await asyncio.gather(*(sender.send() for sender in senders[first : first + AT_ONCE])):
                answers += sent
            await whole.work_until_idle()
        counts = Counter((answer.status, answer.body.get("code")) for answer in answers)
        assert len(answers) >= ORDERS * REQUESTS_PER_ORDER
        assert {status for status, _ in counts} <= {200, 201, 202, 409, 422}, counts
        assert sum(count for (status, _), count in counts.items() if status < 300) > ORDERS, counts
        for query in BEYOND:
            assert [tuple(row) for row in await whole.pay.fetch_rows(query)] == []
        await whole.pay.wait_until_idle()
        await whole.check_audit()
