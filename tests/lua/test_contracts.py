"""A script's header is its contract: the outcomes it lists are the enum's, and its keys and arguments are counted."""

from __future__ import annotations

import re
from enum import IntEnum
from importlib import resources

import pytest

from lua import ChangeStockOutcome, LoadOutcome, PublishOutcome, ReacquireOutcome, ReleaseOutcome, ReserveOutcome

ENUMS: dict[str, type[IntEnum]] = {
    "reserve": ReserveOutcome,
    "release": ReleaseOutcome,
    "restock": ChangeStockOutcome,
    "retake": ReacquireOutcome,
    "publish": PublishOutcome,
    "load": LoadOutcome,
}
SCRIPTS = sorted(
    file.name.removesuffix(".lua") for file in resources.files("lua").iterdir() if file.name.endswith(".lua")
)


def _source(name: str) -> str:
    return resources.files("lua").joinpath(f"{name}.lua").read_text()


def _header(name: str) -> str:
    lines = _source(name).splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:end])


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_header_says_what_goes_in_and_out(name: str) -> None:
    header = _header(name)
    assert header.startswith(f"{name}: ")
    assert re.search(r"^KEYS\s+1 ", header, re.MULTILINE)
    assert re.search(r"^GIVES ", header, re.MULTILINE)
    if "ARGV" in _source(name).split(header.splitlines()[-1])[1]:
        assert re.search(r"^ARGV\s+1 ", header, re.MULTILINE)


@pytest.mark.parametrize("name", ENUMS)
def test_outcomes_are_those_of_the_enum(name: str) -> None:
    block = re.search(r"^OUTCOMES (.*?)(?=^\S|^$|\Z)", _header(name), re.MULTILINE | re.DOTALL)
    assert block
    listed = {word: int(number) for number, word in re.findall(r"\b(\d+) ([a-z_]+)", block[1])}
    assert listed == {member.name.lower(): member.value for member in ENUMS[name]}


@pytest.mark.parametrize("name", ENUMS)
def test_the_script_uses_the_same_numbers(name: str) -> None:
    named = {}
    for names, numbers in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", _source(name), re.MULTILINE):
        named |= dict(zip(names.split(", "), map(int, numbers.split(", ")), strict=True))
    outcomes = {member.name: member.value for member in ENUMS[name]}
    assert {word: number for word, number in named.items() if word in outcomes} == outcomes


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_no_globals(name: str) -> None:
    """Redis forbids them, but only when the line is reached."""
    body = "\n".join(line.split("--")[0] for line in _source(name).splitlines())
    declared = set(re.findall(r"\blocal (?:function )?([\w, ]+)", body))
    names = {word.strip() for group in declared for word in group.split(",")}
    assigned = set(re.findall(r"^\s*(\w+) = ", body, re.MULTILINE))
    in_tables = set(re.findall(r"[{,]\s*(\w+) = ", body))
    assert assigned - names - in_tables == set()
