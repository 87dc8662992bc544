"""Reconciliation of statements written by the sandbox: each kind of difference."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from commerce.kernel.clock import SystemClock, to_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.money import Money
from commerce.payments.model import Payment, Refund
from commerce.payments.provider_port import Provider, StatementLine
from commerce.payments.providers import open_providers
from commerce.payments.reconciliation import (
    DAY,
    Difference,
    RecordedDay,
    check_readable,
    compare,
    day_bounds,
    decode_statement,
    explain,
)
from commerce.payments.store import RecordedMovement
from config.payments import PaymentSettings
from config.settings import Settings
from ops.local.sandbox_setup import build_sandbox_settings
from ops.sandbox import payment_store
from ops.sandbox.faults import ProviderFaultRegistry
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.protocol import ProviderProtocol
from ops.sandbox.server import provider_protocols
from tests.support.payment_shop import provider_keys, write_keys

PROVIDERS = ("alipay", "wechatpay")
SINGLES = date(2026, 11, 11)
START, END = day_bounds(SINGLES)
NOON = to_ms(START) + 12 * 3_600_000


@dataclass
class ReconciliationKit:
    """The simulated providers, the statements that they write, and the adapters that read them."""

    store: payment_store.PaymentStore
    sandbox: dict[str, ProviderProtocol]
    adapters: dict[str, Provider]
    toml: str
    refunded: dict[UUID, UUID] = field(default_factory=dict)

    def pay(self, name: str, payment_id: UUID, fen: int = 500, at_ms: int = NOON) -> str:
        """Create a paid trade and return the provider's number of it."""
        number = f"T{payment_id.hex[:20]}"
        money = (fen, "CNY", "tea", "qr", "", "http://localhost/", "waiting", at_ms - 1_000, at_ms + 60_000)
        self.store.open_trade(payment_store.SimulatedTrade(name, payment_id.hex, number, *money))
        self.store.pay(name, payment_id.hex, at_ms)
        return number

    def refund(self, name: str, payment_id: UUID, refund_id: UUID, fen: int, at_ms: int = NOON) -> str:
        """Refund a part of a trade. Returns the number of the refund in statements."""
        number = f"R{refund_id.hex[:20]}"
        self.store.refund(payment_store.SimulatedRefund(name, refund_id.hex, payment_id.hex, number, fen, "", at_ms))
        trade = self.store.find_trade(name, payment_id.hex)
        assert trade is not None
        return trade.trade_no if name == "alipay" else number

    def statement(self, name: str, day: date = SINGLES) -> str:
        start, end = (to_ms(moment) for moment in day_bounds(day))
        trades, refunds = self.store.list_paid_trades(name, start, end), self.store.list_refunds(name, start, end)
        return self.sandbox[name].build_statement(trades, refunds)

    def read(self, name: str, day: date = SINGLES) -> list[StatementLine | str]:
        return self.adapters[name].read_statement(self.statement(name, day))


@asynccontextmanager
async def open_reconciliation_kit(home: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    """Create a kit with the settings that `floodgate up` makes."""
    write_keys(home / "sandbox" / "keys")
    toml, clock, store = build_sandbox_settings(settings, home), SystemClock(), payment_store.PaymentStore()
    keys = provider_keys()
    simulator = PaymentSimulator(store, clock, ProviderFaultRegistry())
    sandbox = {
        protocol.name: protocol for protocol in provider_protocols(store, clock, keys, "http://127.0.0.1:1", simulator)
    }
    payment_settings = PaymentSettings.model_validate(tomllib.loads(toml)["payments"])
    async with open_providers(payment_settings, clock, timeout_s=1, connections=1) as adapters:
        yield ReconciliationKit(store, sandbox, adapters, toml)
    store.close()


@pytest.fixture
async def kit(tmp_path: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    async with open_reconciliation_kit(tmp_path, settings) as reconciliation_kit:
        yield reconciliation_kit


def recorded_day(
    *day: RecordedMovement,
    around: Sequence[RecordedMovement] = (),
    early: Sequence[RecordedMovement] = (),
    late: Sequence[RecordedMovement] = (),
) -> RecordedDay:
    return RecordedDay(day, around, early, late)


def recorded_movement(
    payment_id: UUID, number: str | None, fen: int = 500, refund_id: UUID | None = None
) -> RecordedMovement:
    return RecordedMovement(payment_id, refund_id, Money(fen, "CNY"), number)


def kinds(differences: Sequence[Difference]) -> list[str]:
    return [difference.kind for difference in differences]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_statement_matching_records_has_no_difference(kit: ReconciliationKit, name: str) -> None:
    ids, refund_id = [uuid4() for _ in range(3)], uuid4()
    numbers = [kit.pay(name, payment_id, 100 + at) for at, payment_id in enumerate(ids)]
    refund_no = kit.refund(name, ids[0], refund_id, 40)
    records = [
        recorded_movement(payment_id, number, 100 + at)
        for at, (payment_id, number) in enumerate(zip(ids, numbers, strict=True))
    ]
    counted: list[None] = []
    report, unmatched = compare(
        kit.read(name),
        [],
        recorded_day(*records, recorded_movement(ids[0], refund_no, 40, refund_id)),
        SINGLES,
        lambda: counted.append(None),
    )
    assert (report.movements, report.matching, report.differences, unmatched) == (4, 4, [], [])
    assert len(counted) == 4
    assert compare(kit.read(name, SINGLES - DAY), [], recorded_day(), SINGLES - DAY)[0] == (0, 0, [])


@pytest.mark.parametrize("name", PROVIDERS)
async def test_statement_with_each_difference_is_reported(kit: ReconciliationKit, name: str) -> None:
    amount, number, missing, unknown_to_us, twice = (uuid4() for _ in range(5))
    refund_id, lost_refund_id = uuid4(), uuid4()
    records = [
        recorded_movement(amount, kit.pay(name, amount), 501),
        recorded_movement(missing, "T1"),
        recorded_movement(twice, kit.pay(name, twice)),
    ]
    kit.pay(name, number)
    records.append(recorded_movement(number, "another"))
    kit.pay(name, unknown_to_us)
    kit.refund(name, amount, refund_id, 100)
    other_no, old = uuid4(), uuid4()
    for refund in (other_no, old):
        kit.refund(name, twice, refund, 10)
    records += [recorded_movement(twice, "R1", 10, other_no), recorded_movement(twice, None, 10, old)]
    records += [recorded_movement(amount, None, 99, refund_id), recorded_movement(missing, "T1", 10, lost_refund_id)]
    lines = kit.read(name)
    lines += [line for line in lines if isinstance(line, StatementLine) and line[:2] == (twice, None)]
    lines.append("line 99: no cells")
    report, unmatched = compare(lines, [], recorded_day(*records), SINGLES)
    reasons = {(difference.kind, difference.key): difference.reason for difference in report.differences}
    assert reasons.keys() == {
        ("unreadable", None),
        ("duplicate", (twice, None)),
        ("amount", (amount, None)),
        ("amount", (amount, refund_id)),
        ("transaction", (number, None)),
        ("transaction", (twice, other_no)),
        ("not_in_statement", (missing, None)),
        ("not_in_statement", (missing, lost_refund_id)),
    }
    assert reasons["unreadable", None] == "line 99: no cells"
    assert "5.00 CNY and we recorded 5.01 CNY" in reasons["amount", (amount, None)]
    assert "transaction another" not in reasons["transaction", (number, None)]
    assert "we recorded another" in reasons["transaction", (number, None)]
    assert "hold the order's shipments" in reasons["not_in_statement", (missing, None)]
    assert "as refunded" in reasons["not_in_statement", (missing, lost_refund_id)]
    assert [line.payment_id for line in unmatched] == [unknown_to_us]
    assert (report.movements, report.matching) == (7, 2)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_movements_near_midnight_match_other_day(kit: ReconciliationKit, name: str) -> None:
    """We may record it on the adjacent day; with that day's statement it matches."""
    early, late, noon = uuid4(), uuid4(), uuid4()
    after = kit.pay(name, early, at_ms=to_ms(END) + 2_000)
    before = kit.pay(name, late, at_ms=to_ms(END) - 2_000)
    # We learned of the late one after midnight, and recorded the early one at the end of the day before.
    records = recorded_day(
        recorded_movement(early, after),
        around=[recorded_movement(late, before)],
        late=[recorded_movement(early, after)],
    )
    report, unmatched = compare(kit.read(name), [], records, SINGLES)
    assert unmatched == []
    assert (report.matching, kinds(report.differences)) == (1, ["near_midnight"])
    assert "2026-11-12" in report.differences[0].reason
    report, _ = compare(kit.read(name), kit.read(name, SINGLES + DAY), records, SINGLES)
    assert (report.matching, report.differences) == (2, [])
    wrong = recorded_day(recorded_movement(early, "another"), around=[recorded_movement(late, before)])
    assert kinds(compare(kit.read(name), kit.read(name, SINGLES + DAY), wrong, SINGLES)[0].differences) == [
        "transaction"
    ]
    first = recorded_day(recorded_movement(noon, "T1"), early=[recorded_movement(noon, "T1")])
    assert "2026-11-10" in compare([], [], first, SINGLES)[0].differences[0].reason


def create_payment(**changes: object) -> Payment:
    values: dict[str, object] = dict.fromkeys(Payment.__struct_fields__)
    values |= {"payment_id": uuid4(), "order_id": uuid4(), "method": "alipay", "status": "captured"}
    return Payment(**values | changes)  # type: ignore[arg-type]


def create_refund(paid: Payment, status: str) -> Refund:
    values: dict[str, object] = dict.fromkeys(Refund.__struct_fields__)
    return Refund(**values | {"refund_id": uuid4(), "payment_id": paid.payment_id, "status": status})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("create_rows", "kind", "words"),
    [
        (lambda: (None, None), "missing_here", "no such payment"),
        (lambda: (create_payment(method="wechatpay"), None), "missing_here", "a payment by wechatpay"),
        (lambda: (create_payment(), None), "recorded_on_other_day", "both days"),
        (lambda: (create_payment(status="closed"), None), "missing_here", "our payment is closed"),
    ],
)
def test_unmatched_payment_line_is_explained(
    create_rows: Callable[[], tuple[Payment | None, Refund | None]], kind: str, words: str
) -> None:
    paid, refund = create_rows()
    line = StatementLine(paid.payment_id if paid else uuid4(), None, Money(500, "CNY"), "T1")
    difference = explain(line, "alipay", paid, refund)
    assert (difference.kind, difference.key) == (kind, (line.payment_id, None))
    assert words in difference.reason


def test_unmatched_refund_line_is_explained() -> None:
    paid = create_payment()
    line = StatementLine(paid.payment_id, uuid4(), Money(500, "CNY"), "T1")
    assert "requested no such refund" in explain(line, "alipay", paid, None).reason
    assert "requested no such refund" in explain(line, "alipay", paid, create_refund(create_payment(), "done")).reason
    assert "our refund is pending" in explain(line, "alipay", paid, create_refund(paid, "pending")).reason
    assert explain(line, "alipay", paid, create_refund(paid, "done")).kind == "recorded_on_other_day"


@pytest.mark.parametrize("name", PROVIDERS)
async def test_statement_in_each_encoding_is_decoded(kit: ReconciliationKit, name: str) -> None:
    kit.pay(name, uuid4())
    text = kit.statement(name)
    bare = text.replace("\r\n", "\n").replace("\n", "\r")
    raws = [*(text.encode(name) for name in ("utf-8", "utf-8-sig", "gb18030", "utf-16")), bare.encode("gb18030")]
    for raw in raws:
        assert len(kit.adapters[name].read_statement(decode_statement(raw))) == 1
    other = kit.statement(PROVIDERS[1 - PROVIDERS.index(name)])
    lines = kit.adapters[name].read_statement(other)
    with pytest.raises(Invalid, match=f"not a statement of {name}: line 1"):
        check_readable(name, lines)
    check_readable(name, kit.read(name))
    check_readable(name, kit.read(name, SINGLES - timedelta(days=9)))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it is empty"),
        (b"\r\n \n", "it is empty"),
        (b"PK\x03\x04rest", "unpack it"),
        (b"\x1f\x8b\x08", "unpack it"),
        (b"\xff\xff\xff", "not UTF-8 or GB18030 text"),
        (b"a\0b", "not UTF-8 or GB18030 text"),
    ],
)
def test_file_that_is_no_statement_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode_statement(raw)
