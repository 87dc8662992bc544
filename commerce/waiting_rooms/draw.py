"""The draw of places, and its check by anybody: `python draw.py FILE`.

This file needs nothing but Python's standard library, so that it can be read and run outside of the shop.

The list of tickets is closed and its digest published, together with the name of a public randomness that does not
exist yet. The places follow from the digest and that randomness alone. A draw's file has a line of JSON, and then one
ticket hash per line, in the order of the places.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

FORMAT = "floodgate-draw-1"
DELAY_ITERATIONS = 500_000
MAX_ENTRIES = 5_000_000
_MAX_HEADER_CHARS = 10_000
_MAX_DELAY_ROUNDS = 10_000
_HASH = re.compile(r"[0-9a-f]{64}\n?")
_DRAND = re.compile(r"drand:([0-9a-f]{64}):([1-9][0-9]{0,11})")


class DrawError(Exception):
    """The file is no draw, or its places do not follow from its list and its randomness."""


class CheckedDraw(NamedTuple):
    """A draw whose places are right. `advice` says what a reader has to compare with the outside world."""

    sale_id: str
    entries: int
    list_digest: str
    advice: list[str]


def ticket_hash(sale_id: str, user_id: str, nonce: bytes) -> bytes:
    """Return the hash that stands for a customer on the list. Without the nonce it names nobody."""
    return hashlib.sha256(b"\0".join((b"floodgate-ticket", sale_id.encode(), user_id.encode(), nonce))).digest()


def digest_list(sale_id: str, sorted_hashes: Iterable[bytes]) -> bytes:
    """Return the digest of a closed list: SHA-256 over the sale and its sorted ticket hashes."""
    digest = hashlib.sha256(b"floodgate-list\0" + sale_id.encode() + b"\0")
    for ticket in sorted_hashes:
        digest.update(ticket)
    return digest.digest()


def rank_hashes(list_digest: bytes, randomness: str, hashes: Iterable[bytes]) -> list[bytes]:
    """Return ticket hashes by place: in the order of their HMAC-SHA256 under the randomness."""
    key = randomness.encode()
    return [
        ticket for _, ticket in sorted((hmac.digest(key, list_digest + ticket, "sha256"), ticket) for ticket in hashes)
    ]


def iterate_delay(list_digest: bytes, rounds: int) -> Iterator[bytes]:
    """Compute the randomness of the source `delay:ROUNDS`, one value per round; the last one counts.

    Each round needs the one before, so more machines do not make it faster: nobody, the shop included, knows the
    places until this time has passed since the list was closed.
    """
    value = list_digest
    for _ in range(rounds):
        value = hashlib.pbkdf2_hmac("sha256", value, b"floodgate-delay", DELAY_ITERATIONS)
        yield value


def delay_rounds(source: str) -> int | None:
    """Return the rounds of a source `delay:ROUNDS`, None for any other."""
    name, _, rounds = source.partition(":")
    is_delay = name == "delay" and rounds.isdecimal() and 1 <= int(rounds) <= _MAX_DELAY_ROUNDS
    return int(rounds) if is_delay else None


def drand_address(source: str) -> str | None:
    """Return the public address of a source `drand:CHAIN:ROUND`, None for any other."""
    match = _DRAND.fullmatch(source)
    return f"https://api.drand.sh/{match[1]}/public/{match[2]}" if match else None


def check_draw(lines: Iterable[str]) -> CheckedDraw:
    """Check a draw's file, given as its lines. Raises `DrawError` with the first thing that is wrong."""
    remaining = iter(lines)
    header = _read_header(next(remaining, ""))
    sale_id, entries, digest = header["sale_id"], header["entries"], header["list_digest"]
    hashes = _read_hashes(remaining)
    if len(hashes) != entries:
        raise DrawError(f"the file has {len(hashes)} tickets, its first line says {entries}")
    in_list = sorted(hashes)
    if any(first == second for first, second in pairwise(in_list)):
        raise DrawError("a ticket is listed twice")
    if digest_list(sale_id, in_list).hex() != digest:
        raise DrawError("the list's digest is not that of its tickets")
    source, randomness = header["source"], header["randomness"]
    if randomness is None:
        raise DrawError("the places are not drawn yet: this is the closed list; get the file again later")
    rounds = delay_rounds(source)
    if rounds is not None:
        *_, value = iterate_delay(bytes.fromhex(digest), rounds)
        if value.hex() != randomness:
            raise DrawError(f"the randomness is not the result of {source} for this list")
    if rank_hashes(bytes.fromhex(digest), randomness, in_list) != hashes:
        raise DrawError("the order is not the one that list and randomness give")
    return CheckedDraw(sale_id, entries, digest, _advise(header))


def _read_header(line: str) -> dict[str, Any]:
    try:
        header = json.loads(line) if len(line) <= _MAX_HEADER_CHARS else None
    except ValueError:
        header = None
    texts = ("sale_id", "list_digest", "source", "named_source")
    if (
        not isinstance(header, dict)
        or header.get("format") != FORMAT
        or not all(isinstance(header.get(name), str) for name in texts)
        or not _HASH.fullmatch(header["list_digest"])
        or not isinstance(header.get("entries"), int)
        or not isinstance(header.get("randomness"), str | None)
    ):
        raise DrawError(f"the first line is not that of a {FORMAT} file")
    return header


def _read_hashes(lines: Iterator[str]) -> list[bytes]:
    hashes: list[bytes] = []
    for number, line in enumerate(lines, 2):
        if not _HASH.fullmatch(line):
            raise DrawError(f"line {number} is not a ticket hash")
        if len(hashes) >= MAX_ENTRIES:
            raise DrawError(f"the file has more than {MAX_ENTRIES} tickets")
        hashes.append(bytes.fromhex(line))
    return hashes


def _advise(header: dict[str, Any]) -> list[str]:
    """List what a reader has to compare: the file alone cannot prove it."""
    advice = [
        f"compare the list's digest with the one that was published when the list closed: {header['list_digest']}"
    ]
    source, named = header["source"], header["named_source"]
    if address := drand_address(source):
        advice.append(f"compare the randomness with `randomness` of {address}: {header['randomness']}")
    elif delay_rounds(source) is None:
        advice.append(f"compare the randomness with {source!r}: {header['randomness']}")
    if source != named:
        advice.append(f"{named!r} was named and not used: see for yourself that it was not published in time")
    return advice


def main(arguments: list[str]) -> int:
    """Check the file that the command line names. Returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python draw.py FILE\n")
        return 2
    try:
        with open(arguments[0], encoding="ascii") as file:  # noqa: PTH123  # nothing but what a reader knows
            draw = check_draw(file)
    except (OSError, ValueError, DrawError) as error:
        sys.stderr.write(f"cannot confirm the draw: {error}\n")
        return 1
    lines = [f"the places of {draw.entries} tickets of {draw.sale_id} follow from list and randomness", *draw.advice]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
