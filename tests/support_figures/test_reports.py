"""Figures of support against rows that the test counts itself."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import UUID

import pytest

from commerce.kernel.errors import Invalid
from commerce.support_figures.model import AftersalesReport
from commerce.support_figures.service import SupportFigures
from config.settings import Settings
from ops.services import CliServices
from tests.support.case_shop import CaseShop, open_case_shop
from tests.support.commands import Command, make_command
from tests.support.gateway import TestGateway
from tests.support.processes import Processes
from tests.support.shipping_shop import ShippingShop

_START = datetime(2026, 11, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)


@pytest.fixture
def cases(ship: ShippingShop) -> CaseShop:
    return open_case_shop(ship)


@pytest.fixture
def floodgate(settings: Settings, tmp_path: Path) -> Command:
    return make_command(Processes(settings, tmp_path).environment())


async def _add_conversation(shop: CliServices, **values: Any) -> UUID:
    """Insert a question; `values` are columns."""
    row = {
        "conversation_id": shop.ids.new(),
        "user_id": "u1",
        "kind": "question",
        "subject": "where is it",
        "language": "en",
        "status": "open",
        "created_at": _START,
        "active_at": _START,
        **values,
    }
    if row["status"] == "closed":
        row |= {"resolved_at": _START, "closed_at": _START}
    names, places = ", ".join(row), ", ".join(f"${number + 1}" for number in range(len(row)))
    async with shop.db.connection() as connection:
        await connection.execute(f"INSERT INTO conversations ({names}) VALUES ({places})", *row.values())
    conversation_id: UUID = row["conversation_id"]
    return conversation_id


async def _add_run(
    shop: CliServices, conversation_id: UUID, kind: str, hours: float, *, by: str = "staff anna", **values: Any
) -> None:
    """Insert a run that took `hours` of working time and twice as much of all time."""
    row = {
        "conversation_id": conversation_id,
        "kind": kind,
        "run_no": 1,
        "started_at": _START,
        "allowed_s": 7_200,
        "stopped_at": _START + 2 * hours * _HOUR,
        "stopped_by": by,
        "worked_s": int(hours * 3600),
        "is_late": hours > 2,
        **values,
    }
    names, places = ", ".join(row), ", ".join(f"${number + 1}" for number in range(len(row)))
    async with shop.db.connection() as connection:
        await connection.execute(f"INSERT INTO conversation_clocks ({names}) VALUES ({places})", *row.values())


async def _report(shop: CliServices, by: Any = "total", days: int = 30) -> AftersalesReport:
    return await SupportFigures(shop.db, shop.clock).report(_START, _START + timedelta(days=days), by)


def _percentile(values: Sequence[float], share: int) -> float:
    return quantiles(values, n=10, method="inclusive")[share // 10 - 1]


async def test_times_and_shares_of_clocks_are_those_of_their_runs(shop: CliServices) -> None:
    hours = [0.5, 1, 1.5, 2, 2.5, 3]
    for number, taken in enumerate(hours):
        question = await _add_conversation(shop)
        await _add_run(shop, question, "first_response", taken, by="staff anna" if number % 2 else "rule 1 of set 2")
    await _add_run(shop, question, "decision", 1, by="customer u1")
    await _add_run(shop, question, "decision", 4, run_no=2, allowed_s=None, is_late=False)
    await _add_run(shop, question, "money", 1, stopped_at=_START - _HOUR, started_at=_START - 2 * _HOUR)  # before it

    decision, response = (await _report(shop)).clocks
    assert (response.group, response.clock, response.count, response.late) == ("", "first_response", 6, 2)
    assert response.within_deadline == pytest.approx(4 / 6)
    assert response.worked_p50_s == pytest.approx(_percentile(hours, 50) * 3600)
    assert response.worked_p90_s == pytest.approx(_percentile(hours, 90) * 3600)
    assert response.passed_p90_s == pytest.approx(2 * _percentile(hours, 90) * 3600)
    # A clock that has no deadline counts for the times and not for the share.
    assert (decision.count, decision.after_reopen, decision.within_deadline) == (2, 1, 1)

    by_agent = {(clock.group, clock.clock): clock.count for clock in (await _report(shop, "agent")).clocks}
    assert by_agent == {
        ("staff anna", "first_response"): 3,
        ("rule 1 of set 2", "first_response"): 3,
        ("staff anna", "decision"): 1,  # the customer who ended the other one is no agent
    }
    by_reason = {(clock.group, clock.clock): clock.count for clock in (await _report(shop, "reason")).clocks}
    assert by_reason == {("question", "first_response"): 6, ("question", "decision"): 2}


async def test_backlog_and_satisfaction_are_counted_by_team(shop: CliServices) -> None:
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO support_teams (team_id, name, changed_at, actor) VALUES ('claims', 'Claims', now(), 'test')"
        )
    late = {"due_at": _START, "due_kind": "decision"}
    await _add_conversation(shop, team_id="claims", status="new", **late)
    await _add_conversation(shop, team_id="claims", unanswered=0, created_at=_START - timedelta(days=3))
    await _add_conversation(shop)
    rated = {"status": "closed", "satisfaction_requested_at": _START, "satisfaction_at": _START + _HOUR}
    for score in (5, 4, 1):
        await _add_conversation(shop, team_id="claims", satisfaction=score, **rated)
    await _add_conversation(shop, satisfaction=2, **{**rated, "satisfaction_at": _START - _HOUR})  # before the period

    report = await _report(shop, "team")
    nobody, claims = report.backlog
    assert (nobody.group, nobody.open, nobody.overdue) == ("", 1, 0)
    assert (claims.group, claims.open, claims.unanswered, claims.overdue) == ("claims", 2, 1, 1)
    assert claims.oldest_s - nobody.oldest_s == pytest.approx(3 * 86_400)
    [satisfaction] = report.satisfaction
    assert (satisfaction.group, satisfaction.answers, satisfaction.by_score) == ("claims", 3, [1, 0, 0, 1, 1])
    assert satisfaction.average == pytest.approx(10 / 3)


async def test_returns_have_rates_by_sku_reason_and_carrier(cases: CaseShop, shop: CliServices) -> None:
    first = await cases.add_delivered(("a", 3, 0), ("b", 5, 0))
    await cases.add_delivered(("a", 1, 0), user="u2")
    await cases.request(first, 2)
    declined = await cases.request(first, 1)
    await cases.act("decline", declined)
    now = datetime.fromtimestamp(shop.clock.now_ms() / 1000, UTC)
    day = timedelta(days=1)
    report = await SupportFigures(shop.db, shop.clock).report(now - day, now + day, "reason")
    by_key = {(figures.key, figures.value): figures for figures in report.returns}
    units = by_key["sku", "a"]
    assert (units.cases, units.units, units.delivered, units.rate) == (1, 2, 4, 0.5)
    assert ("sku", "b") not in by_key
    [reason] = [figures for figures in report.returns if figures.key == "reason"]
    assert (reason.units, reason.rate) == (2, 1)
    [carrier] = [figures for figures in report.returns if figures.key == "carrier"]
    assert (carrier.units, carrier.delivered, carrier.rate) == (2, 9, pytest.approx(2 / 9))


async def test_decisions_of_rules_are_counted_with_those_that_people_overturned(
    cases: CaseShop, shop: CliServices, floodgate: Command
) -> None:
    case_ids = [await cases.request(await cases.add_delivered(("a", 1, 0)), 1) for _ in range(4)]
    async with shop.db.connection() as connection:
        await connection.execute(
            "INSERT INTO case_rule_sets (version, rules, created_at, actor, reason) "
            "VALUES (1, '[{}]', now(), 'ann', 'new')"
        )
        decided = [(3, "decline", None), (3, "decline", "staff bob"), (None, "by_hand", None), (3, "decline", None)]
        for number, (case_id, (rule_no, outcome, by)) in enumerate(zip(case_ids, decided, strict=True)):
            at = _START - _HOUR if number == 3 else _START  # the last one is before the period
            await connection.execute(
                "INSERT INTO case_decisions (case_id, decision_no, at, rule_set_version, rule_no, outcome, inputs, "
                "reasons, case_version, overturned_at, overturned_by) "
                "SELECT $1, 1, $2::timestamptz, 1, $3, $4, '{}', '{because}', 1, "
                "CASE WHEN $5::text IS NOT NULL THEN $2::timestamptz END, $5",
                *(case_id, at, rule_no, outcome, by),
            )
    counted = [
        (rule.rule_no, rule.outcome, rule.decisions, rule.overturned) for rule in (await _report(shop)).decisions
    ]
    assert counted == [(3, "decline", 2, 1), (None, "by_hand", 1, 0)]
    period = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-12-01T00:00:00Z")
    status, text = await floodgate("report", "aftersales", *period)
    assert (status, "overturned" in text, "set 1" in text) == (0, True, True), text


@pytest.mark.parametrize("days", [0, -1, 93])
async def test_report_of_bad_period_is_refused(shop: CliServices, days: int) -> None:
    with pytest.raises(Invalid, match="at most 92 days"):
        await _report(shop, days=days)


async def test_report_over_http_has_the_period_and_empty_figures(gateway: TestGateway) -> None:
    path = "/v1/admin/reports/aftersales?from=2026-11-01T00:00:00Z&to=2026-12-01T00:00:00Z"
    answer = await gateway.call("GET", f"{path}&by=team", roles=["support"])
    assert answer.status == 200, answer.text
    assert (answer.body["from"], answer.body["to"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert (answer.body["by"], answer.body["clocks"], answer.body["returns"]) == ("team", [], [])
    assert (await gateway.call("GET", f"{path}&by=moon", roles=["support"])).status == 422
    assert (await gateway.call("GET", path, roles=["catalog"])).status == 403
    left_out = await gateway.call("GET", "/v1/admin/reports/aftersales", roles=["support"])
    start, end = (datetime.fromisoformat(left_out.body[name]) for name in ("from", "to"))
    assert end - start == timedelta(days=30)
    backwards = "/v1/admin/reports/aftersales?from=2026-12-01T00:00:00Z&to=2026-11-01T00:00:00Z"
    assert (await gateway.call("GET", backwards, roles=["support"])).status == 422


async def test_report_by_command_has_table_csv_and_picture(
    shop: CliServices, floodgate: Command, tmp_path: Path
) -> None:
    question = await _add_conversation(shop, team_id=None)
    await _add_run(shop, question, "first_response", 1.5, by="staff $anna$")
    period = ("--from", "2026-11-01T00:00:00Z", "--to", "2026-12-01T00:00:00Z")
    table, picture = tmp_path / "figures.csv", tmp_path / "figures.svg"
    status, text = await floodgate(
        *("report", "aftersales", *period, "--by", "agent", "--csv", table, "--picture", picture)
    )
    assert (status, "staff $anna$" in text, "1.5 h" in text, "100.0%" in text) == (0, True, True, True), text
    rows = list(csv.DictReader(table.read_text().splitlines()))
    values = {(row["section"], row["figure"]): row["value"] for row in rows}
    assert values["clocks", "worked_p50_s"] == "5400.0"
    assert values["backlog", "open"] == "1"
    assert picture.read_bytes().startswith(b"<?xml")
    status, text = await floodgate("report", "aftersales", *period, "--json")
    assert (status, json.loads(text[text.index("{") :])["clocks"][0]["count"]) == (0, 1)
    status, text = await floodgate("report", "aftersales", *period, "--picture", tmp_path / "figures.gif")
    assert (status, ".svg or .png" in text) == (1, True)
