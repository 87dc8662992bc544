"""The draw: a second implementation agrees, and every forgery is found."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cmp_to_key
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from commerce.waiting_rooms import draw

SALE = "double-11"
DRAND = f"drand:{'ab' * 32}:1234"


def _xor(data: bytes, value: int) -> bytes:
    return bytes(byte ^ value for byte in data)


def _second_implementation(sale_id: str, tickets: set[bytes], randomness: str) -> tuple[str, list[bytes]]:
    """Draw by the published rules, written without the first: HMAC from RFC 2104, and pairwise comparison."""
    digest = sha256(f"floodgate-list\0{sale_id}\0".encode() + b"".join(sorted(tickets))).digest()
    secret = randomness.encode()
    block = (sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    inner, outer = sha256(_xor(block, 0x36)), sha256(_xor(block, 0x5C))

    def score(ticket: bytes) -> bytes:
        inside, outside = inner.copy(), outer.copy()
        inside.update(digest + ticket)
        outside.update(inside.digest())
        return outside.digest()

    scores = {ticket: score(ticket) for ticket in tickets}

    def compare(ticket: bytes, other: bytes) -> int:
        return -1 if (scores[ticket], ticket) < (scores[other], other) else 1

    return digest.hex(), sorted(tickets, key=cmp_to_key(compare))


def _tickets(seed: int, count: int) -> list[bytes]:
    random = Random(seed)
    return [draw.ticket_hash(SALE, f"user-{number}", random.randbytes(16)) for number in range(count)]


def _file(tickets: list[bytes], randomness: str = "cd" * 32, source: str = DRAND, **changes: object) -> list[str]:
    in_list = sorted(tickets)
    digest = draw.digest_list(SALE, in_list)
    header = {
        "format": draw.FORMAT,
        "sale_id": SALE,
        "entries": len(tickets),
        "list_digest": digest.hex(),
        "source": source,
        "named_source": source,
        "randomness": randomness,
        **changes,
    }
    places = draw.rank_hashes(digest, randomness, in_list)
    return [json.dumps(header) + "\n", *(f"{ticket.hex()}\n" for ticket in places)]


@pytest.mark.parametrize("count", [0, 1, 2, 17, 1_000])
def test_draw_of_random_list_agrees_with_second_implementation(count: int) -> None:
    for seed in range(5):
        tickets, randomness = _tickets(seed, count), "Ω" * seed + f"value {seed}"
        digest, places = _second_implementation(SALE, set(tickets), randomness)
        assert draw.digest_list(SALE, sorted(tickets)).hex() == digest
        assert draw.rank_hashes(bytes.fromhex(digest), randomness, tickets) == places


def test_draw_of_twenty_thousand_agrees_and_is_confirmed() -> None:
    tickets = [sha256(number.to_bytes(4, "big")).digest() for number in range(20_000)]
    digest, places = _second_implementation(SALE, set(tickets), "cd" * 32)
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
        (lambda lines: [lines[0].replace('"cd', '"').replace(f'"{"cd" * 31}"', "null"), *lines[1:]], "not drawn"),
        (lambda lines: ["[]\n", *lines[1:]], "first line"),
        (lambda lines: [], "first line"),
        (lambda lines: ["x" * 20_000, *lines[1:]], "first line"),
    ],
)
def test_forged_draw_is_refused_with_its_reason(forge: object, reason: str) -> None:
    with pytest.raises(draw.DrawError, match=reason):
        draw.check_draw(forge(_file(_tickets(3, 20))))  # type: ignore[operator]


def test_delay_is_computed_again_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "DELAY_ITERATIONS", 10)
    tickets = _tickets(4, 10)
    *_, value = draw.iterate_delay(draw.digest_list(SALE, sorted(tickets)), 3)
    assert draw.check_draw(_file(tickets, value.hex(), "delay:3")).entries == 10
    with pytest.raises(draw.DrawError, match="delay:2"):
        draw.check_draw(_file(tickets, value.hex(), "delay:2"))


def test_draw_by_another_source_than_the_named_one_is_pointed_out() -> None:
    advice = draw.check_draw(_file(_tickets(5, 3), named_source="the lottery of 11 November")).advice
    assert any("was named and not used" in line for line in advice)
    assert any(f"https://api.drand.sh/{'ab' * 32}/public/1234" in line for line in advice)


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
    file.write_text("".join([lines[0], *lines[:0:-1]]))
    bad = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "cannot confirm the draw" in bad.stderr
