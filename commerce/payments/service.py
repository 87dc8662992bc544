"""Payments for customers, providers and staff.

Nothing here calls a provider: that is done by jobs of the payment worker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime
from uuid import UUID

from commerce.jobs import store as jobs
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import KeyReused
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.ledger import store as ledger
from commerce.ledger.model import NewPosting
from commerce.orders.model import CANCELLATIONS, Method
from commerce.payments import locked_orders, order_status, reconciliation, store
from commerce.payments.errors import NoSuchPayment, NotCollectable
from commerce.payments.model import OrderPayments, StoreCredit, TenderInput
from commerce.payments.payment_reads import PaymentReads
from commerce.payments.payment_starts import PaymentStarts, StartRequest
from commerce.payments.provider_port import PaymentWebhook, Provider, StatementLine
from commerce.payments.reconciliation import DAY, NEAR_MIDNIGHT, ReconciliationReport, RecordedDay
from commerce.payments.tenders import PaymentPolicy
from commerce.payments.webhooks import PaymentWebhooks, WebhookResult
from commerce.rights.service import find_decider

HasCashShipments = Callable[[Connection, UUID], Awaitable[bool]]
"""tells if an order has shipments that collect cash and have not reached their final status"""


class Payments:
    """Starts, shows and reconciles payments, and takes in providers' webhooks.

    `providers` maps methods to external providers. A payment expires `policy.expiry_margin_s` before its order does,
    or a quarter of the order's payment time before it, whichever is less."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        providers: Mapping[str, Provider],
        policy: PaymentPolicy,
        has_cash_shipments: HasCashShipments,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._has_cash_shipments = has_cash_shipments
        self._starts = PaymentStarts(db, clock, ids, providers, policy)
        self._reads = PaymentReads(db, clock)
        self._webhooks = PaymentWebhooks(db, clock, ids)

    async def start(
        self, order_id: UUID, user_id: str, tenders: Sequence[TenderInput], client_ip: str | None = None
    ) -> OrderPayments:
        """Create the payments of an order, or replace them by others. The same tenders again change nothing.

        An action that has expired is renewed. Without tenders, those of the order itself are used. `client_ip` is the
        network address of the request. Raises `NoSuchOrder`, `NotPayable` if the order does not wait for payment or is
        about to expire, and `Invalid` if the tenders do not fit the order."""
        return await self._starts.start(StartRequest(order_id, user_id, tenders, client_ip))

    async def get(self, order_id: UUID, user_id: str | None) -> OrderPayments:
        """Return an order's payments; for staff (`user_id` None) those of any customer. Raises `NoSuchOrder`."""
        return await self._reads.get(order_id, user_id)

    async def handle_webhook(self, method: Method, webhook: PaymentWebhook, body: bytes) -> WebhookResult:
        """Store a verified webhook and what it changes, as `PaymentWebhooks.handle`."""
        return await self._webhooks.handle(method, webhook, body)

    # Staff.

    async def record_cash_collected(self, payment_id: UUID, holder: str = "shop", actor: str | None = None) -> None:
        """Record that the cash of a payment was collected, and who has it. The same again changes nothing.

        `holder` is `shop`, `carrier:NAME` or `driver:VEHICLE`. Cash that was collected with shipments is not counted
        again, nor what grants have taken off it. Raises `NoSuchPayment`, and `NotCollectable` if no cash is due or
        shipments still collect it."""
        async with self._db.transaction() as connection:
            order = (await locked_orders.lock_orders(connection, [payment_id])).get(payment_id)
            if order is None:
                raise NoSuchPayment(f"there is no payment {payment_id}")
            payment = order.payments[payment_id]
            if payment.method != "cod" or payment.status not in ("authorised", "captured"):
                raise NotCollectable(
                    f"cannot record cash: this is a payment by {payment.method} that is {payment.status}"
                )
            # A carrier must not collect cash from a customer who has paid already.
            if payment.status == "authorised" and await self._has_cash_shipments(connection, order.order_id):
                raise NotCollectable(
                    "carriers collect the cash: record the outcome of the order's shipments, or cancel these first"
                )
            name = f"cash {payment_id}"
            if payment.uncollected_minor and not await ledger.get_entries(connection, name):
                raise NotCollectable(
                    f"only {payment.captured_minor} of {payment.amount_minor} minor units were collected, and the rest "
                    "is no longer due"
                )
            if payment.status == "captured":
                return
            now = self._now()
            taken_off_minor = await store.get_taken_off_cash(connection, order.order_id)
            due_minor = order_status.list_due_cash(order, taken_off_minor).get(payment_id, 0)
            earlier_minor = (await store.sum_uncaptured_cash(connection, [order.order_id]))[order.order_id]
            captured_minor = min(payment.amount_minor, max(due_minor, earlier_minor))
            if not captured_minor:
                raise NotCollectable("no cash is due any more: refunds have taken it off")
            if (rest_minor := due_minor - earlier_minor) > 0:
                entries = {f"cash:{holder}": rest_minor, order_status.COLLECTED: -rest_minor}
                posting = NewPosting(name, order.order_id, payment.currency, entries, actor)
                await ledger.insert_postings(connection, [posting], now)
            order_status.capture_cash(order, payment, captured_minor, now)
            await jobs.retry(connection, CANCELLATIONS, [order.order_id], now)  # one that waits for this cash
            await locked_orders.update_and_write(connection, self._ids, [order], now)

    async def grant_store_credit(
        self, user_id: str, amount: Money, idempotency_key: str, actor: str | None = None
    ) -> StoreCredit:
        """Grant store credit to a customer, once per key.

        Raises `KeyReused` if the key was used for another grant, and `RightNeeded` if it is above the right of the
        person who requests it."""
        entries = {f"credit:{user_id}": -amount.amount, "shop:credit": amount.amount}
        posting = NewPosting(f"gift {idempotency_key}", None, amount.currency, entries, actor)
        async with self._db.transaction() as connection:
            if decider := find_decider():
                await decider.check_amount(connection, amount.amount, amount.currency)
            if await ledger.insert_postings(connection, [posting], self._now()):
                await store.adjust_store_credit(connection, user_id, amount.currency, amount.amount)
            elif await ledger.get_entries(connection, posting.posting) != {
                (account, units, amount.currency) for account, units in entries.items()
            }:
                raise KeyReused("the key was used for another grant: send a new one")
        return await self.get_store_credit(user_id)

    async def get_store_credit(self, user_id: str) -> StoreCredit:
        async with self._db.connection() as connection:
            return StoreCredit(user_id, await store.list_credit_balances(connection, user_id))

    async def reconcile(
        self,
        method: Method,
        day: date,
        statement: Sequence[StatementLine | str],
        neighbours: Sequence[StatementLine | str] = (),
        report_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> ReconciliationReport:
        """Compare a provider's statement of a day in China with our records of it.

        `neighbours` are the lines of the statements of other days. `report_progress` gets the number of movements
        that are compared and the number of all."""
        start, end = reconciliation.day_bounds(day)
        async with self._db.transaction(isolation="repeatable_read", readonly=True) as connection:

            async def recorded(since: datetime, until: datetime) -> list[store.RecordedMovement]:
                return await store.list_movements(connection, method, since, until)

            records = RecordedDay(
                day=await recorded(start, end),
                around=[*await recorded(start - DAY, start), *await recorded(end, end + DAY)],
                early=await recorded(start, start + NEAR_MIDNIGHT),
                late=await recorded(end - NEAR_MIDNIGHT, end),
            )
            total, done = len(statement) + len(records.day), 0

            def count_movement() -> None:
                nonlocal done
                done += 1
                report_progress(done, total)

            report, unmatched = reconciliation.compare(statement, neighbours, records, day, count_movement)
            for line in unmatched:
                payment = await store.get_payment(connection, line.payment_id)
                refund = await store.get_refund(connection, line.refund_id) if line.refund_id else None
                report.differences.append(reconciliation.explain(line, method, payment, refund))
        return report

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())
