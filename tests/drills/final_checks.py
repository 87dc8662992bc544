"""The end of every drill: what the clients were told, Redis, Postgres and the audit must say the same."""

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
from tests.support.sales import eventually

_SETTLED_S = 60.0


async def run_audit(stack: LocalStack, sale_id: str) -> SaleAudit:
    """Run `floodgate audit`, which must end with status 0 and find no unit too many or too few."""
    status, said = await stack.command("audit", sale_id, "--json")
    assert status == 0, said
    [found] = msgspec.json.decode(said, type=list[SaleAudit])
    assert (found.clean, found.differences) == (True, 0), found
    return found


async def check_final_state(
    stack: LocalStack, record: ClientRecord, initial: Mapping[str, int], limits: Mapping[str, int]
) -> SaleAudit:
    """Wait until all is stored and given back, and compare everything with everything."""
    lies = record.all_lies(initial, limits)
    assert not lies, format_examples(lies)
    async with open_cli_services(stack.settings()) as shop:
        await eventually(lambda: _is_idle(shop, record.sale_id), _SETTLED_S)
        await _check_orders(shop, record)
        left = (await lua.cut(shop.redis, SaleKeys(record.sale_id))).stock
        assert (await shop.audit.count_waiting())["dead_letters"] == 0
    sold = record.units()
    assert {sku: left[sku] + sold[sku] for sku in initial} == dict(initial)
    assert min(left.values()) >= 0
    found = await run_audit(stack, record.sale_id)
    assert {row.sku: (row.initial, row.available, row.held + row.sold, row.in_stream) for row in found.rows} == {
        sku: (units, left[sku], sold[sku], 0) for sku, units in initial.items()
    }
    return found


async def _is_idle(shop: CliServices, sale_id: str) -> bool:
    waiting = await lua.backlog(shop.redis, SaleKeys(sale_id))
    return waiting.orders == 0 and (await shop.audit.count_waiting())["pending_releases"] == 0


async def _check_orders(shop: CliServices, record: ClientRecord) -> None:
    """Postgres has exactly the orders that were promised: id, user, key, units, and whether they were cancelled."""
    async with shop.db.connection() as connection:
        orders = await connection.fetch(
            "SELECT order_id, user_id, idempotency_key, status FROM orders WHERE sale_id = $1", record.sale_id
        )
        lines = await connection.fetch(
            "SELECT order_id, sku, sum(quantity)::int AS units FROM order_lines JOIN orders USING (order_id) "
            "WHERE sale_id = $1 GROUP BY order_id, sku",
            record.sale_id,
        )
    promised = record.promised()
    stored = {row["order_id"]: row for row in orders}
    lost = [f"{id_} of {promised[id_]}" for id_ in promised.keys() - stored.keys()]
    assert not lost, f"promised and not stored, {format_examples(lost)}"
    extra = [f"{id_} of {stored[id_]['user_id']}" for id_ in stored.keys() - promised.keys()]
    assert not extra, f"stored and not promised, {format_examples(extra)}"
    units: dict[UUID, Counter[str]] = {id_: Counter() for id_ in stored}
    for line in lines:
        units[line["order_id"]][line["sku"]] = line["units"]
    wrong = [
        f"{row} with {units[id_]} for {promised[id_]}"
        for id_, row in stored.items()
        if (row["user_id"], row["idempotency_key"], row["status"] == "cancelled", units[id_])
        != (promised[id_].user, promised[id_].key, promised[id_].cancelled, Counter(promised[id_].units))
    ]
    assert not wrong, f"stored as something else, {format_examples(wrong)}"
    keys = Counter((row["user_id"], row["idempotency_key"]) for row in orders)
    assert not keys or max(keys.values()) == 1, "a key stands for two orders"
