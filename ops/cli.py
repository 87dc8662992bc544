"""The `floodgate` command."""

from __future__ import annotations

from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from ops.commands.console import print_line, run_app
from ops.commands.lazy_group import make_lazy_group
from workers.registry import NAMES

_ENTRY_POINT_GROUP = "floodgate.commands"
"""commands of packages that ops must not import, such as loadtest"""
_COMMANDS = {
    "up": "ops.commands.processes:up",
    "gateway": "ops.commands.processes:gateway",
    "worker": "ops.commands.processes:worker",
    "migrate": "ops.commands.processes:migrate",
    "audit": "ops.commands.audit:audit",
    "rebuild": "ops.commands.audit:rebuild",
    "backup": "ops.commands.backups:backup",
    "restore": "ops.commands.backups:restore",
    "reconcile": "ops.commands.payments:reconcile",
    "settings": "ops.commands.tokens:settings",
}
_GROUPS = {
    "catalog": "ops.commands.catalog:app",
    "sale": "ops.commands.sale:app",
    "promotion": "ops.commands.promotion:app",
    "coupon": "ops.commands.coupon:app",
    "room": "ops.commands.room:app",
    "screening": "ops.commands.screening:app",
    "draw": "ops.commands.draw:app",
    "wait-list": "ops.commands.wait_list:app",
    "order": "ops.commands.order_search:app",
    "payment": "ops.commands.refunds:app",
    "refunds": "ops.commands.stuck_refunds:app",
    "cash": "ops.commands.cash:app",
    "store-credit": "ops.commands.store_credit:app",
    "jobs": "ops.commands.jobs:app",
    "aftersales": "ops.commands.aftersales:app",
    "knowledge": "ops.commands.knowledge:app",
    "conversation": "ops.commands.conversation:app",
    "deadlines": "ops.commands.deadlines:app",
    "report": "ops.commands.reports:app",
    "case-rule": "ops.commands.case_rules:app",
    "training": "ops.commands.training:app",
    "rates": "ops.commands.rates:app",
    "freight": "ops.commands.freight:app",
    "warehouse": "ops.commands.warehouses:app",
    "stock": "ops.commands.stock:app",
    "shipment": "ops.commands.shipments:app",
    "returns": "ops.commands.returns:app",
    "wave": "ops.commands.waves:app",
    "vehicle": "ops.commands.vehicles:app",
    "route": "ops.commands.routes:app",
    "dead-letters": "ops.commands.dead_letters:app",
    "redis-files": "ops.commands.redis_files:app",
    "token": "ops.commands.tokens:app",
}


def _list_places() -> dict[str, str]:
    """Return where each command is defined, in the sequence of the help."""
    others = sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry_point: entry_point.name)
    return _COMMANDS | {entry_point.name: entry_point.value for entry_point in others} | _GROUPS


app = typer.Typer(
    name="floodgate",
    cls=make_lazy_group(_list_places),
    help="An order system for flash sales. Start with `floodgate up`.",
    epilog=f"Workers of `floodgate worker`: {', '.join(NAMES)}.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_line(f"floodgate {version('floodgate')}")
        raise typer.Exit


@app.callback()
def _read_global_options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Read the options that stand before the command."""


def main() -> None:
    """Run the command line; the installed entry point."""
    run_app(app)
