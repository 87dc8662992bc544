"""The part `crowd` of the benchmarks: its customers and their tokens, and what it computes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from commerce.kernel.clock import SystemClock
from config.auth import AuthSettings
from gateway.auth import Authenticator, sign_token
from loadtest.bench import report
from loadtest.bench.crowd import open_crowd
from loadtest.bench.stranger_figures import CIRCUMSTANCES, StrangerFigures, StrangerTurn
from loadtest.bench.stranger_tokens import write_stranger_tokens
from loadtest.bench.strangers import Counters, compute_turn
from lua import StreamCalls
from tests.loadtest.test_rush import make_environment, run_refusing_server
from tests.support.sales import eventually
from tests.unit.test_kernel import FakeClock


def test_tokens_of_strangers_are_those_that_the_shop_signs(tmp_path: Path) -> None:
    settings = AuthSettings.model_validate({"keys": [{"kid": "a", "secret": "a secret long enough for HS256 keys"}]})
    clock = FakeClock(SystemClock().now_ms())
    write_stranger_tokens(tmp_path / "users", settings, clock, "run", 12)
    headers = [line.removeprefix("Authorization: ") for line in (tmp_path / "users").read_text().splitlines()]
    subjects = [f"stranger-run-{number}" for number in range(12)]
    assert headers == [
        f"Bearer {sign_token(settings, clock, subject, 'floodgate', (), 86_400)}" for subject in subjects
    ]
    authenticator = Authenticator(settings, clock)
    assert [authenticator.identify_customer(header).subject for header in headers] == subjects


async def test_customers_that_hang_up_connect_again_and_each_user_orders_once(tmp_path: Path) -> None:
    environment = make_environment(tmp_path)
    environment.tokens.write_text("".join(f"Authorization: Bearer {number}\n" for number in range(30)))
    async with (
        run_refusing_server() as (url, requests),
        open_crowd(environment, url, 1, rotates_users=True, is_once=True, new_connection_share=1) as crowd,
    ):

        async def is_done() -> bool:
            return len(requests) == 30

        await eventually(is_done)
        sample = await crowd.take_sample()
    assert set(requests.values()) == {1}
    # The server refuses what comes over every other connection, so there was one per order.
    assert 14 <= sample.counts["202"] <= 15
    assert 14 <= sample.counts["503"] <= 15


def test_turn_counts_costs_by_accepted_and_by_stored_orders() -> None:
    before = Counters(100, 40, StreamCalls(5, 7, 7, 1_000), 1_000)
    after = Counters(1_100, 240, StreamCalls(15, 10, 9, 3_000), 901_000)
    used_s = {"gateway": 0.03, "redis": 0.01, "writer": 0.008, "postgres": 0.016}
    turn = compute_turn(before, after, used_s, 2.0)
    assert turn == StrangerTurn(
        accepted=1_000,
        stored=800,
        per_s=500,
        cpu_us=pytest.approx({"gateway": 30, "redis": 10, "writer": 10, "postgres": 20}),  # type: ignore[arg-type]
        storing_redis_us=2,
        calls_per_batch=1.5,  # to 10 reservations 3 reads and 2 acknowledgements
        aof_bytes=900,
    )
    assert compute_turn(before, after, {"gateway": 0.03, "redis": 0.01}, 2.0).stored == 0


def test_ratios_of_strangers_are_medians_of_neighbours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def create_turns(*gateway_us: float, **others: float) -> list[StrangerTurn]:
        return [
            StrangerTurn(100, 100, 1_000.0, {"gateway": us, "redis": 10.0, **others}, 1.0, 2.0, 900.0)
            for us in gateway_us
        ]

    strangers = StrangerFigures(
        turns={
            "known": create_turns(30, 70, 30),
            "strangers": create_turns(36, 80, 35),
            "new_connections": create_turns(40, 88, 38),
            "two_sales": create_turns(45, 98, 38),
            "stored": create_turns(46, 100, 39, writer=6.0, postgres=9.0),
        }
    )
    assert list(strangers.turns) == list(CIRCUMSTANCES)
    strangers.ratios = strangers.compute_ratios()
    assert strangers.ratios == {
        "repeats": 3,
        "crowd_cpu_vs_known": 1.225,
        "second_sale_cpu": 1.1,
        "persisted_cpu_us": 71,
        "storing_redis_us": 1,
        "strangers_extra_us": 6,
        "new_connections_extra_us": 4,
        "two_sales_extra_us": 5,
        "stored_extra_us": 16,
    }
    figures = report.Figures(at=datetime.now(UTC), machine={}, options={}, crowd=strangers)
    report.show(figures)
    assert "'crowd_cpu_vs_known': 1.225" in capsys.readouterr().out
    report.write(figures, tmp_path)
    kept = msgspec.json.decode((tmp_path / "latest.json").read_bytes())
    assert kept["crowd"]["ratios"] == strangers.ratios
    assert len(kept["crowd"]["turns"]["stored"]) == 3
