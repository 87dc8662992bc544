"""Moments and days on the command line lie in the years 2000 to 2999."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from ops.cli import app
from ops.commands.moment_arguments import read_day, read_moment

OUT_OF_BOUNDS = ["0001-01-01", "1999-12-31", "3000-01-01", "9999-12-31"]
CREATE = ["sale", "create", "a", "--items", "{file}", "--title", "A sale", "--currency", "CNY"]
COMMANDS = {
    "sale create --opens": [*CREATE, "--opens"],
    "sale create --closes": [*CREATE, "--closes"],
    "room set --join-opens-at": ["room", "set", "a", "--join-opens-at"],
    "room set --list-closes-at": ["room", "set", "a", "--list-closes-at"],
    "draw announce --at": ["draw", "announce", "a", "--at"],
    "screening clear --until": ["screening", "clear", "a", "user", "--reason", "a", "--until"],
    "reconcile --date": ["reconcile", "{file}", "--provider", "alipay", "--date"],
    "route plan --date": ["route", "plan", "--date"],
    "route show --date": ["route", "show", "--date"],
    "route links --date": ["route", "links", "--date"],
    "rates choose --by": ["rates", "choose", "--to", "CN", "--weight", "1kg", "--by"],
    "rates choose --hand-over": ["rates", "choose", "--to", "CN", "--weight", "1kg", "--hand-over"],
}


def _arguments(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and name of each argument of a command and its subcommands, with its declaration."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _arguments(inner, f"{path} {name}".strip())
    for parameter in command.params:
        if (descriptor := getattr(parameter, "type_descriptor", None)) is not None:
            yield f"{path} {parameter.opts[0]}", descriptor


@pytest.mark.parametrize("name", COMMANDS)
def test_argument_out_of_bounds_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("sku,units\n")
    for day in OUT_OF_BOUNDS:
        arguments = [argument.format(file=file) for argument in COMMANDS[name]]
        result = CliRunner().invoke(app, [*arguments, day], env={"COLUMNS": "200"})
        assert result.exit_code == 2, result.output
        assert "in the years 2000 to 2999" in result.output


def test_every_argument_that_is_a_day_or_a_moment_is_in_the_table() -> None:
    bounded = set()
    for name, descriptor in _arguments(typer.main.get_command(app)):
        if {date, datetime} & {descriptor.annotation, *get_args(descriptor.annotation)}:
            if descriptor.parameter_info.parser in (read_day, read_moment):
                bounded.add(name)
            else:
                assert descriptor.parameter_info.formats == ["%H:%M"], name
    assert bounded == COMMANDS.keys()
