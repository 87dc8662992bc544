"""`floodgate audit` and `floodgate rebuild`: check the promises, and reload a sale that Redis lost."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from commerce.audit.model import PROMISES, SaleAudit, StockRow
from commerce.sales.loading import LoadReport, load_sale
from ops.commands.console import err, out, run
from ops.services import open_cli_services

_COLUMNS = ("initial", "available", "held", "sold", "in_stream", "difference")


def audit(
    sale_id: Annotated[
        str | None, typer.Argument(metavar="SALE", help="the sale's id; left out: all sales that were opened")
    ] = None,
    by_sku: Annotated[bool, typer.Option(help="print a row for every SKU, not only for those that differ")] = False,
    json: Annotated[bool, typer.Option(help="print JSON instead of a table")] = False,
) -> None:
    """Check the promises P1 to P8 in Redis, the stream, the dead letters and Postgres.

    Works while orders flow. Status 1 if a promise is broken.
    """

    async def work() -> list[SaleAudit]:
        async with open_cli_services() as shop:
            sale_ids = [sale_id] if sale_id else [sale.sale_id for sale in await shop.sales.list_opened()]
            return [await shop.audit.audit_sale(id_) for id_ in sale_ids]

    audits = run(work())
    if json:
        typer.echo(msgspec.json.encode(audits).decode())
    else:
        _print(audits, by_sku)
    if not all(sale_audit.clean for sale_audit in audits):
        raise typer.Exit(1)


def _print(audits: list[SaleAudit], by_sku: bool) -> None:
    table = Table("sale", "SKU", *(name.replace("_", " ") for name in _COLUMNS))
    for column in table.columns[2:]:
        column.justify = "right"
    for sale_audit in audits:
        _add_row(table, sale_audit.sale_id, sale_audit.total)
        for row in sale_audit.rows:
            if by_sku or row.difference:
                _add_row(table, "", row)
    out.print(table)
    for sale_audit in audits:
        verdict = "as promised" if sale_audit.clean else "NOT as promised"
        promises = ", ".join(PROMISES)
        out.print(f"{sale_audit.sale_id}: {sale_audit.orders} orders, {promises} {verdict}", highlight=False)
        for finding in sale_audit.findings:
            examples = ", ".join(finding.examples)
            err.print(
                f"  {finding.promise}: {finding.detail}: {finding.count} ({examples})", highlight=False, markup=False
            )
        for note in sale_audit.notes:
            out.print(f"  note: {note}", highlight=False)


def _add_row(table: Table, sale_id: str, row: StockRow) -> None:
    table.add_row(sale_id, row.sku, *(str(getattr(row, name)) for name in _COLUMNS))


def rebuild(sale_id: Annotated[str, typer.Argument(metavar="SALE", help="the sale's id")]) -> None:
    """Load a sale's stock, limits and keys into Redis again, from Postgres and the stream.

    For a Redis that lost its data. Orders are refused with `not_ready` until the command ends.
    """

    async def work() -> LoadReport:
        async with open_cli_services() as shop:
            return await load_sale(shop.db, shop.redis, shop.clock, sale_id)

    report = run(work())
    out.print(
        f"{report.sale_id} is loaded (load {report.epoch}): {report.skus} SKUs, {report.units_free} units free, "
        f"{report.waiting_orders} orders still in the stream",
        highlight=False,
    )
    if report.resolved_jobs:
        out.print(
            f"{report.resolved_jobs} releases and stock changes that were too old for Redis are resolved "
            "(applied or refused)",
            highlight=False,
        )
