"""Commands are loaded when they are called, and are all listed nevertheless."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

from ops.cli import app

CHECK = """
import sys
from typer.testing import CliRunner
from ops.cli import app

assert CliRunner().invoke(app, ["token", "--help"]).exit_code == 0
print(*sys.modules)
"""


def test_command_loads_no_other_command() -> None:
    output = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name for name in output.stdout.split() if name.startswith("ops.commands.")}
    assert "ops.commands.tokens" in loaded
    assert loaded.isdisjoint({"ops.commands.catalog", "ops.commands.audit", "ops.commands.processes"})


def test_help_lists_all_commands_in_their_sequence() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    places = [output.index(f"\n  {name} ") for name in ("up", "audit", "capacity", "catalog", "order", "token")]
    assert places == sorted(places)


def test_mistyped_command_is_refused_with_the_nearest_one() -> None:
    result = CliRunner().invoke(app, ["audti"])
    assert result.exit_code == 2
    assert "Did you mean 'audit'" in result.output


def test_commands_from_several_modules_are_in_one_group() -> None:
    for group, commands in {
        "order": ("find", "show", "cancel"),
        "payment": ("refund", "show"),
        "catalog": ("category", "taxonomy", "import"),
    }.items():
        output = CliRunner().invoke(app, [group, "--help"]).output
        assert all(f"\n  {name} " in output for name in commands), output
