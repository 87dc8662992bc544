"""The part `rush` of the benchmarks: its customers, and the figures that it takes from their answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from commerce.kernel.tasks import cancel_and_wait
from loadtest.bench import report
from loadtest.bench.crowd import Crowd, open_crowd
from loadtest.bench.environment import BenchEnvironment
from loadtest.bench.late_redis import forward
from loadtest.bench.order_writing import WriteMeasurement
from loadtest.bench.pipeline_figures import PipelineFigures
from loadtest.bench.rush_crowds import find_calm_ms
from loadtest.bench.rush_figures import CrowdFigures, PatientFigures, RoomFigures, RushFigures
from loadtest.bench.rush_report import show_rush
from tests.support.sales import eventually

_ACCEPTED = b'HTTP/1.1 202 Accepted\r\nContent-Length: 17\r\n\r\n{"status":"done"}'
_REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def run_refusing_server() -> AsyncIterator[tuple[str, Counter[bytes]]]:
    """Run a server that refuses every order of an odd connection; yields its URL and the requests by key.

    Answers come in two parts, as some servers send them.
    """
    requests: Counter[bytes] = Counter()
    connections = iter(range(1_000_000))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = _REFUSED if next(connections) % 2 else _ACCEPTED
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                requests[head.partition(b"Idempotency-Key: ")[2].partition(b"\r\n")[0]] += 1
                await reader.readexactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
                writer.write(answer[:-2])
                await writer.drain()
                await asyncio.sleep(0.001)
                writer.write(answer[-2:])
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def make_environment(home: Path) -> BenchEnvironment:
    """Make the files of an environment that a crowd reads."""
    environment = SimpleNamespace(home=home, tokens=home / "tokens", order=home / "order.json")
    environment.tokens.write_text("Authorization: Bearer a\nAuthorization: Bearer b\n")
    environment.order.write_text('{"sku": "@"}')
    return cast(BenchEnvironment, environment)


async def count_answers(crowd: Crowd) -> Counter[str]:
    """Let a crowd order until it has several of both answers, and return their numbers."""
    counts: Counter[str] = Counter()

    async def has_both() -> bool:
        counts.update((await crowd.take_sample()).counts)
        return counts["202"] > 20 and counts["503"] > 1

    await eventually(has_both)
    return counts


async def test_only_impatient_customer_ignores_retry_after(tmp_path: Path) -> None:
    environment = make_environment(tmp_path)
    async with run_refusing_server() as (url, requests):
        async with open_crowd(environment, url, 2) as crowd:
            counts = await count_answers(crowd)
        assert counts["503"] > 5
        assert set(requests.values()) == {1}  # each under a key of its own
        requests.clear()
        async with open_crowd(environment, url, 2, is_patient=True, pause_ms=1) as crowd:
            counts = await count_answers(crowd)
    assert counts["202"] > 10 * counts["503"]
    assert max(requests.values()) > 1  # the same order again


async def test_prepared_requests_are_sent_once_each(tmp_path: Path) -> None:
    texts = [
        f"POST /v1/orders HTTP/1.1\r\nIdempotency-Key: {number}\r\nContent-Length: 0\r\n\r\n" for number in range(30)
    ]
    async with (
        run_refusing_server() as (url, requests),
        open_crowd(make_environment(tmp_path), url, 1, requests=texts, is_once=True) as crowd,
    ):

        async def is_done() -> bool:
            return len(requests) == len(texts)

        await eventually(is_done)
        sample = await crowd.take_sample()
    assert requests == {f"{number}".encode(): 1 for number in range(30)}
    assert sample.accepted + sample.refused <= 30


async def test_replies_of_late_redis_come_late_and_in_sequence(tmp_path: Path) -> None:
    delay_s = 0.05

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    target, late = tmp_path / "redis", tmp_path / "late"
    server = await asyncio.start_unix_server(echo, target)
    forwarding = asyncio.create_task(forward(str(late), str(target), delay_s))

    async def is_listening() -> bool:
        return late.exists()

    await eventually(is_listening)
    reader, writer = await asyncio.open_unix_connection(late)
    loop = asyncio.get_running_loop()
    started = loop.time()
    writer.writelines(b"%d\n" % number for number in range(100))
    assert [await reader.readline() for _ in range(100)] == [b"%d\n" % number for number in range(100)]
    assert loop.time() - started >= delay_s * 0.9
    writer.close()
    await cancel_and_wait(forwarding)
    server.close()


@pytest.mark.parametrize(
    ("after", "calm_ms"),
    [
        ([(10.05, 5.0, True), (10.15, 9.0, True)], 0.0),
        ([(9.95, 500.0, False), (10.05, 5.0, True)], 0.0),  # before the crowd left
        ([(10.05, 5.0, True), (10.25, 5.0, False), (10.35, 5.0, True)], 300.0),
        ([(10.05, 500.0, True), (10.15, 5.0, True)], 100.0),
        ([], 2_000.0),
    ],
)
def test_calm_begins_after_last_slow_or_refused_slice(after: list[tuple[float, float, bool]], calm_ms: float) -> None:
    quiet = [(1.0, 5.0, True)] * 100
    assert find_calm_ms(quiet, after, 10.0) == pytest.approx(calm_ms)


def crowd(per_s: float, p99_ms: float | None = None) -> CrowdFigures:
    patient = PatientFigures(1, 0, 1.0, p99_ms, p99_ms) if p99_ms is not None else None
    return CrowdFigures(6_000, per_s, 0.5, {}, 1.0, {}, patient, 200.0 if patient else None)


def test_ratios_compare_with_own_best_and_best_peer() -> None:
    rush = RushFigures(
        gateway={256: [crowd(20_000)], 6_000: [crowd(17_000, 90.0), crowd(19_000, 110.0), crowd(1, 100.0)]},
        peers={
            "floodgate": [crowd(16_000), crowd(20_000), crowd(17_000)],
            "nginx": [crowd(2_000)] * 3,
            "Fastify": [crowd(8_000), crowd(4_000)],
        },
    )
    assert rush.compute_ratios() == {
        "gateway_6000_vs_best": 0.85,
        "gateway_6000_p99_ms": 100.0,
        "gateway_6000_calm_after_ms": 200.0,
        "gateway_vs_best_peer": 5.0,  # of 2, 5 and 8.5
    }


def test_ratios_of_a_room_count_every_wrong_turn(capsys: pytest.CaptureFixture[str]) -> None:
    room = RoomFigures(
        customers=200_000,
        joined_over_http=150_000,
        joins_per_s=1_000,
        join_p99_ms=20,
        bytes_per_person=90,
        draw_s=4,
        reads_per_s=40_000,
        reads_p99_ms=9,
        known_after_s=0.25,
        ended_after_s=2.5,
        sold=1_000,
        accepted_early=1,
        accepted_twice=2,
        accepted_out_of_order=4,
        audit_differences=8,
    )
    rush = RushFigures(room=room)
    rush.ratios = rush.compute_ratios()
    assert rush.ratios == {
        "room_joins_per_s": 1_000,
        "room_reads_per_s": 40_000,
        "room_bytes_per_person": 90,
        "room_draw_s": 4,
        "room_known_after_s": 0.25,
        "room_wrong_turns": 7,
        "room_audit_differences": 8,
    }
    show_rush(rush)
    assert "waiting room of 200,000: 150,000 joined over HTTP" in capsys.readouterr().out


def test_rush_and_other_parts_are_written_by_different_runs(tmp_path: Path) -> None:
    def make_figures(**parts: Any) -> report.Figures:
        return report.Figures(at=datetime.now(UTC), machine={}, options={}, **parts)

    def read() -> dict[str, Any]:
        return msgspec.json.decode((tmp_path / "latest.json").read_bytes(), type=dict[str, Any])

    writing = [WriteMeasurement(1, 100.0, 200.0, {}, 0.0)]
    report.write(make_figures(writing=writing, skipped={"Fastify": "a", "rush: late": "b"}), tmp_path)
    rush = make_figures(rush=RushFigures(audit_differences=0), skipped={"rush: reads": "c"})
    assert not rush.is_empty()
    report.write(rush, tmp_path)
    both = read()
    assert both["ratios"] == {"writer_vs_copy": 0.5}
    assert both["rush"]["audit_differences"] == 0
    assert both["left_out"] == {"Fastify": "a", "rush: reads": "c"}
    report.write(make_figures(pipeline=PipelineFigures(ratios={"paid_cpu_ms": 2.5})), tmp_path)
    report.write(make_figures(writing=writing), tmp_path)
    assert read()["rush"] == both["rush"]
    assert read()["pipeline"]["ratios"] == {"paid_cpu_ms": 2.5}
