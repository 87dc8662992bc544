"""The end of every drill: the replies to clients, Redis, Postgres and the audit must agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import UUID

import msgspec

import lua
from commerce.audit.model import SaleAudit
from lua import SaleKeys
from ops.services import CliServices, open_cli_services
from tests.drills.client_record import ClientRecord, format_examples
from tests.drills.local_stack import LocalStack
from tests.support.due_jobs import count_open
from tests.support.sales import eventually

_IDLE_TIMEOUT_S = 60.0
_COUNT_LEFT = """
SELECT key, sum(value::int)::int FROM releases JOIN orders ON order_id = part_of, jsonb_each_text(units)
WHERE orders.sale_id = $1 AND orders.status <> 'cancelled' GROUP BY key
"""
_COUNT_WRITTEN_OFF = """
SELECT key, sum(value::int)::int FROM releases, jsonb_each_text(written_off) WHERE sale_id = $1 GROUP BY key
"""


async def run_audit(stack: LocalStack, sale_id: str) -> SaleAudit:
    """Run `floodgate audit`, which must end with status 0 and find a difference of 0 units."""
    status, output = await stack.run_command("audit", sale_id, "--json")
    assert status == 0, output
    [audit] = msgspec.json.decode(output, type=list[SaleAudit])
    assert (audit.clean, audit.differences) == (True, 0), audit
    return audit


async def check_final_state(
    stack: LocalStack, record: ClientRecord, initial: Mapping[str, int], limits: Mapping[str, int]
) -> SaleAudit:
    """Wait until all orders are stored and all stock is released, and compare all records."""
    contradictions = record.find_contradictions(initial, limits)
    assert not contradictions, format_examples(contradictions)
    async with open_cli_services(stack.settings()) as shop:
        await wait_until_idle(shop, record.sale_id)
        await _check_orders(shop, record)
        available = (await lua.cut(shop.redis, SaleKeys(record.sale_id))).stock
        assert await shop.audit.count_dead_letters() == 0
        left, written_off = await _count_reversals(shop, record.sale_id)
    promised = record.count_promised_units()
    promised.subtract(left)
    assert {sku: available[sku] + promised[sku] + written_off[sku] for sku in initial} == dict(initial)
    assert min(available.values()) >= 0
    audit = await run_audit(stack, record.sale_id)
    assert {
        row.sku: (row.initial, row.available, row.held + row.sold, row.written_off, row.in_stream) for row in audit.rows
    } == {sku: (units, available[sku], promised[sku], written_off[sku], 0) for sku, units in initial.items()}
    return audit


async def _count_reversals(shop: CliServices, sale_id: str) -> tuple[Counter[str], Counter[str]]:
    """Count units by SKU that have left orders which are not cancelled, and units that were written off."""
    async with shop.db.connection() as connection:
        left = await connection.fetch(_COUNT_LEFT, sale_id)
        written_off = await connection.fetch(_COUNT_WRITTEN_OFF, sale_id)
    return Counter(dict(map(tuple, left))), Counter(dict(map(tuple, written_off)))


async def wait_until_idle(shop: CliServices, sale_id: str) -> None:
    """Wait until all orders of a sale are stored and all stock is released."""
    await eventually(lambda: _is_idle(shop, sale_id), _IDLE_TIMEOUT_S)


async def _is_idle(shop: CliServices, sale_id: str) -> bool:
    backlog = await lua.read_backlog(shop.redis, SaleKeys(sale_id))
    return backlog.orders == 0 and await count_open(shop, "releases") == 0


async def _check_orders(shop: CliServices, record: ClientRecord) -> None:
    """Check that Postgres has exactly the promised orders, with id, user, key, units and cancellation."""
    async with shop.db.connection() as connection:
        orders = await connection.fetch(
            "SELECT order_id, user_id, idempotency_key, status FROM orders WHERE sale_id = $1", record.sale_id
        )
        lines = await connection.fetch(
            "SELECT order_id, sku, sum(quantity)::int AS units FROM order_units JOIN orders USING (order_id) "
            "WHERE sale_id = $1 GROUP BY order_id, sku",
            record.sale_id,
        )
    promised = record.promised_orders()
    stored = {row["order_id"]: row for row in orders}
    lost = [f"{id_} of {promised[id_]}" for id_ in promised.keys() - stored.keys()]
    assert not lost, f"promised and not stored, {format_examples(lost)}"
    extra = [f"{id_} of {stored[id_]['user_id']}" for id_ in stored.keys() - promised.keys()]
    assert not extra, f"stored and not promised, {format_examples(extra)}"
    units: dict[UUID, Counter[str]] = {id_: Counter() for id_ in stored}
    for line in lines:
        units[line["order_id"]][line["sku"]] = line["units"]
    different = [
        f"{row} with {units[id_]} for {promised[id_]}"
        for id_, row in stored.items()
        if (row["user_id"], row["idempotency_key"], row["status"] == "cancelled", units[id_])
        != (promised[id_].user, promised[id_].key, promised[id_].is_cancelled, Counter(promised[id_].units))
    ]
    assert not different, f"stored differently, {format_examples(different)}"
    keys = Counter((row["user_id"], row["idempotency_key"]) for row in orders)
    assert not keys or max(keys.values()) == 1, "two orders under one key"
