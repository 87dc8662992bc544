"""The header of a script is its contract: outcomes are the enum's, keys and arguments have names."""

from __future__ import annotations

import re
from enum import IntEnum
from importlib import resources

import pytest

from lua import (
    AdoptOutcome,
    ChangeStockOutcome,
    JoinOutcome,
    LoadOutcome,
    OfferOutcome,
    PublishOutcome,
    ReacquireOutcome,
    ReleaseOutcome,
    ReserveOutcome,
    SpendOutcome,
    WithdrawOutcome,
)
from lua.keys import CHANGE_DEDUP_DAYS
from lua.script import Script, assemble_script

ENUMS: dict[str, type[IntEnum]] = {
    "reserve": ReserveOutcome,
    "release": ReleaseOutcome,
    "change_stock": ChangeStockOutcome,
    "reacquire": ReacquireOutcome,
    "publish": PublishOutcome,
    "load": LoadOutcome,
    "adopt": AdoptOutcome,
    "join_room": JoinOutcome,
    "spend_proof": SpendOutcome,
    "offer_units": OfferOutcome,
    "withdraw_offers": WithdrawOutcome,
}


def _lua_names(*folder: str) -> list[str]:
    files = resources.files("lua").joinpath(*folder).iterdir()
    return sorted(file.name.removesuffix(".lua") for file in files if file.name.endswith(".lua"))


SCRIPTS = _lua_names()
PIECES = _lua_names("include")
BINDING = re.compile(r"local [\w, ]+ = (?:(?:tonumber\()?(?:KEYS|ARGV)\[\d+\]\)?(?:, )?)+")
POSITION = re.compile(r"\b(?:KEYS|ARGV)\[\d+\]")


def _source(name: str) -> str:
    return resources.files("lua").joinpath(f"{name}.lua").read_text()


def _header(name: str) -> str:
    lines = _source(name).splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines[:end])


def _bindings(name: str) -> list[str]:
    """List the lines between header and code that bind keys and arguments to names."""
    lines = _source(name).splitlines()
    start = next(number for number, line in enumerate(lines) if not line.startswith("--")) + 1
    end = next(number for number in range(start, len(lines)) if not BINDING.fullmatch(lines[number]))
    return lines[start:end]


@pytest.mark.parametrize("name", SCRIPTS)
def test_header_of_script_documents_keys_arguments_and_result(name: str) -> None:
    header = _header(name)
    assert header.startswith(f"{name}: ")
    assert re.search(r"^KEYS\s+1 ", header, re.MULTILINE)
    assert re.search(r"^RETURNS ", header, re.MULTILINE)
    if "ARGV" in _source(name).split(header.splitlines()[-1])[1]:
        assert re.search(r"^ARGV\s+1 ", header, re.MULTILINE)


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys_and_arguments_are_bound_to_names_at_head(name: str) -> None:
    bindings = _bindings(name)
    assert bindings
    for line in bindings:
        names, _, values = line.removeprefix("local ").partition(" = ")
        assert len(names.split(", ")) == len(values.split(", ")), line
    code = "\n".join(line for line in _source(name).splitlines() if not line.startswith("--") and line not in bindings)
    assert POSITION.findall(code) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_bound_positions_are_those_of_header(name: str) -> None:
    """The numbers of a header, in sequence, are bound; those of repeated groups have no number."""
    header, bindings = _header(name), "\n".join(_bindings(name))
    for array in ("KEYS", "ARGV"):
        block = re.search(rf"^{array}\s+(.*?)(?=^\S|^$|\Z)", header, re.MULTILINE | re.DOTALL)
        bound = {int(number) for number in re.findall(rf"\b{array}\[(\d+)\]", bindings)}
        numbered = {int(number) for number in re.findall(r"(?:^|\s{2,})(\d+) ", block[1])} if block else set()
        assert bound == numbered, array


@pytest.mark.parametrize("name", PIECES)
def test_included_piece_has_header_and_takes_no_keys(name: str) -> None:
    text = resources.files("lua").joinpath("include", f"{name}.lua").read_text()
    assert text.startswith(f"-- {name}: ")
    assert not re.search(r"\bKEYS\b|\bARGV\b", text)
    assert any(f"-- include: {name}\n" in _source(script) for script in SCRIPTS), "no script includes it"


def test_script_with_includes_is_assembled_and_hashed_as_one_text() -> None:
    script = Script("reserve")
    assert script.source == assemble_script("reserve")
    assert "-- include: " not in script.source
    assert "local function chunks(first, last)" in script.source
    with pytest.raises(FileNotFoundError):
        assemble_script("no_such_script")


def test_dedup_days_of_scripts_are_those_of_keys() -> None:
    match = re.search(r"local KEPT_DAYS, DAY_S = (\d+), 86400", assemble_script("release"))
    assert match
    assert int(match[1]) == CHANGE_DEDUP_DAYS


@pytest.mark.parametrize("name", ENUMS)
def test_outcomes_of_header_are_those_of_enum(name: str) -> None:
    block = re.search(r"^OUTCOMES (.*?)(?=^\S|^$|\Z)", _header(name), re.MULTILINE | re.DOTALL)
    assert block
    listed = {word: int(number) for number, word in re.findall(r"\b(\d+) ([a-z_]+)", block[1])}
    assert listed == {member.name.lower(): member.value for member in ENUMS[name]}


@pytest.mark.parametrize("name", ENUMS)
def test_outcomes_of_code_are_those_of_enum(name: str) -> None:
    named = {}
    for names, numbers in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", _source(name), re.MULTILINE):
        named |= dict(zip(names.split(", "), map(int, numbers.split(", ")), strict=True))
    outcomes = {member.name: member.value for member in ENUMS[name]}
    assert {word: number for word, number in named.items() if word in outcomes} == outcomes


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_has_no_globals(name: str) -> None:
    """Redis forbids them, but only when the line is reached."""
    body = "\n".join(line.split("--")[0] for line in assemble_script(name).splitlines())
    declared = set(re.findall(r"\blocal (?:function )?([\w, ]+)", body))
    declared |= set(re.findall(r"\bfunction \w+\(([\w, ]+)\)", body))
    names = {word.strip() for group in declared for word in group.split(",")}
    assigned = set(re.findall(r"^\s*(\w+) = ", body, re.MULTILINE))
    in_tables = set(re.findall(r"[{,]\s*(\w+) = ", body))
    assert assigned - names - in_tables == set()
