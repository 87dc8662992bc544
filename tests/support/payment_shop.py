"""A shop that is paid: front door and workers in the test's event loop, and a sandbox with both real protocols."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web
from pydantic import SecretStr

from commerce.kernel.clock import SystemClock
from commerce.kernel.postgres import Connection
from config.settings import AlipaySettings, PaymentSettings, Settings, WeChatPaySettings
from lua import SaleKeys
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults
from ops.sandbox.keys import Keys, make_keys, read_keys
from ops.sandbox.payment_store import DueNotice, PaymentStore
from ops.sandbox.protocol import Callback
from ops.sandbox.server import PROVIDERS, Sandbox, _protocols, build, running
from ops.sandbox.webhook_sender import Sending
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.processes import Processes
from tests.support.sales import eventually, make_sale, order_body

WORKERS = ("order_writer", "release_worker", "payment_worker")
ITEMS: Mapping[str, tuple[int, int, int | None]] = {"a": (50, 100, 3), "b": (20, 50, None)}
PROMPT_WEBHOOKS = ProviderFaults(callback_ms=0)
NO_WEBHOOKS = ProviderFaults(never_share=1)
"""No callback is sent: whoever wants to know has to ask."""


@cache
def provider_keys() -> Keys:
    """Keys and ids of both sides, the same for all tests of a run, because making them takes long."""
    with tempfile.TemporaryDirectory() as home:
        make_keys(Path(home))
        return read_keys(Path(home))


@asynccontextmanager
async def open_sandbox() -> AsyncIterator[tuple[Sandbox, str]]:
    """Both providers on a port that the system chose, and their address. Nobody pays before a test does."""
    async with AsyncExitStack() as stack:
        bank = stack.enter_context(closing(PaymentStore()))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url, clock, board = f"http://127.0.0.1:{listener.getsockname()[1]}", SystemClock(), ProviderFaultRegistry()
        for name in PROVIDERS:
            board.set(name, PROMPT_WEBHOOKS)
        make = partial(_protocols, bank, clock, provider_keys(), url)
        sending = Sending(timeout_s=5, longest_wait_s=0.05)
        sandbox = await stack.enter_async_context(running(bank, clock, board, sending, make))
        runner = web.AppRunner(build(sandbox), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        yield sandbox, url


def with_providers(settings: Settings, providers: str, shop: str) -> Settings:
    """The settings of a shop at the address `shop` that has agreed with the providers at the address given."""
    keys = provider_keys()
    alipay = AlipaySettings(
        app_id=keys.ids.alipay_app_id,
        seller_id=keys.ids.alipay_seller_id,
        gateway_url=f"{providers}/alipay/gateway.do",
        notify_url=f"{shop}/v1/webhooks/payments/alipay",
        merchant_key=SecretStr(keys.alipay_merchant.private),
        alipay_key=keys.alipay_platform.public,
    )
    wechatpay = WeChatPaySettings(
        app_id=keys.ids.wechatpay_app_id,
        mch_id=keys.ids.wechatpay_mch_id,
        serial=keys.ids.wechatpay_merchant_serial,
        private_key=SecretStr(keys.wechatpay_merchant.private),
        api_v3_key=SecretStr(keys.ids.wechatpay_api_v3_key),
        base_url=f"{providers}/wechatpay",
        notify_url=f"{shop}/v1/webhooks/payments/wechatpay",
    )
    return settings.model_copy(update={"payments": PaymentSettings(alipay=alipay, wechatpay=wechatpay)})


@dataclass
class PaymentChecks:
    """The providers' books and the shop's database, side by side."""

    shop: CliServices
    sandbox: Sandbox
    sale_id: str

    @property
    def keys(self) -> SaleKeys:
        return SaleKeys(self.sale_id)

    @property
    def bank(self) -> PaymentStore:
        return self.sandbox.bank

    def switch(self, **switches: Any) -> None:
        """Both providers behave so from now on."""
        for name in PROVIDERS:
            self.sandbox.switch(name, ProviderFaults(**{"callback_ms": 0, **switches}))

    def pays(self, method: str, payment_id: UUID | str, *, too_late: bool = False) -> None:
        """The customer pays; too late where the money was on its way when the payment was closed."""
        self.sandbox.plans.pay(method, UUID(str(payment_id)).hex, too_late=too_late)

    def trade_state(self, method: str, payment_id: UUID | str) -> str | None:
        trade = self.bank.trade(method, UUID(str(payment_id)).hex)
        return trade.state if trade else None

    async def rows(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)

    async def order_is(self, order_id: UUID, status: str, reason: str | None = None) -> None:
        """Wait until the order is there."""

        async def look() -> bool:
            query = "SELECT status, cancel_reason FROM orders WHERE order_id = $1"
            return [tuple(row) for row in await self.rows(query, order_id)] == [(status, reason)]

        await eventually(look)

    async def payment_is(self, payment_id: UUID | str, status: str) -> None:
        """Wait until the payment is there."""

        async def look() -> bool:
            query = "SELECT status FROM payments WHERE payment_id = $1"
            return bool(await self.value(query, UUID(str(payment_id))) == status)

        await eventually(look)

    async def expire(self, *order_ids: UUID) -> None:
        """Make the time to pay over for these orders, or for all that wait for money."""
        async with self.shop.db.transaction() as connection:
            await expire_orders(connection, order_ids)

    async def quiet(self) -> None:
        """Wait until no job is left that anybody could do now, except looking whether somebody pays."""

        async def look() -> bool:
            return not await self.value(_LEFT)

        await eventually(look, timeout_s=25)

    async def check(self, *, books_agree: bool = True) -> None:
        """The audit is clean, money is where the orders say it is, and the providers' books agree with ours."""
        audit = await self.shop.audit.audit_sale(self.sale_id)
        assert audit.clean, audit.findings
        assert not any((await self.shop.audit.sum_ledger()).values())
        assert [tuple(row) for row in await self.rows(_MISPLACED)] == []
        if books_agree:
            for name in PROVIDERS:
                assert await self._ours(name) == self._theirs(name), name

    async def _ours(self, name: str) -> tuple[dict[str, int], dict[str, int]]:
        taken = await self.rows("SELECT * FROM payments WHERE method = $1 AND status = 'captured'", name)
        given = await self.rows(
            "SELECT refund_id, refunds.amount_minor FROM refunds JOIN payments USING (payment_id) "
            "WHERE method = $1 AND refunds.status = 'done'",
            name,
        )
        return (
            {row["payment_id"].hex: row["amount_minor"] for row in taken},
            {row["refund_id"].hex: row["amount_minor"] for row in given},
        )

    def _theirs(self, name: str) -> tuple[dict[str, int], dict[str, int]]:
        return (
            {trade.out_no: trade.amount for trade in self.bank.trades(name)},
            {refund.out_refund_no: refund.amount for refund in self.bank.refunds(name)},
        )


_LEFT = """
SELECT (SELECT count(*) FROM payments WHERE task IS NOT NULL AND NOT parked
        AND NOT (task = 'query' AND status = 'pending' AND expires_at > now()))
     + (SELECT count(*) FROM refunds WHERE status = 'pending' AND NOT parked)
     + (SELECT count(*) FROM releases WHERE status = 'pending')
     + (SELECT count(*) FROM orders WHERE status = 'awaiting_payment' AND pay_by <= now())
"""
# Told apart from the audit's own queries: what was taken and not given back of each round of an order.
_MISPLACED = """
WITH kept AS (
    SELECT order_id, plan_revision, sum(amount_minor - coalesce(going, 0)) AS units,
           sum(coalesce(by_staff, 0)) AS by_staff
    FROM payments LEFT JOIN (
        SELECT payment_id, sum(amount_minor) AS going,
               sum(amount_minor) FILTER (WHERE actor <> 'payment_worker') AS by_staff
        FROM refunds WHERE status <> 'failed' GROUP BY payment_id) AS back USING (payment_id)
    WHERE status IN ('captured', 'authorised') GROUP BY order_id, plan_revision
), last AS (SELECT order_id, max(plan_revision) AS plan_revision FROM payments GROUP BY order_id)
SELECT orders.order_id, orders.status, total_minor, kept.plan_revision, kept.units
FROM orders JOIN last USING (order_id) LEFT JOIN kept USING (order_id)
WHERE CASE
    WHEN kept.plan_revision < last.plan_revision THEN kept.units <> 0
    WHEN orders.status = 'cancelled' THEN coalesce(kept.units, 0) <> 0
    WHEN orders.status = 'awaiting_payment' THEN coalesce(kept.units, 0) >= total_minor
    ELSE coalesce(kept.units + kept.by_staff, 0) <> total_minor END
"""


async def expire_orders(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Order and payments as if a day had gone by. The payments first: they are locked after their order elsewhere."""
    given = list(order_ids) or None
    rows = await connection.fetch(
        "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() - interval '1 second' "
        "WHERE status = 'awaiting_payment' AND pay_by > now() AND ($1::uuid[] IS NULL OR order_id = ANY($1)) "
        "RETURNING order_id",
        given,
    )
    await connection.execute(
        "UPDATE payments SET created_at = created_at - interval '1 day', expires_at = now() - interval '2 seconds', "
        "due_at = now() WHERE order_id = ANY($1::uuid[]) AND status = 'pending'",
        [row["order_id"] for row in rows],
    )


@dataclass
class PaymentShop(PaymentChecks):
    """A till with a front door and a client for it. Prices and limits are those of `ITEMS`."""

    gateway: TestGateway
    settings: Settings

    async def order(self, *lines: tuple[str, int], user: str = "user", **more: Any) -> UUID:
        """Place an order and wait until it is stored."""
        answer = await self.gateway.order(order_body(self.sale_id, *(lines or [("a", 1)]), **more), user=user)
        assert answer.status == 202, answer.text
        order_id = UUID(answer.body["order_id"])
        await self.order_is(order_id, "awaiting_payment")
        return order_id

    async def start(self, order_id: UUID, *parts: tuple[str, int], user: str = "user") -> list[dict[str, Any]]:
        """Begin to pay in these ways, (method, amount); gives the payments that count."""
        body = {"payments": [{"method": method, "amount": amount} for method, amount in parts]}
        answer = await self.gateway.call("POST", f"/v1/orders/{order_id}/payments", user=user, json=body)
        assert answer.status == 200, answer.text
        return [one for one in answer.body["payments"] if one["current"]]

    async def ordered(self, *parts: tuple[str, int], user: str = "user") -> tuple[UUID, list[dict[str, Any]]]:
        """An order of one `a`, which costs 100, with its payments under way."""
        order_id = await self.order(user=user)
        return order_id, await self.start(order_id, *parts, user=user)

    async def paid(self, *parts: tuple[str, int], user: str = "user") -> tuple[UUID, list[dict[str, Any]]]:
        """An order of one `a` that is paid in these ways."""
        order_id, payments = await self.ordered(*parts, user=user)
        for one in payments:
            if one["method"] in PROVIDERS:
                self.pays(one["method"], one["payment_id"])
        await self.order_is(order_id, "paid")
        return order_id, payments

    async def payments(self, order_id: UUID, user: str = "user") -> list[dict[str, Any]]:
        answer = await self.gateway.call("GET", f"/v1/orders/{order_id}/payments", user=user)
        assert answer.status == 200, answer.text
        found: list[dict[str, Any]] = answer.body["payments"]
        return found

    async def staff(self, method: str, path: str, **kwargs: Any) -> Any:
        """What support asks for; it is not refused."""
        answer = await self.gateway.call(method, f"/v1/admin{path}", user="sam", roles=["support"], **kwargs)
        assert answer.status in (200, 204), answer.text
        return answer.body

    async def gift(self, amount: int, user: str = "user", key: str = "welcome") -> None:
        await self.staff(
            "POST", f"/store-credit/{user}", json={"idempotency_key": f"{key}-{user}", "amount": amount, "currency": "CNY"}
        )

    async def credit(self, user: str = "user") -> int:
        query = "SELECT coalesce(sum(balance_minor), 0)::bigint FROM credit_accounts WHERE user_id = $1"
        return int(await self.value(query, user))

    def callback(
        self, method: str, payment_id: UUID | str, refund_id: UUID | str | None = None, *, notice_id: str = "n-1"
    ) -> Callback:
        """What the provider would send now about a payment, or a refund."""
        out_no = UUID(str(payment_id)).hex
        trade = self.bank.trade(method, out_no)
        assert trade is not None
        refund = self.bank.refund_of(method, UUID(str(refund_id)).hex) if refund_id else None
        about = refund.out_refund_no if refund else None
        notice = DueNotice(notice_id, method, out_no, about, None, 0)
        return self.sandbox.protocols[method].callback(notice, trade, refund)

    async def send(self, method: str, callback: Callback) -> tuple[int, str]:
        """Deliver a callback; status and text of the answer."""
        url = f"{self.gateway.base}/v1/webhooks/payments/{method}"
        async with self.gateway.client.post(url, data=callback.body, headers=callback.headers) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def open_payment_shop(
    shop: CliServices,
    sale_id: str,
    *workers: str,
    items: Mapping[str, tuple[int, int, int | None]] = ITEMS,
    change: Callable[[Settings], Settings] = lambda settings: settings,
) -> AsyncIterator[PaymentShop]:
    """Everything together, with all workers or those that are named. `change` changes what drivers are set to."""
    await make_sale(shop, sale_id, items)
    async with AsyncExitStack() as stack:
        sandbox, url = await stack.enter_async_context(open_sandbox())
        # The front door reads callbacks and calls nobody, so it need not know its own address.
        gateway = await stack.enter_async_context(
            open_gateway(with_providers(shop.settings, url, "http://shop.invalid"))
        )
        settings = change(with_providers(shop.settings, url, gateway.base))
        await stack.enter_async_context(run_workers(settings, *(workers or WORKERS)))
        yield PaymentShop(shop, sandbox, sale_id, gateway, settings)


@dataclass
class PaymentProcesses(Processes):
    """Processes that know the providers too, with the secrets that no dump of the settings shows."""

    def environment(self) -> dict[str, str]:
        payments = self.settings.payments
        agreed_on = {"alipay": payments.alipay, "wechatpay": payments.wechatpay}
        texts = {name: said.as_strings() for name, said in agreed_on.items() if said}
        return {**super().environment(), "FLOODGATE_PAYMENTS": orjson.dumps(texts).decode()}


@asynccontextmanager
async def run_payment_processes(settings: Settings, home: Path) -> AsyncIterator[PaymentProcesses]:
    """All of them end with the block."""
    made = PaymentProcesses(settings, home)
    try:
        yield made
    finally:
        await asyncio.gather(*(running.stop() for running in made.running))


def with_job_settings(**changed: Any) -> Callable[[Settings], Settings]:
    """For `change`: other settings of the drivers."""
    return lambda settings: settings.model_copy(update={"jobs": settings.jobs.model_copy(update=changed)})
