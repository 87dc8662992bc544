"""Countries by their ISO 3166-1 alpha-2 codes."""

from __future__ import annotations

from importlib import resources


def _read_codes() -> frozenset[str]:
    # The tz database lists the codes in force for choosing time zones: a line is code, tab, English name.
    table = resources.files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text(encoding="utf-8")
    return frozenset(line.split("\t")[0] for line in table.splitlines() if line and not line.startswith("#"))


COUNTRIES = _read_codes()
