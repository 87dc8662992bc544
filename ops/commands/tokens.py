"""`floodgate token` and `floodgate settings`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import orjson
import typer

from commerce.kernel.clock import SystemClock
from config.settings import load
from gateway.auth import ROLES, sign_token
from ops.commands.console import exit_on_error, fail

app = typer.Typer(help="Make tokens, where the settings hold a key that can sign.", no_args_is_help=True)
RoleName = StrEnum("RoleName", {name: name for name in ROLES})  # type: ignore[misc]
_DAY_S = 86_400
Days = Annotated[float, typer.Option(min=0.0001, max=366, help="how long it is valid")]


@app.command()
def user(name: Annotated[str, typer.Argument(metavar="USER")], days: Days = 1) -> None:
    """A shopper's token."""
    _print(name, (), days)


@app.command()
def admin(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: Annotated[list[RoleName] | None, typer.Option(help="may be given several times; operator may all")] = None,
    days: Days = 1,
) -> None:
    """A staff token; without --role it is an operator's."""
    _print(name, tuple(str(one) for one in role or ()) or ("operator",), days)


def _print(name: str, roles: tuple[str, ...], days: float) -> None:
    with exit_on_error():
        settings = load()
        audience = "floodgate-admin" if roles else "floodgate"
        try:
            typer.echo(sign_token(settings.auth, SystemClock(), name, audience, roles, int(days * _DAY_S)))  # type: ignore[arg-type]
        except ValueError as error:
            fail(str(error))


def settings() -> None:
    """Print the settings in force as JSON; secrets are hidden."""
    with exit_on_error():
        shown = load().model_dump(mode="json")
    typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
