"""Moments and days on the command line lie in the years 2000 to 2999."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from ops.cli import app

OUT_OF_BOUNDS = ["0001-01-01", "1999-12-31", "3000-01-01", "9999-12-31"]
CREATE = ["sale", "create", "a", "--items", "{file}", "--title", "A sale", "--currency", "CNY"]
COMMANDS = {
    "sale create --opens": [*CREATE, "--opens"],
    "sale create --closes": [*CREATE, "--closes"],
    "reconcile --date": ["reconcile", "{file}", "--provider", "alipay", "--date"],
    "route plan --date": ["route", "plan", "--date"],
    "route show --date": ["route", "show", "--date"],
    "route link --date": ["route", "link", "--date"],
    "rates choose --by": ["rates", "choose", "--to", "CN", "--weight", "1kg", "--by"],
    "rates choose --hand-over": ["rates", "choose", "--to", "CN", "--weight", "1kg", "--hand-over"],
}


def _leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _leaves(inner, f"{path} {name}".strip())
    else:
        yield path, command


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
    arguments = set()
    for path, command in _leaves(typer.main.get_command(app)):
        for parameter in command.params:
            if getattr(parameter.type, "name", "") in ("read_day", "read_moment"):
                arguments.add(f"{path} {parameter.opts[0]}")
            elif isinstance(parameter.type, click.DateTime):
                assert parameter.type.formats == ["%H:%M"], "only times of day are read without bounds"
    assert arguments == COMMANDS.keys()
