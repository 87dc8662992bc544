"""A provider's statement against our books: each kind of difference, with statements as the sandbox writes them."""

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
    bounds,
    check_readable,
    compare,
    decode,
    explain,
)
from commerce.payments.store import RecordedMovement
from config.settings import PaymentSettings, Settings
from ops.local.sandbox_setup import build_sandbox_settings
from ops.sandbox import payment_store
from ops.sandbox.faults import ProviderFaultRegistry
from ops.sandbox.keys import read_keys
from ops.sandbox.payment_simulator import PaymentSimulator
from ops.sandbox.protocol import SandboxProtocol
from ops.sandbox.server import _protocols

NAMES = ("alipay", "wechatpay")
SINGLES = date(2026, 11, 11)
START, END = bounds(SINGLES)
NOON = to_ms(START) + 12 * 3_600_000


@dataclass
class ReconciliationKit:
    """The providers' books, the statements that they write, and the adapters that read them."""

    bank: payment_store.PaymentStore
    sandbox: dict[str, SandboxProtocol]
    adapters: dict[str, Provider]
    toml: str
    refunded: dict[UUID, UUID] = field(default_factory=dict)

    def pay(self, name: str, payment_id: UUID, fen: int = 500, at_ms: int = NOON) -> str:
        """Gives the provider's number."""
        number = f"T{payment_id.hex[:20]}"
        money = (fen, "CNY", "tea", "qr", "", "http://localhost/", "waiting", at_ms - 1_000, at_ms + 60_000)
        self.bank.open_trade(payment_store.SimulatedTrade(name, payment_id.hex, number, *money))
        self.bank.pay(name, payment_id.hex, at_ms)
        return number

    def give_back(self, name: str, payment_id: UUID, refund_id: UUID, fen: int, at_ms: int = NOON) -> None:
        number = f"R{refund_id.hex[:20]}"
        self.bank.refund(payment_store.SimulatedRefund(name, refund_id.hex, payment_id.hex, number, fen, "", at_ms))

    def statement(self, name: str, day: date = SINGLES) -> str:
        start, end = (to_ms(moment) for moment in bounds(day))
        trades, refunds = self.bank.trades(name, start, end), self.bank.refunds(name, start, end)
        return self.sandbox[name].statement(trades, refunds)

    def read(self, name: str, day: date = SINGLES) -> list[StatementLine | str]:
        return self.adapters[name].read_statement(self.statement(name, day))


@asynccontextmanager
async def open_reconciliation_kit(home: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    """With the keys that `floodgate up` would make."""
    toml, clock, books = build_sandbox_settings(settings, home), SystemClock(), payment_store.PaymentStore()
    keys = read_keys(home / "sandbox" / "keys")
    plans = PaymentSimulator(books, clock, ProviderFaultRegistry())
    sandbox = {one.name: one for one in _protocols(books, clock, keys, "http://127.0.0.1:1", plans)}
    agreed = PaymentSettings.model_validate(tomllib.loads(toml)["payments"])
    async with open_providers(agreed, clock, timeout_s=1, connections=1) as adapters:
        yield ReconciliationKit(books, sandbox, adapters, toml)
    books.close()


@pytest.fixture
async def kit(tmp_path: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    async with open_reconciliation_kit(tmp_path, settings) as found:
        yield found


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


def kinds(found: Sequence[Difference]) -> list[str]:
    return [one.kind for one in found]


@pytest.mark.parametrize("name", NAMES)
async def test_what_agrees_is_no_difference(kit: ReconciliationKit, name: str) -> None:
    ids, back = [uuid4() for _ in range(3)], uuid4()
    numbers = [kit.pay(name, one, 100 + at) for at, one in enumerate(ids)]
    kit.give_back(name, ids[0], back, 40)
    mine = [recorded_movement(one, number, 100 + at) for at, (one, number) in enumerate(zip(ids, numbers, strict=True))]
    steps: list[None] = []
    found, unknown = compare(
        kit.read(name),
        [],
        recorded_day(*mine, recorded_movement(ids[0], numbers[0], 40, back)),
        SINGLES,
        lambda: steps.append(None),
    )
    assert (found.movements, found.matching, found.differences, unknown) == (4, 4, [], [])
    assert len(steps) == 4
    assert compare(kit.read(name, SINGLES - DAY), [], recorded_day(), SINGLES - DAY)[0] == (0, 0, [])


@pytest.mark.parametrize("name", NAMES)
async def test_every_kind_of_difference(kit: ReconciliationKit, name: str) -> None:
    amount, number, missing, unknown_to_us, twice = (uuid4() for _ in range(5))
    back, lost_back = uuid4(), uuid4()
    mine = [
        recorded_movement(amount, kit.pay(name, amount), 501),
        recorded_movement(missing, "T1"),
        recorded_movement(twice, kit.pay(name, twice)),
    ]
    kit.pay(name, number)
    mine.append(recorded_movement(number, "another"))
    kit.pay(name, unknown_to_us)
    kit.give_back(name, amount, back, 100)
    mine += [recorded_movement(amount, None, 99, back), recorded_movement(missing, "T1", 10, lost_back)]
    lines = kit.read(name)
    lines += [line for line in lines if isinstance(line, StatementLine) and line.payment_id == twice]
    lines.append("line 99: no cells")
    found, unknown = compare(lines, [], recorded_day(*mine), SINGLES)
    about = {(one.kind, one.key): one.reason for one in found.differences}
    assert about.keys() == {
        ("unreadable", None),
        ("duplicate", (twice, None)),
        ("amount", (amount, None)),
        ("amount", (amount, back)),
        ("transaction", (number, None)),
        ("not_in_statement", (missing, None)),
        ("not_in_statement", (missing, lost_back)),
    }
    assert about["unreadable", None] == "line 99: no cells"
    assert "5.00 CNY and we have 5.01 CNY" in about["amount", (amount, None)]
    assert "transaction another" not in about["transaction", (number, None)]
    assert "we have another" in about["transaction", (number, None)]
    assert "hold the goods back" in about["not_in_statement", (missing, None)]
    assert "given back" in about["not_in_statement", (missing, lost_back)]
    assert [line.payment_id for line in unknown] == [unknown_to_us]
    assert (found.movements, found.matching) == (5, 1)


@pytest.mark.parametrize("name", NAMES)
async def test_around_midnight(kit: ReconciliationKit, name: str) -> None:
    """On our side it may be the other day; where the other day's statement is given it is settled by that."""
    early, late, noon = uuid4(), uuid4(), uuid4()
    after = kit.pay(name, early, at_ms=to_ms(END) + 2_000)
    before = kit.pay(name, late, at_ms=to_ms(END) - 2_000)
    # We learned of the late one after midnight, and have the early one at the end of the day before.
    mine = recorded_day(
        recorded_movement(early, after),
        around=[recorded_movement(late, before)],
        late=[recorded_movement(early, after)],
    )
    found, unknown = compare(kit.read(name), [], mine, SINGLES)
    assert unknown == []
    assert (found.matching, kinds(found.differences)) == (1, ["near_midnight"])
    assert "2026-11-12" in found.differences[0].reason
    found, _ = compare(kit.read(name), kit.read(name, SINGLES + DAY), mine, SINGLES)
    assert (found.matching, found.differences) == (2, [])
    wrong = recorded_day(recorded_movement(early, "another"), around=[recorded_movement(late, before)])
    assert kinds(compare(kit.read(name), kit.read(name, SINGLES + DAY), wrong, SINGLES)[0].differences) == [
        "transaction"
    ]
    first = recorded_day(recorded_movement(noon, "T1"), early=[recorded_movement(noon, "T1")])
    assert "2026-11-10" in compare([], [], first, SINGLES)[0].differences[0].reason


def _payment(**changes: object) -> Payment:
    given: dict[str, object] = dict.fromkeys(Payment.__struct_fields__)
    given |= {"payment_id": uuid4(), "order_id": uuid4(), "method": "alipay", "status": "captured"}
    return Payment(**given | changes)  # type: ignore[arg-type]


def _refund(paid: Payment, status: str) -> Refund:
    given: dict[str, object] = dict.fromkeys(Refund.__struct_fields__)
    return Refund(**given | {"refund_id": uuid4(), "payment_id": paid.payment_id, "status": status})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: (None, None), "missing_here", "no such payment"),
        (lambda: (_payment(method="wechatpay"), None), "missing_here", "a payment by wechatpay"),
        (lambda: (_payment(), None), "recorded_on_other_day", "both days"),
        (lambda: (_payment(status="closed"), None), "missing_here", "with us it is closed"),
    ],
)
def test_a_payment_that_is_not_in_our_books(
    make: Callable[[], tuple[Payment | None, Refund | None]], kind: str, words: str
) -> None:
    paid, refund = make()
    line = StatementLine(paid.payment_id if paid else uuid4(), None, Money(500, "CNY"), "T1")
    found = explain(line, "alipay", paid, refund)
    assert (found.kind, found.key) == (kind, (line.payment_id, None))
    assert words in found.reason


def test_a_refund_that_is_not_in_our_books() -> None:
    paid = _payment()
    line = StatementLine(paid.payment_id, uuid4(), Money(500, "CNY"), "T1")
    assert "asked for no such refund" in explain(line, "alipay", paid, None).reason
    assert "asked for no such refund" in explain(line, "alipay", paid, _refund(_payment(), "done")).reason
    assert "the refund is pending" in explain(line, "alipay", paid, _refund(paid, "pending")).reason
    assert explain(line, "alipay", paid, _refund(paid, "done")).kind == "recorded_on_other_day"


@pytest.mark.parametrize("name", NAMES)
async def test_files_as_they_come(kit: ReconciliationKit, name: str) -> None:
    kit.pay(name, uuid4())
    text = kit.statement(name)
    for raw in (text.encode(), text.encode("utf-8-sig"), text.encode("gb18030")):
        assert len(kit.adapters[name].read_statement(decode(raw))) == 1
    other = kit.statement(NAMES[1 - NAMES.index(name)])
    lines = kit.adapters[name].read_statement(other)
    with pytest.raises(Invalid, match=f"no statement of {name}: line 1"):
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
        (b"\xff\xff\xff", "neither UTF-8 nor GB18030"),
        (b"a\0b", "neither UTF-8 nor GB18030"),
    ],
)
def test_what_is_no_statement(raw: bytes, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        decode(raw)
