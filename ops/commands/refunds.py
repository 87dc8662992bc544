"""`floodgate payment refund`: refunds by unit and by amount."""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from typing import Annotated, get_args

import msgspec
import typer

from commerce.kernel.csv_rows import read_lines
from commerce.kernel.errors import Invalid
from commerce.kernel.money import format_money
from commerce.kernel.types import Reason
from commerce.payments.model import OrderPayments
from commerce.refunds.list_csv import read_refund_list, write_report
from commerce.refunds.model import (
    FreightRule,
    ListName,
    RefundInput,
    RefundListReport,
    RefundPreview,
    RefundRowResult,
    RefundTerms,
    Strategy,
)
from commerce.refunds.refund_lists import MAX_ROWS, RefundLists
from commerce.refunds.staff_refunds import StaffRefunds
from ops.commands.console import (
    CsvFile,
    ReportFile,
    get_actor,
    parse_argument,
    print_detail,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.payments import OrderId, app, parse_amount, print_payments
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import open_cli_services

StrategyName = StrEnum("StrategyName", {name: name for name in get_args(Strategy)})  # type: ignore[misc]
DEFAULT_STRATEGY = StrategyName("ratio")
_LINE = re.compile(r"([0-9]{1,5})(?::([0-9]{1,4}))?=([0-9]{1,7})")
_OUTCOMES = ("refunded", "unchanged", "refused", "not_done")
_MAX_FILE_BYTES = 10_000_000
_MAX_PRINTED_ROWS = 20
_DESTINATIONS = {
    "provider": "back through the provider",
    "store_credit": "store credit",
    "not_collected": "need not be paid on delivery",
}


@app.command()
def refund(
    order_id: OrderId,
    reason: Annotated[str, typer.Option(help="recorded, and shown to the customer")],
    key: Annotated[
        str | None, typer.Option(help="idempotency key of this refund: a repeat refunds nothing more")
    ] = None,
    amount: Annotated[str | None, typer.Option(help="such as 2.55; left out: everything that is left")] = None,
    line: Annotated[
        list[str] | None, typer.Option(metavar="NO[:ADDRESS]=QTY", help="units of an order line; may be repeated")
    ] = None,
    freight: Annotated[
        str, typer.Option(help="none, rest, unshipped (rest, if nothing was shipped and no unit is left), or an amount")
    ] = "none",
    fee: Annotated[str, typer.Option(help="withheld, such as 1.50")] = "0",
    strategy: Annotated[StrategyName, typer.Option(help="how payments share it")] = DEFAULT_STRATEGY,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be refunded")] = False,
) -> None:
    """Refund units, an amount, or all that is left.

    Units are refunded once, at what was paid for them; an amount without --line refunds no units. Store credit and
    cash are refunded at once, as store credit. A payment worker does the rest.
    """

    message = "--reason: give 1 to 200 characters, on one line, with a letter or digit"

    async def work() -> OrderPayments | RefundPreview:
        checked_reason = parse_argument(reason, Reason, message)
        async with open_cli_services() as shop:
            currency = (await shop.payments.get(order_id, None)).total.currency
            terms: dict[str, object] = {
                "lines": [parse_refund_line(text) for text in line or []],
                "freight": freight if freight in get_args(FreightRule) else parse_amount(freight, currency),
                "fee": parse_amount(fee, currency),
                "strategy": strategy.value,
            }
            if amount is not None:
                terms["amount"] = parse_amount(amount, currency)
            refunds = StaffRefunds(shop.db, shop.clock, shop.ids)
            if dry_run:
                return await refunds.preview(order_id, parse_argument(terms, RefundTerms))
            if key is None:
                raise Invalid("cannot refund without a key: send --key, which makes a repeat refund nothing more")
            wanted = parse_argument(terms | {"idempotency_key": key, "reason": checked_reason}, RefundInput)
            return await refunds.refund(order_id, wanted, get_actor())

    result = run(work()) if dry_run else run_change(work())
    if isinstance(result, RefundPreview):
        print_refund_preview(result)
    else:
        print_payments(result)


def parse_refund_line(text: str) -> dict[str, int]:
    """Convert units of a line such as `0=2`, or `0:1=2` for address 1. Raises `Invalid`."""
    match = _LINE.fullmatch(text)
    if match is None:
        raise Invalid(f"--line {text}: write NO=QTY, or NO:ADDRESS=QTY for units to one of several addresses")
    return {"line_no": int(match[1]), "ship_to": int(match[2] or 0), "quantity": int(match[3])}


def print_refund_preview(preview: RefundPreview) -> None:
    """Print what a refund comes to, by line and unit and by payment."""
    currency = preview.currency
    lines = Table("line", "address", "units", "amount", "each")
    for line in preview.lines:
        each = ", ".join(f"{item.units} x {format_money(item.amount, currency)}" for item in line.unit_amounts)
        lines.add_row(
            str(line.line_no), str(line.ship_to), str(line.quantity), format_money(line.amount, currency), each
        )
    print_table(lines, "no units are refunded")
    payments = Table("payment", "method", "amount", "goes")
    for part in preview.allocations:
        destination = _DESTINATIONS[part.goes_to]
        payments.add_row(str(part.payment_id), part.method, format_money(part.amount, currency), destination)
    print_table(payments, "no money moves")
    print_line(
        f"refund {format_money(preview.amount, currency)}: freight {format_money(preview.freight, currency)}, "
        f"withheld {format_money(preview.fee, currency)}, shared by {preview.strategy}; nothing is stored"
    )


@app.command()
def refund_list(
    file: CsvFile,
    name: Annotated[
        str | None, typer.Option(help="name of the list, the file's by default: a repeat refunds nothing more")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="of rows without one; shown to the customers")] = None,
    report: ReportFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be refunded")] = False,
) -> None:
    """Refund many orders from a CSV file.

    Columns: row (a key within the list), order_id, then line (NO, or NO:ADDRESS) and quantity, or amount (2.55), and
    reason. Each row stands alone and is refunded once. Payment workers call the providers at the pace of all refunds.
    Status 2 if any row was not refunded.
    """

    async def work() -> RefundListReport:
        if file.stat().st_size > _MAX_FILE_BYTES:
            raise Invalid(f"cannot read {file}: it is larger than {_MAX_FILE_BYTES} bytes; split it")
        list_name = parse_argument(
            name or file.stem, ListName, "--name: use letters, digits, dots and hyphens, at most 40"
        )
        rows, errors = read_refund_list(read_lines(file), reason, MAX_ROWS)
        async with open_cli_services() as shop:
            lists = RefundLists(shop.db, shop.clock, shop.ids)
            resolved, refused = await lists.resolve(rows)
            with create_progress_bar() as bar:
                task = bar.add_task("refunding", total=len(resolved))
                result = await lists.refund(
                    list_name,
                    resolved,
                    get_actor(),
                    dry_run=dry_run,
                    report_progress=lambda count: bar.advance(task, count),
                )
        refused += [
            RefundRowResult(f"line {error.line}", None, "refused", code="invalid", reason=error.reason)
            for error in errors
        ]
        return msgspec.structs.replace(result, rows=[*result.rows, *refused])

    result = run(work()) if dry_run else run_change(work())
    if report is not None:
        report.write_text(write_report(result), encoding="utf-8")
    _print_list_report(result)


def _print_list_report(report: RefundListReport) -> None:
    totals = Table("method", "goes", "refunds", "amount")
    for total in report.totals:
        amount = format_money(total.amount, total.currency)
        totals.add_row(total.method, _DESTINATIONS[total.goes_to], str(total.refunds), amount)
    print_table(totals, "no money moves")
    counts = Counter[str](row.outcome for row in report.rows)
    summary = ", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in _OUTCOMES)
    print_line(f"{report.name}: {len(report.rows)} rows: {summary}" + ("; nothing is stored" if report.dry_run else ""))
    failures = [row for row in report.rows if row.outcome in ("refused", "not_done")]
    for row in failures[:_MAX_PRINTED_ROWS]:
        print_detail(f"  {row.row}: {row.reason}")
    if len(failures) > _MAX_PRINTED_ROWS:
        print_detail(f"  and {len(failures) - _MAX_PRINTED_ROWS} more; --report FILE lists all rows")
    if failures:
        raise typer.Exit(2)
