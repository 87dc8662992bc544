"""The draw: a second implementation agrees, and every forgery is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from commerce.waiting_rooms import draw
from ops.cli import app
from tests.support.second_draw import draw_by_rules

SALE = "double-11"
DRAND = f"drand:{draw.QUICKNET}:34021187"
PUBLIC_AT = "2026-11-16T22:08:45+00:00"
LOTTERY, NUMBERS = "the lottery of 16 November", "3 14 15 0"


def _tickets(seed: int, count: int) -> list[bytes]:
    random = Random(seed)
    return [draw.ticket_hash(SALE, f"user-{number}", random.randbytes(16)) for number in range(count)]


def _file(tickets: list[bytes], randomness: str = "cd" * 32, named: str = DRAND, **changes: object) -> list[str]:
    in_list = sorted(tickets)
    digest = draw.digest_list(SALE, in_list)
    header = {
        "format": draw.FORMAT,
        "sale_id": SALE,
        "entries": len(tickets),
        "list_digest": digest.hex(),
        "list_closes_at": "2026-11-16T22:08:30+00:00",
        "listed_at": "2026-11-16T22:08:30.250000+00:00",
        "named_source": named,
        "randomness_at": PUBLIC_AT,
        "fallback": "delay:60",
        "fallback_at": "2026-11-16T22:09:45+00:00",
        "source": named,
        "randomness": randomness,
    }
    if named.startswith("delay:"):
        header |= {"randomness_at": None, "fallback": None, "fallback_at": None}
    header |= changes
    places = draw.rank_hashes(digest, randomness, in_list)
    return [json.dumps(header) + "\n", *(f"{ticket.hex()}\n" for ticket in places)]


@pytest.mark.parametrize("count", [0, 1, 2, 17, 1_000])
def test_draw_of_random_list_agrees_withdraw_by_rules(count: int) -> None:
    for seed in range(5):
        tickets, randomness = _tickets(seed, count), "Ω" * seed + f"value {seed}"
        digest, places = draw_by_rules(SALE, set(tickets), randomness)
        assert draw.digest_list(SALE, sorted(tickets)).hex() == digest
        assert draw.rank_hashes(bytes.fromhex(digest), randomness, tickets) == places


def test_draw_of_twenty_thousand_agrees_and_is_confirmed() -> None:
    tickets = [sha256(number.to_bytes(4, "big")).digest() for number in range(20_000)]
    digest, places = draw_by_rules(SALE, set(tickets), "cd" * 32)
    lines = _file(tickets)
    assert [bytes.fromhex(line) for line in lines[1:]] == places
    assert draw.check_draw(lines).list_digest == digest


def test_places_of_equal_list_change_with_the_randomness() -> None:
    tickets = _tickets(1, 100)
    digest = draw.digest_list(SALE, sorted(tickets))
    assert draw.rank_hashes(digest, "one", tickets) != draw.rank_hashes(digest, "two", tickets)


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "order"),
        (lambda lines: lines[:-1], "says 20"),
        (lambda lines: [lines[0], *lines[2:], "ab" * 32 + "\n"], "digest"),
        (lambda lines: [*lines[:-1], lines[1]], "twice"),
        (lambda lines: [*lines[:-1], "no hash\n"], "line 21"),
        (lambda lines: [lines[0].replace("cdcd", "cdce"), *lines[1:]], "order"),
        (lambda lines: [lines[0].replace(SALE, "double-12"), *lines[1:]], "digest"),
        (lambda lines: [lines[0].replace(f'"{"cd" * 32}"', "null"), *lines[1:]], "not drawn"),
        (lambda lines: ["[]\n", *lines[1:]], "first line"),
        (lambda lines: [], "first line"),
        (lambda lines: ["x" * 20_000, *lines[1:]], "first line"),
        (lambda lines: ["[" * 9_000 + "\n", *lines[1:]], "first line"),
        (lambda lines: [lines[0].replace('"entries"', '"entries": 19, "entries"'), *lines[1:]], "first line"),
    ],
)
def test_forged_draw_is_refused_with_its_reason(forge: object, reason: str) -> None:
    with pytest.raises(draw.DrawError, match=reason):
        draw.check_draw(forge(_file(_tickets(3, 20))))  # type: ignore[operator]


def test_delay_is_computed_again_by_the_check() -> None:
    tickets = _tickets(4, 10)
    *_, value = draw.iterate_delay(draw.digest_list(SALE, sorted(tickets)), 3)
    assert draw.check_draw(_file(tickets, value.hex(), "delay:3")).entries == 10
    with pytest.raises(draw.DrawError, match="delay:2"):
        draw.check_draw(_file(tickets, value.hex(), "delay:2"))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"randomness": "CD" * 32}, "form"),
        ({"randomness": "cd" * 32 + " "}, "form"),
        ({"randomness": "cd" * 32 + "\u200b"}, "form"),
        ({"source": "delay:2"}, "'delay:2', which was not announced"),
        ({"source": LOTTERY}, "not announced"),
        ({"source": draw.NO_DRAW}, "not announced"),
        ({"source": "delay:60", "fallback": LOTTERY}, "first line"),
        ({"source": "delay:060", "fallback": "delay:060"}, "first line"),
        ({"source": "delay:10001", "named_source": "delay:10001"}, "first line"),
        ({"source": "Delay:60", "named_source": "Delay:60"}, "first line"),
        ({"source": "delay:60 ", "named_source": "delay:60 "}, "first line"),
        ({"source": "DRAND:1", "named_source": "DRAND:1"}, "first line"),
        ({"source": f"drand:{'ab' * 32}:1234", "named_source": f"drand:{'ab' * 32}:1234"}, "first line"),
        ({"source": f"{DRAND}0000", "named_source": f"{DRAND}0000"}, "first line"),
        ({"source": "\x1b[2Jlottery", "named_source": "\x1b[2Jlottery"}, "first line"),
        ({"source": "lott\u0435ry", "named_source": "lott\u0435ry"}, "first line"),
        ({"source": "x" * 301, "named_source": "x" * 301}, "first line"),
        ({"list_digest": "ab" * 32 + "\n"}, "first line"),
        ({"entries": True}, "first line"),
        ({"fallback": None}, "first line"),
        ({"listed_at": None}, "first line"),
        ({"listed_at": "0001-01-01T00:00:00+00:00"}, "first line"),
        ({"listed_at": "2026-13-01T00:00:00+00:00"}, "first line"),
        ({"randomness_at": "2026-11-16T22:08:48+00:00"}, "public at 2026-11-16 22:08:45Z, which is not the time"),
        ({"listed_at": "2026-11-16T22:08:44+00:00"}, "fixed at 2026-11-16 22:08:44Z, when"),
    ],
)
def test_header_that_leaves_the_shop_a_choice_is_refused(header: dict[str, object], reason: str) -> None:
    with pytest.raises(draw.DrawError, match=reason):
        draw.check_draw(_file(_tickets(3, 1), **header))


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        (NUMBERS, True),
        ("red 7 0a1 block 00ff", True),
        ("01 05 09", False),
        ("1  5", False),
        ("1,5", False),
        (" 1", False),
        ("1 ", False),
        ("1\n", False),
        ("Red 7", False),
        ("\u0661 5", False),
        ("\uff11", False),
        ("1\u200b", False),
        ("", False),
        ("1" * 301, False),
    ],
)
def test_result_of_lottery_has_one_spelling(value: str, is_right: bool) -> None:
    lines = _file(_tickets(8, 5), value, LOTTERY)
    if is_right:
        assert draw.check_draw(lines).advice[0] == f"compare the randomness with {LOTTERY!r}: {value}"
    else:
        with pytest.raises(draw.DrawError, match="form"):
            draw.check_draw(lines)


def test_drand_round_is_shown_with_its_time_and_address() -> None:
    checked = draw.check_draw(_file(_tickets(5, 3)))
    assert checked.is_confirmed
    advice = "\n".join(checked.advice)
    assert f"https://api.drand.sh/{draw.QUICKNET}/public/34021187: {'cd' * 32}" in advice
    assert "public at 2026-11-16T22:08:45Z, 15 s after the list was fixed" in advice
    assert "showed from 2026-11-16T22:08:30Z on" in advice


@pytest.mark.parametrize(
    ("named", "listed_at", "reason"),
    [
        (LOTTERY, "2026-11-16T22:08:30+00:00", "others could not know the named one by 2026-11-16T22:09:45Z"),
        (DRAND, "2026-11-16T22:08:30+00:00", f"look at https://api.drand.sh/{draw.QUICKNET}/public/34021187"),
        (DRAND, "2026-11-16T22:08:46+00:00", "fixed when that was public"),
    ],
)
def test_fallback_is_not_confirmed_with_its_reason(named: str, listed_at: str, reason: str) -> None:
    tickets = _tickets(5, 3)
    *_, value = draw.iterate_delay(draw.digest_list(SALE, sorted(tickets)), 60)
    checked = draw.check_draw(_file(tickets, value.hex(), named, source="delay:60", listed_at=listed_at))
    assert not checked.is_confirmed
    assert "not confirmed" in draw.describe(checked)
    assert f"{named!r} was named and not used" in checked.advice[0]
    assert reason in checked.advice[0]


def test_unconfirmed_draw_has_a_status_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tickets, file = _tickets(7, 3), tmp_path / "places.txt"
    *_, value = draw.iterate_delay(draw.digest_list(SALE, sorted(tickets)), 60)
    file.write_text("".join(_file(tickets, value.hex(), source="delay:60")))
    assert draw.main([str(file)]) == 3
    assert "delay:60, but the draw is not confirmed\n- not confirmed:" in capsys.readouterr().out
    result = CliRunner().invoke(app, ["draw", "verify", str(file)])
    assert (result.exit_code, "but the draw is not confirmed" in result.stdout) == (3, True)
    assert f"{DRAND!r} was named and not used" in result.stderr


def test_named_delay_says_that_the_shop_could_try_lists() -> None:
    tickets = _tickets(5, 3)
    *_, value = draw.iterate_delay(draw.digest_list(SALE, sorted(tickets)), 2)
    advice = draw.check_draw(_file(tickets, value.hex(), "delay:2")).advice
    assert "could try many lists" in advice[0]
    assert "it must have named 'delay:2'" in advice[1], "a shop that named something else would write this file, too"


def test_endless_line_is_read_in_part(tmp_path: Path) -> None:
    fifo = tmp_path / "places.txt"
    os.mkfifo(fifo)
    writer = subprocess.Popen(
        [sys.executable, "-c", f"open({str(fifo)!r}, 'wb').write(b'x' * 100_000_000)"], stderr=subprocess.DEVNULL
    )
    try:
        with pytest.raises(draw.DrawError, match="first line"):
            draw.check_file(str(fifo))
        assert writer.wait(10) != 0, "the line was read to its end"
    finally:
        writer.kill()
        writer.wait()


def test_draw_module_alone_checks_a_file_with_the_standard_library(tmp_path: Path) -> None:
    """Run a copy outside of the project, isolated and without site packages."""
    script, file = tmp_path / "draw.py", tmp_path / "places.txt"
    script.write_bytes(Path(draw.__file__).read_bytes())
    lines = _file(_tickets(6, 50))
    file.write_text("".join(lines))
    command = [sys.executable, "-I", "-S", str(script), str(file)]
    good = subprocess.run(command, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stderr
    assert good.stdout.startswith("the places of 50 tickets")
    file.write_text("".join(_file([], "none", LOTTERY, source=draw.NO_DRAW)))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    file.write_text("".join([lines[0], *lines[:0:-1]]))
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "cannot confirm the draw" in bad.stderr
