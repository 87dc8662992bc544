"""`floodgate audit` and `floodgate rebuild`: check the promises, and reload a sale that Redis lost."""

from __future__ import annotations

from typing import Annotated

import typer

from commerce.audit.model import PROMISES, SaleAudit, StockRow
from commerce.kernel.failures import Failures
from commerce.sales.loading import LoadReport, load_sale
from ops.commands.console import (
    JsonOption,
    exit_on_error,
    print_detail,
    print_json,
    print_line,
    print_table,
    run,
    run_change,
)
from ops.commands.safe_console import Table, create_progress_bar
from ops.services import CliServices, open_cli_services

_COLUMNS = ("initial", "available", "held", "sold", "written_off", "in_stream", "difference")


def audit(
    sale_id: Annotated[
        str | None, typer.Argument(metavar="SALE", help="the sale's id; left out: all sales that were opened")
    ] = None,
    by_sku: Annotated[bool, typer.Option(help="print a row for every SKU, not only for those that differ")] = False,
    json: JsonOption = False,
) -> None:
    """Check the promises P1 to P8 in Redis, the stream, the dead letters and Postgres, over all history.

    Works while orders flow, and shows its progress on a terminal. Status 1 if a promise is broken, or a sale cannot be
    audited.
    """

    async def work() -> list[SaleAudit]:
        async with open_cli_services() as shop:
            if sale_id:
                return [await _audit(shop, sale_id)]
            audits = []
            for sale in await shop.sales.list_opened():
                with failures.catch(sale_id=sale.sale_id):
                    audits.append(await _audit(shop, sale.sale_id))
            return audits

    failures = Failures("audit")
    audits = run(work())
    if json:
        print_json(audits)
    else:
        _print(audits, by_sku)
    with exit_on_error():
        failures.raise_any()
    if not all(sale_audit.clean for sale_audit in audits):
        raise typer.Exit(1)


async def _audit(shop: CliServices, sale_id: str) -> SaleAudit:
    with create_progress_bar() as bar:
        task = bar.add_task(f"orders of {sale_id}", total=None)

        def show(checked: int, orders: int) -> None:
            bar.update(task, completed=checked, total=orders)

        return await shop.audit.audit_sale(sale_id, show)


def _print(audits: list[SaleAudit], by_sku: bool) -> None:
    table = Table("sale", "SKU", *(name.replace("_", " ") for name in _COLUMNS))
    for column in table.columns[2:]:
        column.justify = "right"
    for sale_audit in audits:
        _add_row(table, sale_audit.sale_id, sale_audit.total)
        for row in sale_audit.rows:
            if by_sku or row.difference:
                _add_row(table, "", row)
    print_table(table)
    for sale_audit in audits:
        verdict = "as promised" if sale_audit.clean else "NOT as promised"
        promises = ", ".join(PROMISES)
        print_line(f"{sale_audit.sale_id}: {sale_audit.orders} orders, {promises} {verdict}")
        for finding in sale_audit.findings:
            examples = ", ".join(finding.examples)
            print_detail(f"  {finding.promise}: {finding.detail}: {finding.count} ({examples})")
        for note in sale_audit.notes:
            print_line(f"  note: {note}")


def _add_row(table: Table, sale_id: str, row: StockRow) -> None:
    table.add_row(sale_id, row.sku, *(str(getattr(row, name)) for name in _COLUMNS))


def rebuild(sale_id: Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]) -> None:
    """Load a sale's stock, limits and keys into Redis again, from Postgres and the stream.

    For a Redis that lost its data. Orders are refused with `not_ready` until the command ends.
    """

    async def work() -> LoadReport:
        async with open_cli_services() as shop:
            return await load_sale(shop.db, shop.redis, shop.clock, sale_id)

    report = run_change(work())
    print_line(
        f"{report.sale_id} is loaded (load {report.epoch}): {report.skus} SKUs, {report.units_free} units free, "
        f"{report.waiting_orders} orders still in the stream"
    )
    if report.resolved_jobs:
        print_line(
            f"{report.resolved_jobs} releases and stock changes that were too old for Redis are resolved "
            "(applied or refused)"
        )
