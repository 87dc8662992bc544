"""`floodgate cash`, `payment balances` and `payment post-payouts` as staff use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.settings import Settings
from ops.services import CliServices
from tests.commerce.test_reconciliation import ReconciliationKit, open_reconciliation_kit
from tests.ledger.test_statement_postings import ALIPAY_FUNDS
from tests.support.commands import Command, make_command
from tests.support.processes import Processes


@pytest.fixture
async def kit(tmp_path: Path, settings: Settings) -> AsyncIterator[ReconciliationKit]:
    async with open_reconciliation_kit(tmp_path / "accounts", settings) as reconciliation_kit:
        yield reconciliation_kit


@pytest.fixture
def floodgate(settings: Settings, kit: ReconciliationKit, tmp_path: Path) -> Command:
    """Return a function that runs a command of a shop with accounts at both providers."""
    config = tmp_path / "floodgate.toml"
    config.write_text(kit.toml)
    return make_command(Processes(settings, tmp_path).environment() | {"FLOODGATE_CONFIG": str(config)})


async def test_cash_is_shown_and_deposited(floodgate: Command, shop: CliServices) -> None:
    assert (await floodgate("cash", "balances"))[1] == "nobody holds cash\n"
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO ledger (posting, account, amount_minor, currency, at) VALUES "
            "('cash 1', 'cash:driver:V1', 50000, 'CNY', now()), ('cash 1', 'collected', -50000, 'CNY', now())"
        )
    assert "driver:V1" in (await floodgate("cash", "balances"))[1]
    deposit = ("cash", "deposit", "driver:V1", "490.00", "CNY", "--to", "shop", "--key", "k")
    assert await floodgate(*deposit) == (0, "490.00 CNY of driver:V1 are deposited; 10.00 CNY are left\n")
    status, output = await floodgate("cash", "deposit", "driver:V1", "10.01", "CNY", "--key", "l")
    assert (status, "driver:V1 has 10.00 CNY" in output) == (1, True), output
    missing = ("cash", "deposit", "driver:V1", "0", "CNY", "--missing", "10.00", "--key", "m")
    status, output = await floodgate(*missing)
    assert (status, "say in `reason`" in output) == (1, True), output
    assert (await floodgate(*missing, "--reason", "a forged note"))[0] == 0
    status, output = await floodgate("payment", "balances")
    assert (status, "differences" in output, "490.00 CNY" in output) == (0, True, True), output


async def test_payouts_are_posted_once(floodgate: Command, tmp_path: Path) -> None:
    file = tmp_path / "funds.csv"
    file.write_text(ALIPAY_FUNDS, encoding="gb18030")
    arguments = ("payment", "post-payouts", file, "--provider", "alipay")
    status, output = await floodgate(*arguments)
    assert (status, "1 payouts posted (200.00 CNY), 0 were posted before" in output) == (1, True), output
    assert "103: a payout that came back" in output
    assert "0 payouts posted (nothing), 1 were posted before" in (await floodgate(*arguments))[1]
