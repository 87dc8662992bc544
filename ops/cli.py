"""The `floodgate` command."""

from __future__ import annotations

import typer

from ops.commands import services

app = typer.Typer(
    name="floodgate",
    help="An order system for flash sales. Start with `floodgate up`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (services.up, services.gateway, services.worker, services.migrate):
    app.command()(command)


def main() -> None:
    """The entry point that is installed."""
    app()
