"""`floodgate audit` and `rebuild`."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.table import Table

from commerce.audit.model import SaleAudit, StockRow
from commerce.sales.loading import LoadReport, load_sale
from ops.commands.console import err, out, run
from ops.services import open_cli_services

_COLUMNS = ("initial", "available", "held", "sold", "in_stream", "difference")
_PROMISES = ("P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8")


def audit(
    sale: Annotated[str | None, typer.Argument(help="left out: all sales that were opened")] = None,
    by_sku: Annotated[bool, typer.Option(help="a row for each SKU, not only for those with a difference")] = False,
    json: Annotated[bool, typer.Option(help="JSON instead of a table")] = False,
) -> None:
    """Check the promises P1 to P8 over Redis, the stream, the dead letters and Postgres.

    Works while orders flow. Status 1 if anything is not as promised.
    """

    async def work() -> list[SaleAudit]:
        async with open_cli_services() as shop:
            names = [sale] if sale else [found.sale_id for found in await shop.sales.opened()]
            return [await shop.audit.audit_sale(name) for name in names]

    audits = run(work())
    if json:
        typer.echo(msgspec.json.encode(audits).decode())
    else:
        _print(audits, by_sku)
    if not all(found.clean for found in audits):
        raise typer.Exit(1)


def _print(audits: list[SaleAudit], by_sku: bool) -> None:
    table = Table("sale", "SKU", *(name.replace("_", " ") for name in _COLUMNS))
    for name in table.columns[2:]:
        name.justify = "right"
    for found in audits:
        _row(table, found.sale_id, found.total)
        for row in found.rows:
            if by_sku or row.difference:
                _row(table, "", row)
    out.print(table)
    for found in audits:
        verdict = "as promised" if found.clean else "NOT as promised"
        out.print(f"{found.sale_id}: {found.orders} orders, {', '.join(_PROMISES)} {verdict}", highlight=False)
        for finding in found.findings:
            examples = ", ".join(finding.examples)
            err.print(
                f"  {finding.promise}: {finding.detail}: {finding.count} ({examples})", highlight=False, markup=False
            )
        for note in found.notes:
            out.print(f"  note: {note}", highlight=False)


def _row(table: Table, sale_id: str, row: StockRow) -> None:
    table.add_row(sale_id, row.sku, *(str(getattr(row, name)) for name in _COLUMNS))


def rebuild(sale: Annotated[str, typer.Argument(help="the sale's id")]) -> None:
    """Load a sale's stock, limits and keys into Redis anew, from Postgres and what is still in the stream.

    For a Redis that lost its data. Until it is done, orders get `not_ready`.
    """

    async def work() -> LoadReport:
        async with open_cli_services() as shop:
            return await load_sale(shop.db, shop.redis, shop.clock, sale)

    done = run(work())
    out.print(
        f"{done.sale_id} is loaded (load {done.epoch}): {done.skus} SKUs, {done.units_free} units free, "
        f"{done.waiting_orders} orders still in the stream",
        highlight=False,
    )
    if done.resolved_jobs:
        out.print(f"{done.resolved_jobs} releases and stock changes that were too old for Redis are settled")
