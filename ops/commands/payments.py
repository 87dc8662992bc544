"""`floodgate payment` and `floodgate reconcile`: an order's payments, and providers' statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError, format_money, parse_money
from commerce.kernel.text_files import read_file
from commerce.ledger.model import CashHolder, TrialBalance
from commerce.payments.model import CashWaiverInput, OrderPayments
from commerce.payments.provider_port import Provider, StatementLine
from commerce.payments.providers import PROVIDER_NAMES, open_providers
from commerce.payments.reconciliation import ReconciliationReport, check_readable, decode_statement
from commerce.payments.statement_postings import PostedStatement, StatementPostings
from commerce.refunds.hand_refunds import HandRefunds
from commerce.shipping.cash_waivers import CashWaivers
from ops.commands.console import (
    JsonOption,
    format_time,
    get_actor,
    parse_argument,
    print_detail,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.moment_arguments import read_day
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import CliServices, open_cli_services

app = typer.Typer(help="Show and refund an order's payments.", no_args_is_help=True)
ProviderName = StrEnum("ProviderName", {name: name for name in PROVIDER_NAMES})  # type: ignore[misc]
OrderId = Annotated[UUID, typer.Argument(metavar="ORDER", help="the order's id")]
PaymentId = Annotated[UUID, typer.Argument(metavar="PAYMENT", help="the payment's id")]
StatementFile = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")]
_PROGRESS_STEP = 100


# One order.


@app.command()
def show(order_id: OrderId, json: JsonOption = False) -> None:
    """Show an order's payments, those of replaced plans too, and their refunds."""

    async def work() -> OrderPayments:
        async with open_cli_services() as shop:
            return await shop.payments.get(order_id, None)

    order_payments = run(work())
    if json:
        print_json(order_payments)
    else:
        print_payments(order_payments)


@app.command("record-cash")
def record_cash(
    payment_id: PaymentId,
    holder: Annotated[str, typer.Option(help="who has it: shop, carrier:NAME or driver:VEHICLE")] = "shop",
) -> None:
    """Record that the cash of a payment on delivery was collected."""

    async def work() -> None:
        async with open_cli_services() as shop:
            await shop.payments.record_cash_collected(payment_id, parse_argument(holder, CashHolder), get_actor())

    run_change(work())
    print_line(f"the cash of {payment_id} is collected")


@app.command("waive-cash")
def waive_cash(
    payment_id: PaymentId, reason: Annotated[str, typer.Option(help="for the customer and the ledger")]
) -> None:
    """Waive cash that is missing though all of an order is delivered."""
    waiver = parse_argument({"reason": reason}, CashWaiverInput)

    async def work() -> None:
        async with open_cli_services() as shop:
            await CashWaivers(shop.db, shop.clock, shop.ids).waive(payment_id, waiver.reason, get_actor())

    run_change(work())
    print_line(f"the missing cash of {payment_id} is waived")


@app.command()
def balances(
    last_day: Annotated[
        date | None,
        typer.Option("--until", parser=read_day, metavar="YYYY-MM-DD", help="to the end of this day in China"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show the balances of all accounts. Reads the whole ledger. Status 1 if they do not add up to 0."""

    async def work() -> TrialBalance:
        async with open_cli_services() as shop:
            return await shop.ledger.read_trial_balance(last_day)

    trial = run(work())
    if json:
        print_json(trial)
    else:
        table = Table("account", "kind", "balance")
        for item in trial.items:
            table.add_row(item.account, item.kind, format_signed(item.balance, item.currency))
        print_table(table, "nothing is posted")
    if any(trial.difference.values()):
        raise typer.Exit(1)


def print_payments(order_payments: OrderPayments) -> None:
    """Print an order's sums, its payments and its refunds."""
    currency = order_payments.total.currency
    total = format_money(order_payments.total.amount, currency)
    captured = format_money(order_payments.net_captured, currency)
    print_line(f"order {order_payments.order_id}: total {total}, captured and not refunded {captured}")
    table = Table("payment", "method", "amount", "status", "refunded", "reason")
    table.columns[0].no_wrap = True
    for payment in order_payments.payments:
        table.add_row(
            str(payment.payment_id),
            payment.method,
            format_money(payment.amount.amount, currency),
            payment.status if payment.current else f"{payment.status}, replaced",
            format_money(payment.refunded, currency) if payment.refunded else "",
            payment.reason or "",
        )
    print_table(table, "no payment was started")
    refunds = Table("refund", "method", "amount", "status", "created (UTC)", "reason")
    for payment in order_payments.payments:
        for payment_refund in payment.refunds:
            refunds.add_row(
                str(payment_refund.refund_id),
                payment.method,
                format_money(payment_refund.amount, currency),
                payment_refund.status,
                format_time(payment_refund.created_at),
                payment_refund.reason,
            )
    if refunds.row_count:
        print_table(refunds)


def format_signed(amount_minor: int, currency: str) -> str:
    """Format an amount that may be less than 0."""
    return f"{'-' * (amount_minor < 0)}{format_money(abs(amount_minor), currency)}"


def parse_amount(amount: str, currency: str) -> int:
    """Convert an amount such as 2.55 to minor units. Raises `Invalid`."""
    try:
        return parse_money(amount, currency)
    except MoneyError as error:
        raise Invalid(f"AMOUNT: {error}") from None


# Statements.


def reconcile(
    file: StatementFile,
    provider: Annotated[ProviderName, typer.Option(help="the provider of the statement")],
    day: Annotated[
        date, typer.Option("--date", parser=read_day, metavar="YYYY-MM-DD", help="the statement's day, in China")
    ],
    neighbour: Annotated[
        list[Path] | None,
        typer.Option(exists=True, dir_okay=False, help="statement of the day before or after, for midnight"),
    ] = None,
    post: Annotated[
        bool, typer.Option("--post", help="post the fees on lines that agree, and list refunds that were made by hand")
    ] = False,
) -> None:
    """Compare a provider's daily statement with our records and list every difference.

    FILE is the provider's file, unpacked (Alipay: 业务明细, in GB18030 or UTF-8). Without --post nothing is changed.
    Status 1 if anything differs, or a fee was not posted.
    """

    async def work() -> tuple[ReconciliationReport, PostedStatement | None, int]:
        async with open_cli_services() as shop:
            lines, report = await _reconcile(shop, provider, day, file, neighbour or [])
            if not post:
                return report, None, 0
            by_hand = HandRefunds(shop.db, shop.clock, shop.ids)
            by_hand_count = await by_hand.find(provider, day, lines, report, get_actor())
            postings = StatementPostings(shop.db, shop.clock)
            return report, await postings.post_fees(provider, day, lines, report, get_actor()), by_hand_count

    report, posted, by_hand_count = (run_change if post else run)(work())
    for difference in report.differences:
        subject = ""
        if difference.key is not None:
            payment_id, refund_id = difference.key
            payment = f"payment {payment_id}"
            subject = f" {payment}" if refund_id is None else f" refund {refund_id} of {payment}"
        kind = difference.kind.replace("_", " ")
        print_detail(f"  {kind}:{subject} {difference.reason}")
    print_line(
        f"{provider} on {day}: {report.movements} movements in the statement, {report.matching} agree, "
        f"{len(report.differences)} differences"
    )
    problems = bool(report.differences)
    if posted is not None:
        problems |= _print_posted(posted, "fees")
        if by_hand_count:
            print_line(f"{by_hand_count} refunds were made by hand: floodgate refunds list-by-hand")
    if problems:
        raise typer.Exit(1)


@app.command("post-payouts")
def post_payouts(
    file: StatementFile,
    provider: Annotated[ProviderName, typer.Option(help="the provider of the statement")],
) -> None:
    """Post the payouts to the bank in a provider's statement of funds, each once.

    FILE is Alipay's 账务明细 or WeChat Pay's 资金账单, unpacked. Status 1 if a line cannot be read.
    """

    async def work() -> PostedStatement:
        async with open_cli_services() as shop, _open_adapter(shop, provider) as adapter:
            payouts = adapter.read_payouts(decode_statement(read_file(file)))
            return await StatementPostings(shop.db, shop.clock).post_payouts(provider, payouts, get_actor())

    if _print_posted(run_change(work()), "payouts"):
        raise typer.Exit(1)


def _print_posted(posted: PostedStatement, subjects: str) -> bool:
    """Print what was posted. Returns whether something could not be."""
    for problem in posted.problems:
        print_detail(f"  not posted: {problem}")
    sums = ", ".join(format_signed(amount, currency) for currency, amount in posted.sums.items()) or "nothing"
    print_line(f"{posted.new} {subjects} posted ({sums}), {posted.earlier} were posted before")
    return bool(posted.problems)


@asynccontextmanager
async def _open_adapter(shop: CliServices, provider: ProviderName) -> AsyncIterator[Provider]:
    """Open a provider's adapter. Raises `Invalid` if the settings name no account there."""
    settings = shop.settings
    async with open_providers(
        settings.payments, shop.clock, timeout_s=settings.jobs.call_timeout_s, connections=1
    ) as providers:
        adapter = providers.get(provider)
        if adapter is None:
            raise Invalid(
                f"cannot read the statement: the settings name no account at {provider}; configure payments.{provider}"
            )
        yield adapter


async def _reconcile(
    shop: CliServices, provider: ProviderName, day: date, file: Path, neighbours: list[Path]
) -> tuple[list[StatementLine | str], ReconciliationReport]:
    """Read the statements with the provider's adapter and compare them with our records.

    Raises `Invalid` if the settings name no account at the provider, or a file is no statement.
    """
    with create_progress_bar() as bar:
        task = bar.add_task("comparing", total=None)

        def report_progress(done: int, total: int) -> None:
            if done % _PROGRESS_STEP == 0 or done == total:
                bar.update(task, completed=done, total=total)

        async with _open_adapter(shop, provider) as adapter:
            lines = _read_statement(adapter, file)
            others = [line for path in neighbours for line in _read_statement(adapter, path)]
            report = await shop.payments.reconcile(adapter.name, day, lines, others, report_progress)  # type: ignore[arg-type]
            return lines, report


def _read_statement(adapter: Provider, file: Path) -> list[StatementLine | str]:
    """Read a statement. Raises `Invalid` with the file's name if it is no statement of this provider."""
    content = read_file(file)
    try:
        lines = adapter.read_statement(decode_statement(content))
        check_readable(adapter.name, lines)
    except Invalid as error:
        raise Invalid(f"{file}: {error}") from None
    return lines
