"""Moments and days on the command line: their years, their zone, and both clocks that show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import pytest
import typer
from typer.testing import CliRunner

from commerce.kernel.moments import parse_local_moment
from ops.cli import app
from ops.commands.moment_arguments import read_day, read_moment

OUT_OF_BOUNDS = ["0001-01-01", "1999-12-31", "3000-01-01", "9999-12-31"]
CREATE = ["sale", "create", "a", "--items", "{file}", "--title", "A sale", "--currency", "CNY"]
COMMANDS = {
    "sale create --opens": [*CREATE, "--opens"],
    "sale create --closes": [*CREATE, "--closes"],
    "promotion try --at": ["promotion", "try", "a", "{file}", "--at"],
    "sale change --opens": ["sale", "change", "a", "--opens"],
    "sale change --closes": ["sale", "change", "a", "--closes"],
    "room set --join-opens-at": ["room", "set", "a", "--join-opens-at"],
    "room set --list-closes-at": ["room", "set", "a", "--list-closes-at"],
    "draw announce --at": ["draw", "announce", "a", "--at"],
    "screening clear --until": ["screening", "clear", "a", "user", "--reason", "a", "--until"],
    "reconcile --date": ["reconcile", "{file}", "--provider", "alipay", "--date"],
    "payment balances --until": ["payment", "balances", "--until"],
    "cash deposit --date": [
        "cash",
        "deposit",
        "carrier:sf_express",
        "1",
        "CNY",
        "--key",
        "k",
        "--to",
        "bank",
        "--date",
    ],
    "route plan --date": ["route", "plan", "--date"],
    "route show --date": ["route", "show", "--date"],
    "route links --date": ["route", "links", "--date"],
    "order find --day": ["order", "find", "--day"],
    "order find --last-day": ["order", "find", "--day", "2026-11-11", "--last-day"],
    "catalog price set --at": ["catalog", "price", "set", "a", "1", "--reason", "a", "--at"],
    "report aftersales --from": ["report", "aftersales", "--to", "now", "--from"],
    "report aftersales --to": ["report", "aftersales", "--from", "2026-11-01T00:00Z", "--to"],
    "report sales --from": ["report", "sales", "--from"],
    "report sales --to": ["report", "sales", "--to"],
    "report recount-sales --from": ["report", "recount-sales", "--from"],
    "report recount-sales --to": ["report", "recount-sales", "--to"],
    "report quality --from": ["report", "quality", "--from"],
    "report quality --to": ["report", "quality", "--to"],
    "case-rule try --from": ["case-rule", "try", "{file}", "--to", "now", "--from"],
    "case-rule try --to": ["case-rule", "try", "{file}", "--from", "2026-11-01T00:00Z", "--to"],
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


DAYS = {
    *("payment balances --until", "order find --day", "order find --last-day"),
    *("report recount-sales --from", "report recount-sales --to", "report quality --from", "report quality --to"),
}
MOMENTS = [name for name in COMMANDS if name not in DAYS and name.split()[-1] not in ("--date", "--by", "--hand-over")]
BERLIN = {"COLUMNS": "300", "FLOODGATE_SHOP__TIME_ZONE": "Europe/Berlin"}


@pytest.mark.parametrize("name", MOMENTS)
def test_moment_without_a_zone_is_by_the_shops_clock_and_shown_by_both(name: str, tmp_path: Path) -> None:
    """The databases cannot be reached: the clocks are shown before anything is changed."""
    file = tmp_path / "file.csv"
    file.write_text("sku,units\n")
    nowhere = {"REDIS_URL": f"unix://{tmp_path}/nobody", "DATABASE_URL": f"postgresql://a@b/c?host={tmp_path}"}
    arguments = [argument.format(file=file) for argument in COMMANDS[name]]
    for text in ("2026-11-28T20:00", "2026-11-28T19:00Z", "2026-11-29T03:00:00+08:00"):
        result = CliRunner().invoke(app, [*arguments, text], env={**BERLIN, **nowhere})
        expected = f"{text} is 2026-11-28 20:00:00 Europe/Berlin, 2026-11-28 19:00:00 UTC\n"
        assert (result.exit_code, result.stderr.count(expected)) == (1, 1), result.output


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        (
            "2027-10-31T02:30",
            "occurs twice: clocks go back then; write 2027-10-31T02:30:00+02:00 or 2027-10-31T02:30:00+01:00",
        ),
        (
            "2027-03-28T02:30",
            "does not exist: clocks go forward then; write 2027-03-28T01:30:00+01:00 or 2027-03-28T03:30:00+02:00",
        ),
    ],
)
def test_moment_that_is_no_moment_or_two_is_refused_with_the_choices(text: str, choices: str) -> None:
    result = CliRunner().invoke(app, [*COMMANDS["draw announce --at"], text], env=BERLIN)
    assert (result.exit_code, choices in " ".join(result.stderr.split())) == (2, True), result.output
    for choice in choices.split("write ")[1].split(" or "):
        assert parse_local_moment(choice, ZoneInfo("Europe/Berlin")) == datetime.fromisoformat(choice)


def test_moment_without_a_zone_is_utc_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLOODGATE_SHOP__TIME_ZONE", raising=False)
    assert read_moment("2026-11-28T20:00") == datetime(2026, 11, 28, 20, tzinfo=UTC)
    assert capsys.readouterr().err == "2026-11-28T20:00 is 2026-11-28 20:00:00 UTC, which is the shop's time zone\n"
    assert abs(read_moment("now") - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["2027-03-28T01:59:59", "2027-03-28T03:00", "2027-10-31T03:00", "2027-10-31T01:59"])
def test_moment_beside_a_change_of_clocks_is_one_moment(text: str) -> None:
    zone = ZoneInfo("Europe/Berlin")
    assert parse_local_moment(text, zone).astimezone(zone).replace(tzinfo=None) == datetime.fromisoformat(text)


def test_unknown_zone_of_the_shop_is_refused() -> None:
    result = CliRunner().invoke(
        app, [*COMMANDS["draw announce --at"], "now"], env={**BERLIN, "FLOODGATE_SHOP__TIME_ZONE": "Berlin"}
    )
    assert (result.exit_code, "'Berlin' is no time zone" in result.stderr) == (1, True), result.output


def test_every_argument_that_is_a_day_or_a_moment_is_in_the_table() -> None:
    bounded = set()
    for name, descriptor in _arguments(typer.main.get_command(app)):
        if {date, datetime} & {descriptor.annotation, *get_args(descriptor.annotation)}:
            if descriptor.parameter_info.parser in (read_day, read_moment):
                bounded.add(name)
            else:
                assert descriptor.parameter_info.formats == ["%H:%M"], name
    assert bounded == COMMANDS.keys()
