"""Inspections per unit: stock, write-offs, units sent back, and corrections before the money."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from uuid import UUID

import pytest

from commerce.aftersales.case_status import lock_case
from commerce.aftersales.errors import CaseStatusConflict
from commerce.aftersales.inspected_units import book_inspected_units
from commerce.aftersales.model import PolicyTerms
from commerce.aftersales.receipt_model import InspectedUnits, InspectionInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from tests.support.case_shop import open_case_shop
from tests.support.return_shop import ReturnShop


async def _received(returns: ReturnShop, *lines: tuple[str, int, int]) -> tuple[UUID, UUID]:
    """Receive all units of a case of a whole order. Returns both ids."""
    order_id = await returns.deliver_order(*lines)
    case_id = await returns.add_case(order_id)
    await returns.receive(case_id, {line.case_line_no: line.quantity for line in await returns.list_lines(case_id)})
    return order_id, case_id


async def _book(returns: ReturnShop, case_id: UUID, policies: Mapping[str, PolicyTerms] | None = None) -> None:
    shop = returns.ship.shop
    async with shop.db.transaction() as connection:
        locked = await lock_case(connection, case_id)
        now = from_ms(shop.clock.now_ms())
        await book_inspected_units(connection, shop.ids, locked, policies or {}, now)


async def test_inspected_units_go_to_stock_off_it_and_back(returns: ReturnShop) -> None:
    order_id, case_id = await _received(returns, ("a", 6, 0))
    await returns.inspect(case_id, (3, 2, 1))
    assert await returns.state(case_id) == ("inspected", "inspected", "staff")
    assert await returns.ship.fetch_value("SELECT count(*) FROM releases") == 0, "units move with the money"
    await _book(returns, case_id)
    [release] = await returns.ship.fetch_rows("SELECT part_of, units, written_off FROM releases")
    assert tuple(release) == (order_id, '{"a": 5}', '{"a": 2}')
    line = await returns.ship.fetch_rows("SELECT delivered, returned FROM fulfilment_lines")
    assert [tuple(row) for row in line] == [(6, 5)]
    [send_back] = (await returns.returns.list_send_backs(None, 10)).items
    assert (send_back.case_id, send_back.case_line_no, send_back.quantity) == (case_id, 0, 1)


async def test_units_are_booked_once(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 2, 0))
    await returns.inspect(case_id, (2, 0, 0))
    await asyncio.gather(*(_book(returns, case_id) for _ in range(3)))
    assert await returns.ship.fetch_value("SELECT count(*) FROM releases") == 1
    assert await returns.ship.fetch_value("SELECT returned FROM fulfilment_lines") == 2


async def test_products_that_are_not_resold_are_written_off(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 2, 0))
    await returns.inspect(case_id, (2, 0, 0))
    await _book(returns, case_id, {"a": PolicyTerms(is_resold=False)})
    [release] = await returns.ship.fetch_rows("SELECT units, written_off FROM releases")
    assert tuple(release) == ('{"a": 2}', '{"a": 2}')


async def test_rejected_units_alone_move_no_stock(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 2, 0))
    await returns.inspect(case_id, (0, 0, 2))
    await _book(returns, case_id)
    assert await returns.ship.fetch_value("SELECT count(*) FROM releases") == 0
    assert await returns.ship.fetch_value("SELECT returned FROM fulfilment_lines") == 0


async def test_inspection_is_corrected_until_resolved(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 3, 0))
    await returns.inspect(case_id, (3, 0, 0))
    await returns.inspect(case_id, (1, 1, 0))
    assert await returns.state(case_id) == ("received", "received", "warehouse")
    await returns.inspect(case_id, (1, 2, 0))
    assert await returns.state(case_id) == ("inspected", "inspected", "staff")
    revisions = await returns.ship.fetch_rows(
        "SELECT revision, resellable, damaged FROM return_inspections ORDER BY revision"
    )
    assert [tuple(row) for row in revisions] == [(1, 3, 0), (2, 1, 1), (3, 1, 2)]
    [line] = await returns.list_lines(case_id)
    assert (line.received, line.resellable, line.damaged) == (3, 1, 2)


async def test_case_with_units_that_never_come_is_inspected_on_request(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 3, 0)))
    await returns.receive(case_id, {0: 2})
    await returns.inspect(case_id, (2, 0, 0))
    assert await returns.state(case_id) == ("received", "partly_received", "warehouse")
    with pytest.raises(Invalid, match="1 received units are not inspected"):
        await returns.inspect(case_id, (1, 0, 0), nothing_more=True)
    await returns.inspect(case_id, nothing_more=True)
    assert await returns.state(case_id) == ("inspected", "inspected", "staff")


async def test_another_part_after_inspection_is_inspected_too(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order(("a", 3, 0)))
    await returns.receive(case_id, {0: 2})
    await returns.inspect(case_id, (2, 0, 0), nothing_more=True)
    await returns.receive(case_id, {0: 1})
    assert await returns.state(case_id) == ("received", "received", "warehouse")
    await returns.inspect(case_id, (2, 0, 1))
    assert (await returns.get_case(case_id)).status == "inspected"


async def test_more_than_received_or_unknown_line_is_refused(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 2, 0))
    with pytest.raises(Invalid, match="2 units of line 0 were received, not 3"):
        await returns.inspect(case_id, (2, 1, 0))
    with pytest.raises(Invalid, match="no line 1"):
        await returns.inspect(case_id, (2, 0, 0), (1, 0, 0))
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_inspections") == 0


async def test_case_without_receipt_is_not_inspected(returns: ReturnShop) -> None:
    case_id = await returns.add_case(await returns.deliver_order())
    with pytest.raises(CaseStatusConflict):
        await returns.inspect(case_id, (1, 0, 0))


async def test_two_members_of_staff_inspect_and_second_has_to_read_again(returns: ReturnShop) -> None:
    _, case_id = await _received(returns, ("a", 2, 0))
    version = (await returns.get_case(case_id)).version
    inputs = [
        InspectionInput(version=version, lines={0: InspectedUnits(resellable=2 - damaged, damaged=damaged)})
        for damaged in (0, 1, 2)
    ]
    results = await asyncio.gather(
        *(returns.inspections.inspect(case_id, inspection, "staff ann") for inspection in inputs),
        return_exceptions=True,
    )
    names = sorted(type(result).__name__ for result in results)
    assert names == ["CaseSummary", "CaseVersionConflict", "CaseVersionConflict"]
    assert await returns.ship.fetch_value("SELECT count(*) FROM return_inspections") == 1


async def test_case_of_which_a_part_was_rejected_is_not_reopened(returns: ReturnShop) -> None:
    """The rejected unit must not be sent back twice. The unit that has not come may be in a new case."""
    cases = open_case_shop(returns.ship)
    order_id = await cases.add_delivered(("a", 2, 0))
    case_id = await cases.request(order_id, 2)
    await cases.approve(case_id)
    await returns.receive(case_id, {0: 1})
    await returns.inspect(case_id, (0, 0, 1), nothing_more=True)
    await cases.act("resolve", case_id)
    assert await cases.state(case_id) == ("resolved", "nothing_due", "nobody")
    with pytest.raises(CaseStatusConflict, match="open a new case"):
        await cases.act("reopen", case_id)
    assert (await cases.preview(order_id, 1)).is_eligible
