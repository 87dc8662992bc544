"""A shop with payments: gateway, workers and a sandbox of both providers in the test's event loop."""

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
from config.payments import AlipaySettings, WeChatPaySettings
from config.settings import Settings
from lua import SaleKeys
from ops.sandbox.faults import ProviderFaultRegistry, ProviderFaults
from ops.sandbox.keys import Keys, make_keys, read_keys
from ops.sandbox.payment_store import DuePaymentWebhook, PaymentStore
from ops.sandbox.protocol import SignedWebhook
from ops.sandbox.server import PROVIDERS, Sandbox, build_app, provider_protocols, run_providers
from ops.sandbox.webhook_sender import SenderSettings
from ops.services import CliServices
from tests.support.gateway import TestGateway, open_gateway, run_workers
from tests.support.processes import Processes
from tests.support.refund_settings import REFUNDS_AT_ONCE
from tests.support.sales import eventually, make_sale, order_body

WORKERS = ("order_writer", "release_worker", "payment_worker")
ITEMS: Mapping[str, tuple[int, int, int | None]] = {"a": (50, 100, 3), "b": (20, 50, None)}
PROMPT_WEBHOOKS = ProviderFaults(webhook_delay_ms=0)
NO_WEBHOOKS = ProviderFaults(dropped_share=1)
"""No webhook is sent, so only polling finds captures and refunds."""


@cache
def key_files() -> Mapping[str, bytes]:
    """Return the files of keys and ids of both sides.

    All tests of a process share them, because making keys is slow.
    """
    with tempfile.TemporaryDirectory() as home:
        make_keys(Path(home))
        return {file.name: file.read_bytes() for file in Path(home).iterdir()}


def write_keys(directory: Path) -> None:
    """Write the shared files as `make_keys` writes new ones."""
    directory.mkdir(parents=True, mode=0o700)
    for name, content in key_files().items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)


@cache
def provider_keys() -> Keys:
    """Return the shared keys and ids of both sides."""
    with tempfile.TemporaryDirectory() as home:
        write_keys(Path(home) / "keys")
        return read_keys(Path(home) / "keys")


@asynccontextmanager
async def open_sandbox() -> AsyncIterator[tuple[Sandbox, str]]:
    """Run both providers on a free port. Yields the sandbox and its URL. Only tests pay."""
    async with AsyncExitStack() as stack:
        payment_store = stack.enter_context(closing(PaymentStore()))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        clock, fault_registry = SystemClock(), ProviderFaultRegistry()
        for name in PROVIDERS:
            fault_registry.set(name, PROMPT_WEBHOOKS)
        make = partial(provider_protocols, payment_store, clock, provider_keys(), url)
        sender_settings = SenderSettings(timeout_s=5, max_retry_wait_s=0.05)
        sandbox = await stack.enter_async_context(
            run_providers(payment_store, clock, fault_registry, sender_settings, make)
        )
        runner = web.AppRunner(build_app(sandbox), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        yield sandbox, url


def with_providers(settings: Settings, providers_url: str, shop_url: str) -> Settings:
    """Return the settings of a shop at `shop_url` with accounts at the providers at `providers_url`."""
    keys = provider_keys()
    alipay = AlipaySettings(
        app_id=keys.ids.alipay_app_id,
        seller_id=keys.ids.alipay_seller_id,
        gateway_url=f"{providers_url}/alipay/gateway.do",
        notify_url=f"{shop_url}/v1/webhooks/payments/alipay",
        merchant_key=SecretStr(keys.alipay_merchant.private),
        alipay_key=keys.alipay_platform.public,
    )
    wechatpay = WeChatPaySettings(
        app_id=keys.ids.wechatpay_app_id,
        mch_id=keys.ids.wechatpay_mch_id,
        serial=keys.ids.wechatpay_merchant_serial,
        private_key=SecretStr(keys.wechatpay_merchant.private),
        api_v3_key=SecretStr(keys.ids.wechatpay_api_v3_key),
        base_url=f"{providers_url}/wechatpay",
        notify_url=f"{shop_url}/v1/webhooks/payments/wechatpay",
    )
    update = {"alipay": alipay, "wechatpay": wechatpay, "refunds": REFUNDS_AT_ONCE}
    payments = settings.payments.model_copy(update=update)
    return settings.model_copy(update={"payments": payments})


@dataclass
class PaymentChecks:
    """Access to the simulated providers and the shop's database, and comparisons of both."""

    shop: CliServices
    sandbox: Sandbox
    sale_id: str

    @property
    def keys(self) -> SaleKeys:
        return SaleKeys(self.sale_id)

    @property
    def payment_store(self) -> PaymentStore:
        return self.sandbox.payment_store

    def set_faults(self, **faults: Any) -> None:
        """Set the faults of both providers, also for trades that are not paid yet."""
        for name in PROVIDERS:
            self.sandbox.set_faults(name, ProviderFaults(**{"webhook_delay_ms": 0, **faults}))

    def pay_at_provider(self, method: str, payment_id: UUID | str, *, too_late: bool = False) -> None:
        """Pay a trade as the customer. With `too_late` the money arrives although the trade is closed."""
        self.sandbox.payment_simulator.pay(method, UUID(str(payment_id)).hex, too_late=too_late)

    def find_trade_state(self, method: str, payment_id: UUID | str) -> str | None:
        trade = self.payment_store.find_trade(method, UUID(str(payment_id)).hex)
        return trade.state if trade else None

    async def fetch_rows(self, query: str, *values: object) -> list[Any]:
        async with self.shop.db.connection() as connection:
            return list(await connection.fetch(query, *values))

    async def fetch_value(self, query: str, *values: object) -> Any:
        async with self.shop.db.connection() as connection:
            return await connection.fetchval(query, *values)

    async def wait_for_order(self, order_id: UUID, status: str, reason: str | None = None) -> None:
        """Wait until the order is stored with this status and cancel reason."""

        async def is_reached() -> bool:
            query = "SELECT status, cancel_reason FROM orders WHERE order_id = $1"
            return [tuple(row) for row in await self.fetch_rows(query, order_id)] == [(status, reason)]

        await eventually(is_reached)

    async def wait_for_payment(self, payment_id: UUID | str, status: str) -> None:
        """Wait until the payment has this status."""

        async def is_reached() -> bool:
            query = "SELECT status FROM payments WHERE payment_id = $1"
            return bool(await self.fetch_value(query, UUID(str(payment_id))) == status)

        await eventually(is_reached)

    async def expire_orders(self, *order_ids: UUID) -> None:
        """End the time to pay of these orders, or of all that await payment."""
        async with self.shop.db.transaction() as connection:
            await expire_orders(connection, order_ids)

    async def wait_until_idle(self) -> None:
        """Wait until no job is left that workers could do now, except polls of pending payments."""

        async def is_idle() -> bool:
            return not await self.fetch_value(_UNFINISHED_JOBS)

        try:
            await eventually(is_idle)
        except AssertionError as error:
            jobs = await self.fetch_rows("SELECT * FROM jobs ORDER BY created_at LIMIT 10")
            raise AssertionError(f"workers are not idle: {[dict(job) for job in jobs]}") from error

    async def check_records(self) -> None:
        """Check that the audits are clean, orders have their money, and the providers' records equal ours."""
        for audit_sale in (self.shop.audit.audit_changes, self.shop.audit.audit_sale):
            audit = await audit_sale(self.sale_id)
            assert audit.clean, audit.findings
        assert [tuple(row) for row in await self.fetch_rows(_WRONG_AMOUNTS)] == []
        for name in PROVIDERS:
            assert await self._recorded_totals(name) == self._provider_totals(name), name

    async def _recorded_totals(self, name: str) -> tuple[dict[str, int], dict[str, int]]:
        """Return our captures and refunds by id."""
        captured = await self.fetch_rows("SELECT * FROM payments WHERE method = $1 AND status = 'captured'", name)
        refunded = await self.fetch_rows(
            "SELECT refund_id, refunds.amount_minor FROM refunds JOIN payments USING (payment_id) "
            "WHERE method = $1 AND refunds.status = 'done'",
            name,
        )
        return (
            {row["payment_id"].hex: row["amount_minor"] for row in captured},
            {row["refund_id"].hex: row["amount_minor"] for row in refunded},
        )

    def _provider_totals(self, name: str) -> tuple[dict[str, int], dict[str, int]]:
        return (
            {trade.out_no: trade.amount for trade in self.payment_store.list_paid_trades(name)},
            {refund.out_refund_no: refund.amount for refund in self.payment_store.list_refunds(name)},
        )


_UNFINISHED_JOBS = """
SELECT (SELECT count(*) FROM jobs WHERE queue IN ('payments', 'refunds', 'releases') AND NOT parked
        AND NOT EXISTS (SELECT FROM payments WHERE payment_id = jobs.subject AND kind = 'payment.query'
                        AND status = 'pending' AND expires_at > now()))
     + (SELECT count(*) FROM releases WHERE status = 'pending')
     + (SELECT count(*) FROM orders WHERE status = 'awaiting_payment' AND pay_by <= now())
"""
# Independent of the audit's queries: the amount captured and not refunded of each plan revision of an order.
_WRONG_AMOUNTS = """
WITH kept AS (
    SELECT order_id, plan_revision, sum(amount_minor - coalesce(refunded.refunded_minor, 0)) AS kept_minor,
           sum(coalesce(refunded_by_staff_minor, 0)) AS refunded_by_staff_minor
    FROM payments LEFT JOIN (
        SELECT payment_id, sum(amount_minor) AS refunded_minor,
               sum(amount_minor) FILTER (WHERE actor <> 'payment_worker') AS refunded_by_staff_minor
        FROM refunds WHERE status <> 'failed' GROUP BY payment_id) AS refunded USING (payment_id)
    WHERE status IN ('captured', 'authorised') GROUP BY order_id, plan_revision
), last AS (SELECT order_id, max(plan_revision) AS plan_revision FROM payments GROUP BY order_id)
SELECT orders.order_id, orders.status, total_minor, kept.plan_revision, kept.kept_minor
FROM orders JOIN last USING (order_id) LEFT JOIN kept USING (order_id)
WHERE CASE
    WHEN kept.plan_revision < last.plan_revision THEN kept.kept_minor <> 0
    WHEN orders.status = 'cancelled' THEN coalesce(kept.kept_minor, 0) <> 0
    WHEN orders.status = 'awaiting_payment' THEN coalesce(kept.kept_minor, 0) >= total_minor
    ELSE coalesce(kept.kept_minor + kept.refunded_by_staff_minor, 0) <> total_minor END
"""


async def expire_orders(connection: Connection, order_ids: Sequence[UUID]) -> None:
    """Date unpaid orders and their payments back by a day; without ids all of them.

    Orders are updated before payments, the order in which they are locked elsewhere."""
    rows = await connection.fetch(
        "UPDATE orders SET accepted_at = accepted_at - interval '1 day', pay_by = now() - interval '1 second' "
        "WHERE status = 'awaiting_payment' AND pay_by > now() AND ($1::uuid[] IS NULL OR order_id = ANY($1)) "
        "RETURNING order_id",
        list(order_ids) or None,
    )
    await connection.execute(
        "WITH expired AS (UPDATE payments SET created_at = created_at - interval '1 day', "
        "expires_at = now() - interval '2 seconds' WHERE order_id = ANY($1::uuid[]) AND status = 'pending' "
        "RETURNING payment_id) "
        "UPDATE jobs SET due_at = now() FROM expired WHERE jobs.subject = payment_id",
        [row["order_id"] for row in rows],
    )


@dataclass
class PaymentShop(PaymentChecks):
    """A shop with a gateway and a client for it. Prices and limits are those of `ITEMS`."""

    gateway: TestGateway
    settings: Settings

    async def add_order(self, *lines: tuple[str, int], user: str = "user", **more: Any) -> UUID:
        """Place an order, by default of one `a`, and wait until it is stored."""
        answer = await self.gateway.order(order_body(self.sale_id, *(lines or [("a", 1)]), **more), user=user)
        assert answer.status == 202, answer.text
        order_id = UUID(answer.body["order_id"])
        await self.wait_for_order(order_id, "awaiting_payment")
        return order_id

    async def start_payments(self, order_id: UUID, *parts: tuple[str, int], user: str = "user") -> list[dict[str, Any]]:
        """Start payments with tenders (method, amount). Returns the current payments."""
        body = {"payments": [{"method": method, "amount": amount} for method, amount in parts]}
        answer = await self.gateway.call("POST", f"/v1/orders/{order_id}/payments", user=user, json=body)
        assert answer.status == 200, answer.text
        return [payment for payment in answer.body["payments"] if payment["current"]]

    async def add_order_with_payments(
        self, *parts: tuple[str, int], user: str = "user"
    ) -> tuple[UUID, list[dict[str, Any]]]:
        """Place an order of one `a`, which costs 100, and start its payments."""
        order_id = await self.add_order(user=user)
        return order_id, await self.start_payments(order_id, *parts, user=user)

    async def add_paid_order(self, *parts: tuple[str, int], user: str = "user") -> tuple[UUID, list[dict[str, Any]]]:
        """Place an order of one `a` and have it paid with these tenders (method, amount)."""
        order_id, payments = await self.add_order_with_payments(*parts, user=user)
        for payment in payments:
            if payment["method"] in PROVIDERS:
                self.pay_at_provider(payment["method"], payment["payment_id"])
        await self.wait_for_order(order_id, "paid")
        return order_id, payments

    async def list_payments(self, order_id: UUID, user: str = "user") -> list[dict[str, Any]]:
        answer = await self.gateway.call("GET", f"/v1/orders/{order_id}/payments", user=user)
        assert answer.status == 200, answer.text
        payments: list[dict[str, Any]] = answer.body["payments"]
        return payments

    async def call_as_staff(self, method: str, path: str, **kwargs: Any) -> Any:
        """Send a request of support staff, which must succeed. Returns the body."""
        answer = await self.gateway.call(method, f"/v1/admin{path}", user="sam", roles=["support"], **kwargs)
        assert answer.status in (200, 204), answer.text
        return answer.body

    async def grant_credit(self, amount: int, user: str = "user", key: str = "welcome") -> None:
        await self.call_as_staff(
            "POST",
            f"/store-credit/{user}",
            json={"idempotency_key": f"{key}-{user}", "amount": amount, "currency": "CNY"},
        )

    async def get_credit(self, user: str = "user") -> int:
        query = "SELECT coalesce(sum(balance_minor), 0)::bigint FROM credit_accounts WHERE user_id = $1"
        return int(await self.fetch_value(query, user))

    def build_webhook(
        self, method: str, payment_id: UUID | str, refund_id: UUID | str | None = None, *, webhook_id: str = "n-1"
    ) -> SignedWebhook:
        """Build the webhook that the provider would send now about a payment or a refund."""
        out_no = UUID(str(payment_id)).hex
        trade = self.payment_store.find_trade(method, out_no)
        assert trade is not None
        refund = self.payment_store.find_refund(method, UUID(str(refund_id)).hex) if refund_id else None
        out_refund_no = refund.out_refund_no if refund else None
        due_webhook = DuePaymentWebhook(webhook_id, method, out_no, out_refund_no, None, 0)
        return self.sandbox.protocols[method].build_webhook(due_webhook, trade, refund)

    async def send_webhook(self, method: str, webhook: SignedWebhook) -> tuple[int, str]:
        """Deliver a webhook. Returns status and text of the answer."""
        url = f"{self.gateway.base}/v1/webhooks/payments/{method}"
        async with self.gateway.client.post(url, data=webhook.body, headers=webhook.headers) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def open_payment_shop(
    shop: CliServices,
    sale_id: str,
    *workers: str,
    items: Mapping[str, tuple[int, int, int | None]] = ITEMS,
    change: Callable[[Settings], Settings] = lambda settings: settings,
) -> AsyncIterator[PaymentShop]:
    """Open a sale, the sandbox, a gateway and all workers, or the named ones.

    `change` alters the settings of the workers."""
    await make_sale(shop, sale_id, items)
    async with AsyncExitStack() as stack:
        sandbox, url = await stack.enter_async_context(open_sandbox())
        # The gateway only reads webhooks and calls no provider, so its own address is not needed.
        gateway = await stack.enter_async_context(
            open_gateway(with_providers(shop.settings, url, "http://shop.invalid"))
        )
        settings = change(with_providers(shop.settings, url, gateway.base))
        await stack.enter_async_context(run_workers(settings, *(workers or WORKERS)))
        yield PaymentShop(shop, sandbox, sale_id, gateway, settings)


@dataclass
class PaymentProcesses(Processes):
    """Processes whose settings contain the secrets of the providers, which a dump of the settings masks."""

    def environment(self) -> dict[str, str]:
        payments = self.settings.payments
        accounts = {"alipay": payments.alipay, "wechatpay": payments.wechatpay}
        texts: dict[str, Any] = {name: account.as_strings() for name, account in accounts.items() if account}
        texts["refunds"] = payments.refunds.model_dump()
        return {**super().environment(), "FLOODGATE_PAYMENTS": orjson.dumps(texts).decode()}


@asynccontextmanager
async def run_payment_processes(settings: Settings, home: Path) -> AsyncIterator[PaymentProcesses]:
    """Stop all processes at the end of the block."""
    processes = PaymentProcesses(settings, home)
    try:
        yield processes
    finally:
        await asyncio.gather(*(running.stop() for running in processes.running))


def with_job_settings(**changed: Any) -> Callable[[Settings], Settings]:
    """Make a `change` of `open_payment_shop` that sets job settings."""
    return lambda settings: settings.model_copy(update={"jobs": settings.jobs.model_copy(update=changed)})
