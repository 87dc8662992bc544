"""The `floodgate` command."""

from __future__ import annotations

import typer

from ops.commands import (
    capacity,
    catalog,
    checks,
    orders,
    payments,
    processes,
    rates,
    replay,
    routes,
    sale,
    shipments,
    tokens,
    warehouses,
    waves,
)

app = typer.Typer(
    name="floodgate",
    help="An order system for flash sales. Start with `floodgate up`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    processes.up,
    processes.gateway,
    processes.worker,
    processes.migrate,
    checks.audit,
    checks.rebuild,
    payments.reconcile,
    replay.replay,
    capacity.capacity,
    tokens.settings,
):
    app.command()(command)
app.add_typer(catalog.app, name="catalog")
app.add_typer(sale.app, name="sale")
app.add_typer(orders.app, name="order")
app.add_typer(payments.payment, name="payment")
app.add_typer(payments.credit, name="credit")
app.add_typer(payments.parked, name="parked")
app.add_typer(rates.app, name="rates")
app.add_typer(warehouses.app, name="warehouse")
app.add_typer(shipments.app, name="shipment")
app.add_typer(waves.app, name="wave")
app.add_typer(routes.fleet, name="fleet")
app.add_typer(routes.routes, name="routes")
app.add_typer(checks.letters, name="dead-letters")
app.add_typer(tokens.app, name="token")


def main() -> None:
    """The entry point that is installed."""
    app()
