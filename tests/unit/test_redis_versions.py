"""Readers of the files of Redis and of Valkey, and versions in notes, snapshots and programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.redis_versions import (
    VALKEY,
    RedisVersion,
    explain_unreadable,
    parse_mark,
    parse_snapshot_version,
    read_server_version,
)

VALKEY_8, VALKEY_9 = RedisVersion(8, 1, VALKEY), RedisVersion(9, 1, VALKEY)
READERS = {
    RedisVersion(6, 2): {RedisVersion(6, 2), RedisVersion(7, 0), RedisVersion(7, 2), RedisVersion(8, 0), VALKEY_8},
    RedisVersion(7, 0): {RedisVersion(7, 0), RedisVersion(7, 2), RedisVersion(8, 0), VALKEY_8},
    RedisVersion(7, 4): {RedisVersion(7, 0), RedisVersion(7, 2), RedisVersion(8, 0)},
    RedisVersion(8, 0): {RedisVersion(8, 0)},
    VALKEY_8: {RedisVersion(7, 2), RedisVersion(8, 0), VALKEY_8},
    VALKEY_9: set[RedisVersion](),
}
"""by the version that wrote the data; Valkey 9 is added where Valkey 8 or itself is"""


@pytest.mark.parametrize("writer", READERS, ids=str)
def test_server_that_cannot_read_the_data_is_named_with_reason(writer: RedisVersion) -> None:
    servers = {RedisVersion(6, 2), RedisVersion(7, 0), RedisVersion(7, 2), RedisVersion(8, 0), VALKEY_8, VALKEY_9}
    expected = READERS[writer] | ({VALKEY_9} if writer == VALKEY_9 or VALKEY_8 in READERS[writer] else set())
    reasons = {server: explain_unreadable(server, writer) for server in servers}
    assert {server for server, reason in reasons.items() if reason is None} == expected
    if writer != RedisVersion(6, 2):  # it ignores what newer ones write
        assert reasons[RedisVersion(6, 2)] == "would start empty"
    assert set(reasons.values()) <= {None, "would start empty", "cannot read it"}


@pytest.mark.parametrize("version", [RedisVersion(7, 0), RedisVersion(8, 12), VALKEY_9], ids=str)
def test_mark_is_read_as_written(version: RedisVersion) -> None:
    assert parse_mark(f"{version.to_mark()}\n") == version


@pytest.mark.parametrize("text", ["", "\n", "x", "Valkey", "Valkey x", "7.0 or so", "-1", "Redis"])
def test_broken_mark_is_no_version(text: str) -> None:
    assert parse_mark(text) is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"REDIS0009\xfa\x09redis-ver", None),
        (b"REDIS0010\xfa", None),
        (b"REDIS0011\xfa", RedisVersion(7, 2)),
        (b"REDIS0012\xfa", RedisVersion(7, 4)),
        (b"VALKEY080\xfa", RedisVersion(9, 0, VALKEY)),
        (b"*2\r\n$6\r\nSELECT", None),
        (b"", None),
    ],
)
def test_snapshot_names_the_oldest_version_that_writes_it(header: bytes, expected: RedisVersion | None) -> None:
    assert parse_snapshot_version(header) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0", RedisVersion(7, 0)),
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc", VALKEY_9),
        ("something else v=9.1.2", None),
    ],
)
def test_version_of_program_is_read(tmp_path: Path, output: str, expected: RedisVersion | None) -> None:
    program = tmp_path / "server"
    program.write_text(f"#!/bin/sh\necho '{output}'\n")
    program.chmod(0o755)
    assert read_server_version(program) == expected
    assert read_server_version(tmp_path / "missing") is None
