"""Hundreds of returns, cancellations, exchanges and refunds at once of the same fifty orders.

Afterwards nothing is beyond what was delivered or captured, by unit and by minor unit of money, some exchanges have
succeeded, and once everybody has acted, everything has ended and the audit finds no difference.
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
from tests.support.order_actions import OrderActions
from tests.support.order_endings import check_excess, end_all
from tests.support.whole_shop import WholeShop, open_whole_shop

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
        match self._random.randrange(8):
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
        kind = self._random.choice(("return", "exchange", "exchange", "claim", "refund_only"))
        more: dict[str, Any] = {"claim": "damaged", "reason": "damaged_or_defective"} if kind == "claim" else {}
        wanted = {"wanted_sku": self._random.choice(list(UNITS))} if kind == "exchange" else {}
        query = "SELECT shipment_id, line_no FROM shipment_lines WHERE order_id = $1"
        shipments = {
            row["line_no"]: {"shipment_id": str(row["shipment_id"])}
            for row in await self._whole.pay.fetch_rows(query, self._order_id)
        }
        lines = [{**line, **shipments.get(line["line_no"], {}), **wanted} for line in lines]
        answer = await self._own("returns", {"kind": kind, "reason": "changed_my_mind", "lines": lines, **more})
        if answer.status not in (200, 201):
            return [answer]
        case = answer.body["case"]
        return [answer, *await self._resolve(case["case_id"], case["items_back"], lines[0]["quantity"])]

    async def _resolve(self, case_id: str, has_items: bool, quantity: int) -> list[GatewayResponse]:
        """Approve a case, receive and inspect its units, and resolve it, as if nobody else changed it.

        Some customers keep the products: then staff resolve the case without them."""
        path, reason = f"/v1/admin/cases/{case_id}", {"reason": "a race"}
        steps: list[tuple[str, str, dict[str, Any]]] = [("support", f"{path}/approve", reason)]
        if has_items and self._random.random() < 0.8:
            receipt = {"case_id": case_id, "warehouse": "hz", "lines": {"0": quantity}}
            results = {"resellable": quantity, "damaged": 0, "rejected": 0}
            steps.append(("warehouse", "/v1/admin/return-receipts", receipt))
            steps.append(("warehouse", f"{path}/inspect", {"lines": {"0": results}}))
        answers = list[GatewayResponse]()
        for role, step, body in [*steps, ("support", f"{path}/resolve", reason)]:
            [version] = await self._whole.pay.fetch_rows("SELECT version FROM cases WHERE case_id = $1", UUID(case_id))
            answers.append(await self._call(step, {**body, "version": version["version"]}, role=role))
            if answers[-1].status >= 300:
                break
        return answers

    async def _own(self, action: str, body: Any) -> GatewayResponse:
        return await self._call(f"/v1/orders/{self._order_id}/{action}", body)

    async def _staff(self, action: str, body: Any) -> GatewayResponse:
        return await self._call(f"/v1/admin/orders/{self._order_id}/{action}", body, role="support")

    async def _call(self, path: str, body: Any, *, role: str = "") -> GatewayResponse:
        headers = {"Idempotency-Key": f"{self._order_id}-{next(self._keys)}"}
        sender: dict[str, Any] = {"user": "sam", "roles": [role]} if role else {"user": self._user}
        return await self._whole.pay.gateway.call("POST", path, headers=headers, json=body, **sender)


async def follow_exchanges(actions: OrderActions, random: Random) -> None:
    """Let exchanges go on. Of the differences that are to be paid, some are paid, some not in time."""
    for order in await actions.follow_exchanges("balance"):
        match random.randrange(3):
            case 0:
                await actions.expire(order, is_paid_late=False)
            case _:
                await actions.pay(order)


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
        actions = OrderActions(whole)
        for number, order_id in enumerate(order_ids):
            await actions.adopt(order_id, f"user-{number}", "balance")
        customers = [Customer(whole, random, number, order_id) for number, order_id in enumerate(order_ids)]
        senders = customers * REQUESTS_PER_ORDER
        random.shuffle(senders)
        answers: list[GatewayResponse] = []
        for first in range(0, len(senders), AT_ONCE):
            for sent in await asyncio.gather(*(sender.send() for sender in senders[first : first + AT_ONCE])):
                answers += sent
            await whole.work_until_idle()
            await follow_exchanges(actions, random)
            await check_excess(actions)
        counts = Counter((answer.status, answer.body.get("code")) for answer in answers)
        assert len(answers) >= ORDERS * REQUESTS_PER_ORDER
        assert {status for status, _ in counts} <= {200, 201, 202, 409, 422}, counts
        assert sum(count for (status, _), count in counts.items() if status < 300) > ORDERS, counts
        await end_all(actions, lambda: None)
        [done] = await actions.fetch("SELECT count(*) FROM exchanges WHERE status = 'done'")
        assert done["count"] >= 5, counts
