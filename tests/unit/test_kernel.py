"""Money, ids, clock, SQL files, retry delays."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commerce.kernel import money
from commerce.kernel.clock import from_ms, to_ms
from commerce.kernel.ids import IdGenerator, created_ms, parse_uuid_hex
from commerce.kernel.jobs import RetryPolicy
from commerce.kernel.sql import Queries, load_queries

_HEX = "017f22e279b07cc398c4dc0c0c07398f"


class FakeClock:
    """A clock that only `sleep` moves."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("2.55", "GBP", 255),
        ("2.5", "GBP", 250),
        ("2", "GBP", 200),
        (" 0 ", "CNY", 0),
        ("7", "JPY", 7),
        ("1.234", "KWD", 1234),
    ],
)
def test_amount_is_parsed_to_minor_units(text: str, currency: str, minor: int) -> None:
    assert money.parse_money(text, currency) == minor


@pytest.mark.parametrize("text", ["", "-1", "+1", "1,5", "1.", ".5", "1e2", "NaN", "٣", "1.555", "9" * 17])
def test_malformed_amount_is_refused(text: str) -> None:
    with pytest.raises(money.MoneyError):
        money.parse_money(text, "GBP")


def test_amount_in_unknown_currency_is_still_shown() -> None:
    assert money.format_money(255, "XXQ") == "255 minor units of XXQ"


@pytest.mark.parametrize("currency", ["XXQ", "gbp", "", "XAU"])
def test_unknown_currency_is_refused(currency: str) -> None:
    with pytest.raises(money.MoneyError):
        money.minor_digits(currency)


@given(st.integers(0, money.MAX_MINOR), st.sampled_from(["CNY", "JPY", "KWD", "GBP"]))
def test_formatted_amount_parses_back(amount: int, currency: str) -> None:
    text, code = money.format_money(amount, currency).split()
    assert (money.parse_money(text, code), code) == (amount, currency)


@given(st.integers(0, 2**45), st.binary(min_size=10, max_size=10))
def test_new_id_is_uuid7_with_time(ms: int, random: bytes) -> None:
    new_id = IdGenerator(FakeClock(ms), lambda count: random * (count // 10)).new()
    assert (new_id.version, new_id.variant) == (7, "specified in RFC 4122")
    assert created_ms(new_id) == ms
    assert UUID(bytes=new_id.bytes) == new_id


def test_later_ids_are_greater_and_unique() -> None:
    clock = FakeClock(1)
    ids = IdGenerator(clock)
    new_ids = []
    for _ in range(100):
        new_ids.append(ids.new())
        clock.ms += 1
    assert new_ids == sorted(new_ids)
    assert len({IdGenerator().new() for _ in range(1_000)}) == 1_000


@given(st.integers(0, 253_402_300_799_999))
def test_milliseconds_survive_conversion(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
    assert from_ms(ms).tzinfo is UTC


def test_id_equals_example_of_rfc_9562() -> None:
    """RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC."""
    ms = to_ms(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC))
    random = bytes.fromhex("0CC318C4DC0C0C07398F")
    new_id = IdGenerator(FakeClock(ms), lambda count: random * (count // 10)).new()
    assert new_id.hex.startswith("017f22e279b07cc3")


@pytest.mark.parametrize(
    ("text", "is_id"),
    [
        (_HEX, True),
        *(
            (text, False)
            for text in (_HEX.upper(), f"{{{_HEX}}}", str(UUID(_HEX)), f"urn:uuid:{_HEX}", "", "x" * 32, None)
        ),
        *((text, False) for text in (f"{_HEX}0", _HEX[:-1], f"{_HEX[:-2]}_1")),
    ],
)
def test_id_is_parsed_from_its_hex_only(text: str | None, *, is_id: bool) -> None:
    assert parse_uuid_hex(text) == (UUID(_HEX) if is_id else None)


def test_queries_are_loaded_by_block_name() -> None:
    queries = load_queries("commerce.orders")
    assert queries.find_existing.startswith("SELECT")
    with pytest.raises(AttributeError, match="no block"):
        _ = queries.nonsense
    assert Queries({"a": "SELECT 1"}).all() == {"a": "SELECT 1"}
    assert resources.files("commerce.orders").joinpath("queries.sql").is_file()


def test_retry_delays_double_and_spread() -> None:
    low, high = (RetryPolicy(100, 2, 30, 10, random=lambda share=share: share) for share in (0.0, 1.0))
    assert [high.delay_ms(attempt) for attempt in (1, 2, 3, 6, 500)] == [100, 200, 400, 2_000, 2_000]
    assert [low.delay_ms(attempt) for attempt in (1, 2, 6)] == [50, 100, 1_000]
