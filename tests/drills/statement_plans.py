"""Plans of SQL statements with typical values, and what is wrong with them in a database that grows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import orjson

from commerce.kernel.postgres import Connection

_GENERIC_AFTER = 6
"""executions after which Postgres may take a plan without the values"""
_MIN_WASTED_ROWS, _MAX_WASTE = 2_000, 10
_MAX_SHARE = 0.03
_UNNEST = re.compile(r"unnest\(([^()]*)\)(?:\s+WITH ORDINALITY)?\s+AS \w+\s*\(([\w, ]+)\)")
_COMPARED = r"(\w+) *(?:<>|<=|>=|=|<|>|@>|IS NOT DISTINCT FROM) *(?:ANY|ALL)? *\(?\${number}\b"


class Plans:
    """Explains statements in one database. `sizes` has the rows of the tables that grow."""

    def __init__(self, connection: Connection, sizes: Mapping[str, int], columns: Mapping[str, object]) -> None:
        self._connection = connection
        self._sizes = sizes
        self._columns = columns

    async def find_faults(self, sql: str, values: Mapping[int, object]) -> list[str]:
        """Return what is wrong with the plans of a statement, in words.

        `values` has typical values by the number of their parameter, where those of their columns and types will not
        do. Reads are run, in a transaction that is rolled back; of writes only the plan is looked at. Two plans are
        looked at: the one for these values, and the one that a prepared statement has after some executions.
        """
        types = await self._prepare(sql)
        try:
            arguments = [self._value(sql, number, kind, values) for number, kind in enumerate(types, 1)]
            execute = f"EXECUTE block ({', '.join(map(_quote, arguments))})" if arguments else "EXECUTE block"
            analyze = _is_read(sql)
            plans = [await self._explain(execute, analyze=analyze)]
            if arguments:
                for _ in range(_GENERIC_AFTER):
                    later = await self._explain(execute, analyze=False)
                if "$1" in orjson.dumps(later).decode():  # without the values
                    plans.append(await self._explain(execute, analyze=analyze))
        finally:
            await self._connection.execute("DEALLOCATE block")
        return list(dict.fromkeys(fault for plan in plans for fault in self._judge(plan)))

    async def _prepare(self, sql: str) -> list[str]:
        await self._connection.execute(f"PREPARE block AS {sql}")
        types: list[str] = await self._connection.fetchval(
            "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'block'"
        )
        return types

    def _value(self, sql: str, number: int, kind: str, values: Mapping[int, object]) -> object:
        """Return the value of a parameter: the block's own, else that of its column, else that of its type."""
        if number in values:
            return values[number]
        is_list = kind.endswith("[]")
        for column in _columns_of(sql, number):
            if column in self._columns:
                value = self._columns[column]
                return [value] if is_list and not isinstance(value, list) else value
        value = self._columns[f"({kind.removesuffix('[]')})"]
        return [value] if is_list and not isinstance(value, list) else value

    async def _explain(self, execute: str, *, analyze: bool) -> dict[str, Any]:
        transaction = self._connection.transaction()
        await transaction.start()
        try:
            options = "FORMAT JSON, ANALYZE, TIMING off" if analyze else "FORMAT JSON"
            plan = orjson.loads(await self._connection.fetchval(f"EXPLAIN ({options}) {execute}"))[0]["Plan"]
            assert isinstance(plan, dict)
            return plan
        finally:
            await transaction.rollback()

    def _judge(self, plan: dict[str, Any]) -> Iterator[str]:
        rows_read: dict[str, float] = {}
        for node in _nodes(plan):
            table = str(node.get("Relation Name"))
            if table not in self._sizes or "Scan" not in node["Node Type"] or node.get("Actual Loops") == 0:
                continue
            if node["Node Type"] == "Seq Scan":
                yield f"reads all of {table}"
                continue
            if "Actual Rows" not in node:
                continue
            loops = node["Actual Loops"]
            returned = node["Actual Rows"] * loops
            removed = (node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)) * loops
            rows_read[table] = rows_read.get(table, 0) + returned + removed
            if removed > _MIN_WASTED_ROWS and removed > _MAX_WASTE * returned:
                index = node.get("Index Name", "a bitmap")
                yield f"reads {removed:.0f} rows of {table} by {index} in vain, and {returned:.0f} to use"
        for table, rows in rows_read.items():
            if rows > _MAX_SHARE * self._sizes[table]:
                yield f"reads {rows:.0f} of the {self._sizes[table]} rows of {table}"


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _is_read(sql: str) -> bool:
    return re.search(r"(?<!FOR )\b(INSERT|UPDATE|DELETE|pg_\w*advisory\w*)\b", re.sub(r"--.*", "", sql)) is None


def _columns_of(sql: str, number: int) -> Iterator[str]:
    """Yield the columns that a parameter is compared with, or stands for in an `unnest`."""
    for match in re.finditer(_COMPARED.replace("{number}", str(number)), sql):
        yield match[1]
    for arguments, names in _UNNEST.findall(sql):
        numbers = [int(digits) for digits in re.findall(r"\$(\d+)", arguments)]
        if number in numbers:
            yield names.replace(" ", "").split(",")[numbers.index(number)]


def _quote(value: object) -> str:
    """Format a value as a literal, of which Postgres infers the type."""
    if value is None:
        return "NULL"
    return "'" + _text(value).replace("'", "''") + "'"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "{" + ",".join('"' + _text(part).replace("\\", "\\\\").replace('"', '\\"') + '"' for part in value) + "}"
    return str(value)
