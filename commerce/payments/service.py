"""What customers, providers and staff ask of payments. Nothing here calls out: what is to be done outside is a row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from asyncpg import UniqueViolationError

from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.failpoints import failpoint
from commerce.kernel.ids import IdGenerator
from commerce.kernel.money import Money
from commerce.kernel.postgres import Connection, Database
from commerce.orders import store as orders
from commerce.orders.errors import NoSuchOrder
from commerce.orders.model import Method, OrderStatus
from commerce.orders.store import OrderHeader
from commerce.payments import order_status, reconciliation, store
from commerce.payments.errors import NoSuchPayment, NotCollectable, NotPayable, RefundExceedsCaptured
from commerce.payments.model import (
    INTERNAL_METHODS,
    OrderPayments,
    ParkedJob,
    Payment,
    PaymentView,
    Refund,
    RefundView,
    StoreCredit,
    TenderInput,
)
from commerce.payments.order_status import ProviderMismatch
from commerce.payments.provider_port import PaymentWebhook, Provider, ProviderPayment, StatementLine
from commerce.payments.reconciliation import DAY, NEAR, ReconciliationReport, RecordedDay

HasCashShipments = Callable[[Connection, UUID], Awaitable[bool]]
"""Whether there are parcels of an order, not at their end yet, that bring its cash."""


class Payments:
    """`providers` are the ones outside by method; a payment must be made `expiry_margin_s` before its order expires, or a
    quarter of the time it has, whichever is less."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: IdGenerator,
        providers: Mapping[str, Provider],
        expiry_margin_s: float,
        couriers_collect: HasCashShipments,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._providers = providers
        self._margin = timedelta(seconds=expiry_margin_s)
        self._couriers_collect = couriers_collect

    async def start(self, order_id: UUID, user_id: str, wanted: Sequence[TenderInput]) -> OrderPayments:
        """Begin to pay, or pay in another way. The same again changes nothing; without parts, as was said in the order.

        Raises `NoSuchOrder`, `NotPayable`, `Invalid`.
        """
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None or order.user_id != user_id:
                raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
            payments = await store.payments_of(connection, order_id)
            last = payments[-1].plan_revision if payments else 0
            current = [one for one in payments if one.plan_revision == last]
            parts = self._parts(order, wanted)
            if current and order.status is not OrderStatus.CANCELLED and _same(current, parts):
                return await self._view(connection, order, payments)
            now = self._now()
            expires_at = order.pay_by - min(self._margin, (order.pay_by - order.accepted_at) / 4)
            if order.status is not OrderStatus.AWAITING_PAYMENT:
                raise NotPayable(f"the order is {order.status}")
            if now >= expires_at:
                raise NotPayable("there is not enough time left to pay; it expires in a moment")
            rows = [(self._ids.new(), part, self._scene(number, part)) for number, part in enumerate(parts)]
            await store.add_payments(connection, order, last + 1, rows, now, expires_at)
            await order_status.update_order_and_payments(connection, self._ids, order, now)
            return await self._view(connection, order, await store.payments_of(connection, order_id))

    def _parts(self, order: OrderHeader, wanted: Sequence[TenderInput]) -> list[TenderInput]:
        parts = list(wanted) or [TenderInput(share.method, share.amount) for share in order.plan]
        if not parts:
            raise Invalid("the order does not say how it is to be paid: send `payments`")
        paid = sum(part.amount for part in parts)
        if paid != order.total.amount:
            detail = (
                f"they add up to {paid} and the total is {order.total.amount} minor units of {order.total.currency}"
            )
            raise Invalid(f"/payments: {detail}", errors=[{"pointer": "/payments", "detail": detail}])
        for number, part in enumerate(parts):
            provider = self._providers.get(part.method)
            if part.method in INTERNAL_METHODS:
                continue
            if provider is None:
                raise _wrong(number, "method", f"{part.method} is not offered here")
            if order.total.currency not in provider.currencies:
                raise _wrong(number, "method", f"{part.method} does not take {order.total.currency}")
            self._scene(number, part)
        return parts

    def _scene(self, number: int, part: TenderInput) -> str:
        if part.method in INTERNAL_METHODS:
            return "none"
        scenes = self._providers[part.method].flows
        scene = part.flow or ("qr" if "qr" in scenes else scenes[0])
        if scene not in scenes:
            raise _wrong(number, "scene", f"{part.method} has {', '.join(scenes)}")
        if scene == "jsapi" and part.payer is None:
            raise _wrong(number, "payer", "the customer's id at the provider is needed for jsapi")
        return scene

    async def get(self, order_id: UUID, user_id: str | None) -> OrderPayments:
        """An order's payments; anybody's for staff (no user)."""
        # Who waits for the driver asks this over and over: no lock, which would be written to the disk each time, and
        # as few statements as give one state. There is no refund where nothing was captured.
        async with self._db.connection() as connection:
            order = await orders.read_order_header(connection, order_id)
            if order is None or user_id not in (None, order.user_id):
                raise NoSuchOrder(f"there is no stored order {order_id}, or it is not yours")
            payments = await store.payments_of(connection, order_id)
            if not any(one.status == "captured" for one in payments):
                return _order_view(order, payments, [])
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await self._view(connection, order, await store.payments_of(connection, order_id))

    async def _view(self, connection: Connection, order: OrderHeader, payments: Sequence[Payment]) -> OrderPayments:
        return _order_view(order, payments, await store.refunds_of(connection, order.order_id))

    # Callbacks.

    async def handle_webhook(self, method: Method, notice: PaymentWebhook, body: bytes) -> str:
        """Store a genuine callback and what it changes, in one transaction; gives a word for what became of it.

        What cannot be true is kept with the reason, changes nothing, and is `refused`.
        """
        now = self._now()
        async with self._db.transaction() as connection:
            if not await store.insert_webhook(connection, method, notice, now, body):
                known = await store.get_webhook_result(connection, method, notice.webhook_id)
                return "refused" if known and known.startswith("refused") else "repeated"
            try:
                async with connection.transaction():
                    result = await self._enter(connection, method, notice, now)
            except ProviderMismatch as error:
                result = f"refused: {error}"
            except UniqueViolationError:
                result = "refused: its transaction belongs to another payment"
            await store.set_webhook_result(connection, method, notice.webhook_id, result[:500])
        failpoint("payment.after_notice")
        return result.partition(":")[0]

    async def _enter(self, connection: Connection, method: Method, notice: PaymentWebhook, now: datetime) -> str:
        seen = notice.subject
        paid = await store.payment(connection, seen.payment_id)
        if paid is None or paid.method != method:
            raise ProviderMismatch(f"there is no payment {seen.payment_id} by {method}")
        if not isinstance(seen, ProviderPayment):
            refund = await store.refund(connection, seen.refund_id)
            if refund is None or refund.payment_id != paid.payment_id:
                raise ProviderMismatch(f"there is no refund {seen.refund_id} of this payment")
            if seen.amount is not None and seen.amount != Money(refund.amount_minor, refund.currency):
                raise ProviderMismatch(f"{seen.amount} went back, it should be {refund.amount_minor} {refund.currency}")
            return (
                await order_status.record_refund_by_id(connection, self._ids, refund.refund_id, now)
                if seen.state == "done"
                else "noted"
            )
        if seen.state != "captured":
            return "noted"  # the driver asks the provider itself
        return await order_status.record_capture_by_id(connection, self._ids, paid.payment_id, seen, now)

    # Staff.

    async def refund(self, order_id: UUID, key: str, amount: int | None, reason: str, actor: str) -> OrderPayments:
        """Give back a part of what was captured, or all that is left: payment by payment, the last part first.

        Raises `NoSuchOrder`, `RefundExceedsCaptured`. The same key again changes nothing.
        """
        async with self._db.transaction() as connection:
            order = await orders.lock_order(connection, order_id)
            if order is None:
                raise NoSuchOrder(f"there is no stored order {order_id}")
            payments = await store.payments_of(connection, order_id)
            refunds = await store.refunds_of(connection, order_id)
            if any(one.task == "recover_order" for one in payments):
                raise RefundExceedsCaptured("it was paid late and the goods are being asked for: try again in a moment")
            if not any(one.refund_key == f"staff {key}" for one in refunds):
                captured = [one for one in reversed(payments) if one.status == "captured"]
                going = sum(one.amount_minor for one in refunds if one.status != "failed")
                left = sum(one.amount_minor for one in captured) - going
                wanted = left if amount is None else amount
                if not 0 < wanted <= left:
                    raise RefundExceedsCaptured(f"{left} minor units are captured and not on their way back")
                for one in captured:
                    wanted -= await order_status.refund_remaining(
                        connection, self._ids, one, f"staff {key}", reason, actor, self._now(), wanted
                    )
            return await self._view(connection, order, await store.payments_of(connection, order_id))

    async def record_cash_collected(self, payment_id: UUID) -> None:
        """Cash on delivery was collected. Raises `NoSuchPayment`, `NotCollectable`; again changes nothing."""
        async with self._db.transaction() as connection:
            found = await store.payment(connection, payment_id)
            order = await orders.lock_order(connection, found.order_id) if found else None
            paid = await store.payment(connection, payment_id)
            if order is None or paid is None:
                raise NoSuchPayment(f"there is no payment {payment_id}")
            if paid.method != "cod" or paid.status not in ("authorised", "captured"):
                raise NotCollectable(f"it is a payment by {paid.method} that is {paid.status}")
            # Who has paid already must not be asked for it at the door.
            if paid.status == "authorised" and await self._couriers_collect(connection, order.order_id):
                raise NotCollectable("couriers collect it: say how their parcels ended, or cancel these first")
            now = self._now()
            seen = ProviderPayment(payment_id, "captured", paid.amount, None, now)
            if await order_status.record_capture(connection, order, paid, seen, now):
                await order_status.update_order_and_payments(connection, self._ids, order, now)

    async def grant_store_credit(self, user_id: str, amount: Money, key: str) -> StoreCredit:
        """Give a user store credit, once for each key. Raises `Invalid` where the key stands for another gift."""
        posting, lines = f"gift {key}", {f"credit:{user_id}": -amount.amount, "shop:credit": amount.amount}
        async with self._db.transaction() as connection:
            try:
                async with connection.transaction():
                    await store.insert_posting(connection, posting, None, amount.currency, self._now(), lines)
            except UniqueViolationError:
                given = {(account, units, amount.currency) for account, units in lines.items()}
                if await store.get_posting(connection, posting) != given:
                    detail = "the key stands for another gift: take a new one"
                    raise Invalid(f"/key: {detail}", errors=[{"pointer": "/key", "detail": detail}]) from None
            else:
                await store.adjust_store_credit(connection, user_id, amount.currency, amount.amount)
        return await self.credit(user_id)

    async def credit(self, user_id: str) -> StoreCredit:
        async with self._db.connection() as connection:
            return StoreCredit(user_id, await store.credit(connection, user_id))

    async def parked(self) -> list[ParkedJob]:
        async with self._db.connection() as connection:
            return await store.parked(connection)

    async def retry(self, id_: UUID) -> None:
        """Take up a parked payment or refund again. Raises `NoSuchPayment`."""
        async with self._db.connection() as connection:
            if not await store.retry(connection, id_, self._now()):
                raise NoSuchPayment(f"nothing with the id {id_} is parked")

    async def reconcile(
        self,
        method: Method,
        day: date,
        statement: Sequence[StatementLine | str],
        neighbours: Sequence[StatementLine | str] = (),
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> ReconciliationReport:
        """Compare a provider's statement of a day in China with what we have of it. `neighbours` are the lines of the
        statements of the days around it, where there are any; `progress` is told how many movements of how many."""
        start, end = reconciliation.bounds(day)
        async with self._db.transaction(isolation="repeatable_read", readonly=True) as connection:

            async def booked(since: datetime, until: datetime) -> list[store.RecordedMovement]:
                return await store.movements_between(connection, method, since, until)

            ours = RecordedDay(
                await booked(start, end),
                [*await booked(start - DAY, start), *await booked(end, end + DAY)],
                await booked(start, start + NEAR),
                await booked(end - NEAR, end),
            )
            of, done = len(statement) + len(ours.day), 0

            def seen() -> None:
                nonlocal done
                done += 1
                progress(done, of)

            found, unknown = reconciliation.compare(statement, neighbours, ours, day, seen)
            for line in unknown:
                paid = await store.payment(connection, line.payment_id)
                refund = await store.refund(connection, line.refund_id) if line.refund_id else None
                found.differences.append(reconciliation.explain(line, method, paid, refund))
        return found

    def _now(self) -> datetime:
        return from_ms(self._clock.now_ms())


def _same(current: Sequence[Payment], parts: Sequence[TenderInput]) -> bool:
    """Whether these parts are what is under way already, or done."""
    if any(one.status in ("failed", "closed") or one.task == "close" for one in current):
        return False
    return [(one.method, one.amount_minor) for one in current] == [
        (part.method, part.amount) for part in parts
    ] and all(part.flow in (None, one.flow) for one, part in zip(current, parts, strict=True))


def _wrong(number: int, field: str, detail: str) -> Invalid:
    at = f"/payments/{number}/{field}"
    return Invalid(f"{at}: {detail}", errors=[{"pointer": at, "detail": detail}])


def _order_view(order: OrderHeader, payments: Sequence[Payment], refunds: Sequence[Refund]) -> OrderPayments:
    last = payments[-1].plan_revision if payments else 0
    captured = sum(one.amount_minor - one.refunded_minor for one in payments if one.status == "captured")
    views = [_view(one, refunds, current=one.plan_revision == last) for one in payments]
    return OrderPayments(order.order_id, order.total, captured, views)


def _view(one: Payment, refunds: Sequence[Refund], *, current: bool) -> PaymentView:
    mine = [
        RefundView(refund.refund_id, refund.amount_minor, refund.status, refund.reason, refund.created_at)
        for refund in refunds
        if refund.payment_id == one.payment_id
    ]
    action = one.action if one.status == "pending" and current else None
    return PaymentView(
        one.payment_id,
        one.method,
        one.amount,
        one.status,
        current,
        one.expires_at,
        action,
        one.reason,
        one.refunded_minor,
        mine,
    )
