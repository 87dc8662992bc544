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
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, NamedTuple

FORMAT = "floodgate-draw-1"
DELAY_ITERATIONS = 500_000
MAX_ENTRIES = 5_000_000
MAX_TEXT_CHARS = 300
LATE = timedelta(seconds=1)
"""A list that is not fixed longer than this before the randomness is public is fixed too late."""
NO_DRAW = "none: nobody is on the list"
"""The source of an empty list."""
QUICKNET = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971"
"""The chain of drand whose rounds may be named: https://api.drand.sh/CHAIN/info."""
QUICKNET_FIRST_AT, QUICKNET_PERIOD_S = datetime.fromisoformat("2023-08-23T15:09:27+00:00"), 3
TEXT_RULE = (
    "numbers without leading zeros and words of a-z and 0-9, in the order of publication, with one space between"
)

_MAX_HEADER_CHARS = 10_000
_MAX_LINE_CHARS = _MAX_HEADER_CHARS + 1
_MAX_DELAY_ROUNDS = 10_000
_HEX = re.compile(r"[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{64}\n?")
_DRAND = re.compile(rf"drand:{QUICKNET}:([1-9][0-9]{{0,9}})")
_DELAY = re.compile(r"delay:([1-9][0-9]{0,4})")
_RESERVED = re.compile(r"(?:drand|delay|none)\s*(?::.*)?", re.IGNORECASE)
_PRINTABLE = re.compile(rf"[!-~](?:[ -~]{{0,{MAX_TEXT_CHARS - 2}}}[!-~])?")
_WORD = r"(?:0|[1-9][0-9]*|(?=[0-9]*[a-z])[0-9a-z]+)"
_TEXT_VALUE = re.compile(rf"{_WORD}(?: {_WORD})*")
_TIME = re.compile(r"[2-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?\+00:00")


class DrawError(Exception):
    """The file is no draw, or its places do not follow from its list and its randomness."""


class CheckedDraw(NamedTuple):
    """A draw whose places follow from list and randomness.

    `is_confirmed` is false if the shop could have chosen between two results. `advice` says what the file cannot show.
    """

    sale_id: str
    entries: int
    list_digest: str
    source: str
    is_confirmed: bool
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

    Each round needs the one before, so more machines do not make it faster. They do try more lists at the same time.
    """
    value = list_digest
    for _ in range(rounds):
        value = hashlib.pbkdf2_hmac("sha256", value, b"floodgate-delay", DELAY_ITERATIONS)
        yield value


def delay_rounds(source: str) -> int | None:
    """Return the rounds of a source `delay:ROUNDS`, None for any other."""
    match = _DELAY.fullmatch(source)
    return int(match[1]) if match and int(match[1]) <= _MAX_DELAY_ROUNDS else None


def drand_time(source: str) -> datetime | None:
    """Return when the round of a source `drand:CHAIN:ROUND` is public, None for any other source."""
    match = _DRAND.fullmatch(source)
    if match is None:
        return None
    return QUICKNET_FIRST_AT + timedelta(seconds=(int(match[1]) - 1) * QUICKNET_PERIOD_S)


def drand_address(source: str) -> str:
    """Return the public address of a round of drand."""
    return f"https://api.drand.sh/{QUICKNET}/public/{source.rpartition(':')[2]}"


def is_source(source: str) -> bool:
    """Tell whether a source can be named.

    It is a delay, a round of drand's quicknet, or a line that looks like neither: printable ASCII without
    blanks at its ends, so that no two sources look alike.
    """
    is_known = delay_rounds(source) is not None or drand_time(source) is not None
    return is_known or (_PRINTABLE.fullmatch(source) is not None and _RESERVED.fullmatch(source) is None)


def is_value_of(source: str, randomness: str) -> bool:
    """Tell whether a value has the one form that values of its source have.

    64 hex digits for drand and a delay. For any other source it is that of `TEXT_RULE`: with two ways to write a
    result, the shop could choose between two draws.
    """
    if delay_rounds(source) is not None or drand_time(source) is not None:
        return _HEX.fullmatch(randomness) is not None
    return len(randomness) <= MAX_TEXT_CHARS and _TEXT_VALUE.fullmatch(randomness) is not None


def check_file(path: str) -> CheckedDraw:
    """Check a draw's file. Raises `DrawError` with the first thing that is wrong, or `OSError`."""
    with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123  # nothing but what a reader knows
        return check_draw(iter(lambda: file.readline(_MAX_LINE_CHARS), ""))


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
    if source is None or randomness is None:
        raise DrawError("the places are not drawn yet: this is the closed list; get the file again later")
    if source == NO_DRAW and entries == 0:
        return CheckedDraw(sale_id, 0, digest, source, is_confirmed=True, advice=_advise_on_list(header))
    _check_source(header)
    if rank_hashes(bytes.fromhex(digest), randomness, in_list) != hashes:
        raise DrawError("the order is not the one that list and randomness give")
    rounds = delay_rounds(source)
    if rounds is not None:
        *_, value = iterate_delay(bytes.fromhex(digest), rounds)
        if value.hex() != randomness:
            raise DrawError(f"the randomness is not the result of {source} for this list")
    is_confirmed = source == header["named_source"]
    return CheckedDraw(
        sale_id, entries, digest, source, is_confirmed, [*_advise_on_source(header), *_advise_on_list(header)]
    )


def _check_source(header: dict[str, Any]) -> None:
    """Check that the randomness is of an announced source, and was not public before the list."""
    named, source, fallback = header["named_source"], header["source"], header["fallback"]
    randomness_at, listed_at = header["randomness_at"], header["listed_at"]
    if source not in (named, fallback):
        raise DrawError(f"the randomness is of {source!r}, which was not announced")
    if not is_value_of(source, header["randomness"]):
        raise DrawError(
            f"the randomness does not have the form of {source!r}: 64 digits of 0-9 and a-f, or {TEXT_RULE}"
        )
    if randomness_at is None:
        return
    if (public_at := drand_time(named)) is not None and public_at != randomness_at:
        raise DrawError(f"{named!r} was public at {public_at:%Y-%m-%d %H:%M:%S}Z, which is not the time in the file")
    if source == named and listed_at >= randomness_at - LATE:
        raise DrawError(f"the list was fixed at {listed_at:%Y-%m-%d %H:%M:%S}Z, when {named!r} was public")


def _read_header(line: str) -> dict[str, Any]:
    try:
        header = json.loads(line, object_pairs_hook=_refuse_repeats) if len(line) <= _MAX_HEADER_CHARS else None
        if isinstance(header, dict) and _is_header(header):
            times = ("list_closes_at", "listed_at", "randomness_at", "fallback_at")
            return {**header, **{name: _read_time(header[name]) for name in times}}
    except (ValueError, RecursionError):
        pass
    raise DrawError(f"the first line is not that of a {FORMAT} file")


def _refuse_repeats(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a member that occurs twice: two readers could take different ones."""
    values = dict(members)
    if len(values) != len(members):
        raise ValueError
    return values


def _is_header(header: dict[str, Any]) -> bool:
    """Tell whether the members of a header have their types and forms and fit together."""
    named, fallback, source = (header.get(name) for name in ("named_source", "fallback", "source"))
    entries, randomness, digest = header.get("entries"), header.get("randomness"), header.get("list_digest")
    has_fallback = isinstance(named, str) and delay_rounds(named) is None
    return (
        header.get("format") == FORMAT
        and all(isinstance(text, str) and _PRINTABLE.fullmatch(text) for text in (header.get("sale_id"), named, digest))
        and _HEX.fullmatch(digest or "") is not None
        and type(entries) is int
        and is_source(named or "")
        and (source is None or (isinstance(source, str) and (is_source(source) or source == NO_DRAW)))
        and (isinstance(fallback, str) and delay_rounds(fallback) is not None if has_fallback else fallback is None)
        and isinstance(randomness, str | None)
        and all(_is_time(header.get(name)) for name in ("list_closes_at", "listed_at"))
        and all(
            _is_time(header.get(name)) if has_fallback else header.get(name, "") is None
            for name in ("randomness_at", "fallback_at")
        )
    )


def _is_time(value: object) -> bool:
    return isinstance(value, str) and _TIME.fullmatch(value) is not None


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _read_hashes(lines: Iterator[str]) -> list[bytes]:
    hashes: list[bytes] = []
    for number, line in enumerate(lines, 2):
        if not _HASH.fullmatch(line):
            raise DrawError(f"line {number} is not a ticket hash")
        if len(hashes) >= MAX_ENTRIES:
            raise DrawError(f"the file has more than {MAX_ENTRIES} tickets")
        hashes.append(bytes.fromhex(line))
    return hashes


def _advise_on_source(header: dict[str, Any]) -> list[str]:
    """List what a reader has to compare about the randomness."""
    named, source, randomness = header["named_source"], header["source"], header["randomness"]
    randomness_at, fallback_at = header["randomness_at"], header["fallback_at"]
    announced = (
        f"compare with what the room's page showed before the list closed at {_show(header['list_closes_at'])}: "
        f"it must have named {named!r}"
    )
    if randomness_at is None:
        return [
            f"{source} is computed from the list, not published by others: the shop could try many lists at the same "
            "time before it published the digest of one, the longer after the close the more",
            announced,
        ]
    announced += f" of {_show(randomness_at)}, and {header['fallback']} if that was not known by {_show(fallback_at)}"
    if source != named:
        is_late = header["listed_at"] >= randomness_at - LATE
        reason = (
            "the list was fixed when that was public, so the shop could try lists until it liked a result"
            if is_late
            else "the shop could know both results before it had to give one, and keep back the one it did not like; "
            f"it did nothing wrong only if others could not know the named one by {_show(fallback_at)}"
        )
        address_hint = f"; look at {drand_address(named)}" if drand_time(named) is not None else ""
        return [f"not confirmed: {named!r} was named and not used: {reason}{address_hint}", announced]
    if drand_time(source) is not None:
        seconds = (randomness_at - header["listed_at"]).total_seconds()
        return [
            f"compare the randomness with `randomness` of {drand_address(source)}: {randomness}",
            f"that round was public at {_show(randomness_at)}, {seconds:.0f} s after the list was fixed",
            announced,
        ]
    return [
        f"compare the randomness with {named!r}: {randomness}",
        f"it has {TEXT_RULE}; any other order or grouping of what was published would be the shop's choice",
        f"see for yourself that it was not known before {_show(randomness_at)}",
        announced,
    ]


def _advise_on_list(header: dict[str, Any]) -> list[str]:
    return [
        f"compare the list's digest with the one that the room's page showed from {_show(header['listed_at'])} on; "
        f"the file cannot show that it was there: {header['list_digest']}",
        "look for your own ticket hash: the file cannot show who was left out, or that each ticket is another person",
    ]


def _show(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def describe(draw: CheckedDraw) -> str:
    """Return the result of a check in a sentence."""
    end = "" if draw.is_confirmed else ", but the draw is not confirmed"
    return f"the places of {draw.entries} tickets of {draw.sale_id} follow from the list and {draw.source}{end}"


def main(arguments: list[str]) -> int:
    """Check the file that the command line names.

    Returns 0, 3 for a draw that the shop could have chosen, 1 for one that is wrong, and 2 for a wrong command line.
    """
    if len(arguments) != 1:
        sys.stderr.write("usage: python draw.py FILE\n")
        return 2
    try:
        draw = check_file(arguments[0])
    except (OSError, DrawError) as error:
        sys.stderr.write(f"cannot confirm the draw: {error}\n")
        return 1
    sys.stdout.write("\n- ".join([describe(draw), *draw.advice]) + "\n")
    return 0 if draw.is_confirmed else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
