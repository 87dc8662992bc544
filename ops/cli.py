"""The `floodgate` command."""

from __future__ import annotations

from importlib.metadata import entry_points

import typer

from ops.commands import (
    audit,
    catalog,
    dead_letters,
    orders,
    payments,
    processes,
    rates,
    routes,
    sale,
    shipments,
    tokens,
    warehouses,
    waves,
)

_GROUP = "floodgate.commands"
"""entry points of packages that ops does not import, such as loadtest"""

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
    audit.audit,
    audit.rebuild,
    payments.reconcile,
    tokens.settings,
):
    app.command()(command)
for entry_point in sorted(entry_points(group=_GROUP), key=lambda found: found.name):
    app.command(entry_point.name)(entry_point.load())
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
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(tokens.app, name="token")


def main() -> None:
    """The entry point that is installed."""
    app()
