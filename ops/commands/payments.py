"""`floodgate payment`, `credit`, `parked` and `reconcile`: money, for those who answer for it."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.table import Table

from commerce.kernel.errors import Invalid
from commerce.kernel.money import Money, MoneyError, parse_money
from commerce.kernel.money import format_money as show_money
from commerce.payments.errors import NoSuchPayment
from commerce.payments.model import OrderPayments, ParkedJob, RefundInput, StoreCredit, StoreCreditGrant
from commerce.payments.provider_port import Provider, StatementLine
from commerce.payments.providers import open_providers
from commerce.payments.reconciliation import ReconciliationReport, check_readable, decode
from ops.commands.catalog import progress_bar
from ops.commands.console import actor, err, out, parse_argument, run
from ops.services import open_cli_services

payment = typer.Typer(help="One order's payments: look at them, give money back.", no_args_is_help=True)
credit = typer.Typer(help="Store credit.", no_args_is_help=True)
parked = typer.Typer(
    help="Payments and refunds that were given up. Parcels: `floodgate shipment list --list parked`.",
    no_args_is_help=True,
)
ProviderName = StrEnum("ProviderName", {name: name for name in ("alipay", "wechatpay")})  # type: ignore[misc]
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER")]
JobId = Annotated[UUID, typer.Argument(metavar="ID", help="of a payment or a refund")]
UserName = Annotated[str, typer.Argument(metavar="USER")]
StatementFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")]
_User = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]*\Z")]


# One order.


@payment.command("show")
def show_payments(order_id: OrderId) -> None:
    """Show an order's payments, those that were replaced too, and what went back of each."""

    async def work() -> OrderPayments:
        async with open_cli_services() as shop:
            return await shop.payments.get(order_id, None)

    _print_payments(run(work()))


@payment.command("refund")
def refund_order(
    order_id: OrderId,
    key: Annotated[str, typer.Option(help="names this refund: a repeat under it gives nothing more")],
    reason: Annotated[str, typer.Option(help="why; it is recorded, and the customer sees it")],
    amount: Annotated[str | None, typer.Option(help="as in 2.55; left out: all that is left")] = None,
) -> None:
    """Give back a part of what was captured, or all that is left: the last part of the order first.

    What was paid by store credit or in cash goes back at once, as store credit; a payment driver does the rest.
    """

    async def work() -> OrderPayments:
        async with open_cli_services() as shop:
            minor = None
            if amount is not None:
                minor = _minor(amount, (await shop.payments.get(order_id, None)).total.currency)
            given = {"key": key, "reason": reason} | ({} if minor is None else {"amount": minor})
            ask = parse_argument(given, RefundInput)
            return await shop.payments.refund(order_id, ask.idempotency_key, ask.amount, ask.reason, actor())

    _print_payments(run(work()))


@payment.command("collected")
def collect_cash(payment_id: Annotated[UUID, typer.Argument(metavar="PAYMENT")]) -> None:
    """Say that the cash of a payment on delivery was collected."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.payments.record_cash_collected(payment_id)

    run(work())
    out.print(f"{payment_id} is collected", highlight=False)


def _print_payments(found: OrderPayments) -> None:
    currency = found.total.currency
    total, captured = show_money(found.total.amount, currency), show_money(found.net_captured, currency)
    out.print(f"order {found.order_id}: total {total}, captured and not given back {captured}", highlight=False)
    table = Table("payment", "by", "amount", "status", "went back", "why")
    table.columns[0].no_wrap = True
    for one in found.payments:
        status = one.status if one.current else f"{one.status}, replaced"
        back = show_money(one.refunded, currency) if one.refunded else ""
        table.add_row(
            str(one.payment_id), one.method, show_money(one.amount.amount, currency), status, back, one.reason or ""
        )
    out.print(table if found.payments else "no payment was begun")
    refunds = Table("refund", "of", "amount", "status", "asked for (UTC)", "why")
    for one in found.payments:
        for back_ in one.refunds:
            amount, at = show_money(back_.amount, currency), f"{back_.created_at:%Y-%m-%d %H:%M:%S}"
            refunds.add_row(str(back_.refund_id), one.method, amount, back_.status, at, back_.reason)
    if refunds.row_count:
        out.print(refunds)


# Store credit.


@credit.command("give")
def give_credit(
    user: UserName,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="as in 2.55")],
    currency: Annotated[str, typer.Argument(metavar="CURRENCY", help="ISO 4217, such as CNY")],
    key: Annotated[str, typer.Option(help="names this gift: a repeat under it gives nothing more")],
) -> None:
    """Give a user store credit, once for each key."""

    async def work() -> StoreCredit:
        name = parse_argument(user, _User)
        gift = parse_argument({"key": key, "amount": _minor(amount, currency), "currency": currency}, StoreCreditGrant)
        async with open_cli_services() as shop:
            return await shop.payments.grant_store_credit(name, Money(gift.amount, gift.currency), gift.idempotency_key)

    _print_credit(run(work()))


@credit.command("show")
def show_credit(user: UserName) -> None:
    """Show a user's store credit."""

    async def work() -> StoreCredit:
        async with open_cli_services() as shop:
            return await shop.payments.credit(user)

    _print_credit(run(work()))


def _print_credit(found: StoreCredit) -> None:
    balances = ", ".join(show_money(one.amount, one.currency) for one in found.balances)
    out.print(f"{found.user_id}: {balances or 'no store credit'}", highlight=False)


# What was given up.


@parked.command("list")
def list_parked() -> None:
    """List the payments and refunds that were given up, by order. Releases and stock changes are not among them.

    Parcels that were given up: `floodgate shipment list --list parked`.
    """
    found = run(_parked())
    table = Table("kind", "id", "by", "amount", "why")
    table.columns[1].no_wrap = True  # to be copied whole
    for job in found:
        amount = show_money(job.amount.amount, job.amount.currency)
        table.add_row(job.kind, str(job.id), job.method, amount, job.reason)
    out.print(table if found else "nothing is parked")


@parked.command("show")
def show_parked(id_: JobId) -> None:
    """Show one, with the whole reason and its order's payments."""

    async def work() -> tuple[ParkedJob, OrderPayments]:
        async with open_cli_services() as shop:
            for job in await shop.payments.parked():
                if job.id == id_:
                    return job, await shop.payments.get(job.order_id, None)
        raise NoSuchPayment(f"nothing with the id {id_} is parked")

    job, payments = run(work())
    table = Table(show_header=False)
    for name, value in (
        (job.kind, job.id),
        ("order", job.order_id),
        ("by", job.method),
        ("amount", show_money(job.amount.amount, job.amount.currency)),
        ("task", job.task),
        ("attempts", job.attempts),
        ("why", job.reason),
    ):
        table.add_row(name, str(value))
    out.print(table)
    _print_payments(payments)


@parked.command("retry")
def retry_parked(id_: JobId) -> None:
    """Take one up again, after what stood in its way was mended. A payment driver does the rest."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.payments.retry(id_)

    run(work())
    out.print(f"{id_} is due again", highlight=False)


async def _parked() -> list[ParkedJob]:
    async with open_cli_services() as shop:
        return await shop.payments.parked()


# Statements.


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day like 2026-11-11") from None


def reconcile(
    file: StatementFile,
    provider: Annotated[ProviderName, typer.Option(help="whose statement it is")],
    day: Annotated[date, typer.Option("--date", parser=_day, metavar="YYYY-MM-DD", help="the day, in China")],
    neighbour: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="the statement of the day before or after; for midnight"),
    ] = None,
) -> None:
    """Compare a provider's daily statement with our books, and list every difference. Changes nothing.

    FILE is the statement as the provider gives it, unpacked (Alipay: 业务明细, in GB18030 or UTF-8). Status 1 if
    anything differs.
    """

    async def work() -> ReconciliationReport:
        with progress_bar() as bar:
            task = bar.add_task("comparing", total=None)
            async with (
                open_cli_services() as shop,
                open_providers(
                    shop.settings.payments,
                    shop.clock,
                    timeout_s=shop.settings.jobs.call_timeout_s,
                    connections=1,
                ) as providers,
            ):
                adapter = providers.get(provider)
                if adapter is None:
                    raise Invalid(f"the settings name no account at {provider}, so its statements cannot be read")
                lines = _read(adapter, file)
                others = [line for path in neighbour or () for line in _read(adapter, path)]

                def progress(done: int, of: int) -> None:
                    if done % 100 == 0 or done == of:
                        bar.update(task, completed=done, total=of)

                return await shop.payments.reconcile(adapter.name, day, lines, others, progress)  # type: ignore[arg-type]

    found = run(work())
    for difference in found.differences:
        about = ""
        if difference.key is not None:
            paid, back = difference.key
            about = f" payment {paid}" if back is None else f" refund {back} of payment {paid}"
        kind = difference.kind.replace("_", " ")
        err.print(f"  {kind}:{about} {difference.reason}", highlight=False, markup=False, soft_wrap=True)
    out.print(
        f"{provider} on {day}: {found.movements} movements in the statement, {found.matching} agree, "
        f"{len(found.differences)} differences",
        highlight=False,
    )
    if found.differences:
        raise typer.Exit(1)


def _read(adapter: Provider, file: Path) -> list[StatementLine | str]:
    """Raises `Invalid` with the name of a file that is no statement of this provider."""
    try:
        lines = adapter.read_statement(decode(file.read_bytes()))
        check_readable(adapter.name, lines)
    except (Invalid, OSError) as error:
        raise Invalid(f"{file}: {error}") from None
    return lines


# Words from the command line.


def _minor(amount: str, currency: str) -> int:
    try:
        return parse_money(amount, currency)
    except MoneyError as error:
        raise Invalid(f"AMOUNT: {error}") from None
