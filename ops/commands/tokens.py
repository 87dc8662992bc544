"""`floodgate token` and `floodgate settings`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import jwt
import orjson
import typer

from commerce.kernel.clock import SystemClock
from config.settings import load, local_file
from gateway.auth import ROLES, sign_token
from ops.commands.console import exit_on_error, fail, print_detail, print_line, print_text

app = typer.Typer(help="Create access tokens with the signing key in the settings.", no_args_is_help=True)
RoleName = StrEnum("RoleName", {name: name for name in ROLES})  # type: ignore[misc]
_DAY_S = 86_400
Days = Annotated[float, typer.Option(min=0.0001, max=366, help="days until the token expires")]


@app.command()
def user(user_id: Annotated[str, typer.Argument(metavar="USER", help="the customer's id")], days: Days = 1) -> None:
    """Print a customer's token."""
    _print(user_id, (), days)


@app.command()
def admin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="recorded as the actor of changes")],
    role: Annotated[
        list[RoleName] | None, typer.Option(help="repeat it for several roles; operator may do everything")
    ] = None,
    days: Days = 1,
) -> None:
    """Print a staff token; without --role it is an operator's."""
    _print(name, tuple(str(role_name) for role_name in role or ()) or ("operator",), days)


def _print(name: str, roles: tuple[str, ...], days: float) -> None:
    with exit_on_error():
        settings = load()
        audience = "floodgate-admin" if roles else "floodgate"
        try:
            token = sign_token(settings.auth, SystemClock(), name, audience, roles, int(days * _DAY_S))  # type: ignore[arg-type]
        except ValueError as error:
            fail(str(error))
    print_line(token)
    kid, file = jwt.get_unverified_header(token)["kid"], local_file(settings.data_dir)
    is_local = file.is_file() and kid in file.read_text(encoding="utf-8")
    print_detail(f"signed with the key {kid} of {file if is_local else 'the environment or FLOODGATE_CONFIG'}")


def settings() -> None:
    """Print the settings in force as JSON; secrets are hidden."""
    with exit_on_error():
        values = load().model_dump(mode="json")
    print_text(orjson.dumps(values, option=orjson.OPT_INDENT_2).decode())
