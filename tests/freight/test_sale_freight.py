"""A template is stored whole, and every change raises the generation of its sales."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from commerce.freight.errors import InvalidFreight, NoSuchFreightTemplate
from commerce.freight.model import FreightStep, FreightTerms
from commerce.freight.service import Freight
from commerce.kernel.clock import from_ms
from commerce.sales.errors import InvalidSaleState, NoSuchSale
from commerce.sales.sale_freight import SaleFreight, TemplateChange
from ops.services import CliServices
from tests.freight.templates import make_terms, make_zone
from tests.support.sales import eventually, make_sale

STEPS = (FreightStep(0, 800, 1000), FreightStep(1000, 300, per=500))
TERMS = make_terms(
    make_zone("east", "CN/浙江省", "CN//上海", steps=STEPS, free_from=9900), make_zone("world", "*"), cod_fee_minor=700
)


@pytest.fixture
def freight(shop: CliServices) -> Freight:
    return Freight(shop.db)


@pytest.fixture
def sale_freight(shop: CliServices) -> SaleFreight:
    return SaleFreight(shop.db, shop.sales, shop.clock)


async def put(sale_freight: SaleFreight, terms: FreightTerms = TERMS, name: str = "heavy") -> TemplateChange:
    [change] = await sale_freight.put_templates({name: terms}, "test")
    return change


async def read_log(shop: CliServices) -> Sequence[asyncpg.Record]:
    async with shop.db.connection() as connection:
        rows: Sequence[asyncpg.Record] = await connection.fetch(
            "SELECT sale_id, actor, detail FROM sale_log WHERE action = 'freight' ORDER BY log_id"
        )
        return rows


async def test_template_is_stored_whole_and_versions_count_changes(freight: Freight, sale_freight: SaleFreight) -> None:
    with pytest.raises(NoSuchFreightTemplate):
        await freight.get("heavy")
    assert await put(sale_freight) == TemplateChange("heavy", "added", 1, [])
    template = await freight.get("heavy")
    assert (template.terms, template.version, template.actor) == (TERMS, 1, "test")
    assert await put(sale_freight) == TemplateChange("heavy", "unchanged", 1, [])
    fewer = make_terms(make_zone("world", "*"))
    assert await put(sale_freight, fewer) == TemplateChange("heavy", "changed", 2, [])
    assert (await freight.get("heavy")).terms == fewer
    await put(sale_freight, name="light")
    page = await freight.list_templates(None, 1)
    assert [(row.name, row.version, row.zones, row.sales) for row in page.items] == [("heavy", 2, 1, 0)]
    assert [row.name for row in (await freight.list_templates(page.next, 1)).items] == ["light"]


async def test_templates_with_a_fault_are_not_stored_at_all(freight: Freight, sale_freight: SaleFreight) -> None:
    with pytest.raises(InvalidFreight, match="has no step"):
        await sale_freight.put_templates({"a": TERMS, "b": make_terms(make_zone("cn", "CN", steps=()))}, "test")
    assert (await freight.list_templates(None, 10)).items == []


async def test_assigned_template_is_in_the_snapshot_of_the_sale(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await put(sale_freight)
    sale = await shop.sales.get(sale_id)
    before = await shop.sales.read_snapshot(sale, None)
    assert before.freight is None
    assigned = await sale_freight.assign(sale_id, "heavy", "test")
    assert (assigned.freight_template, assigned.generation) == ("heavy", sale.generation + 1)
    assert assigned.published_generation == assigned.generation
    snapshot = await shop.sales.read_snapshot(assigned, before)
    assert snapshot.freight is not None
    assert snapshot.items == before.items
    assert snapshot.freight.charge("CN", "浙江", "杭州", 1200, 1, 100) == 1100
    assert snapshot.freight.cod_fee_minor == 700
    assert await sale_freight.assign(sale_id, "heavy", "test") == assigned
    assert (await shop.sales.read_snapshot(assigned, snapshot)).freight is snapshot.freight
    removed = await sale_freight.assign(sale_id, None, "boss")
    assert (await shop.sales.read_snapshot(removed, snapshot)).freight is None
    assert [(row["actor"], row["detail"]) for row in await read_log(shop)] == [
        ("test", '{"template": [null, "heavy"]}'),
        ("boss", '{"template": ["heavy", null]}'),
    ]


async def test_changed_template_raises_generation_of_its_open_sales(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    names = [f"{sale_id}-{suffix}" for suffix in ("draft", "open", "closed", "other")]
    for name in names:
        await make_sale(shop, name, {"a": (5, 100, None)}, opened=not name.endswith("draft"))
    await put(sale_freight)
    for name in names[:3]:
        await sale_freight.assign(name, "heavy", "test")
    await shop.sales.close(names[2], "test")
    before = {name: await shop.sales.get(name) for name in names}
    snapshot = await shop.sales.read_snapshot(before[names[1]], None)
    changed = make_terms(make_zone("world", "*", steps=(FreightStep(0, 1),)))
    change = await put(sale_freight, changed)
    assert change == TemplateChange("heavy", "changed", 2, sorted(names[:2]))
    after = {name: await shop.sales.get(name) for name in names}
    raised = [after[name].generation - before[name].generation for name in names]
    assert raised == [1, 1, 0, 0]
    assert after[names[1]].published_generation == after[names[1]].generation
    newer = await shop.sales.read_snapshot(after[names[1]], snapshot)
    assert newer.freight is not None
    assert newer.freight.charge("CN", "浙江", "杭州", 1200, 1, 100) == 1
    log = [(row["sale_id"], row["detail"]) for row in (await read_log(shop))[3:]]
    assert sorted(log) == [(name, '{"version": 2, "template": "heavy"}') for name in sorted(names[:2])]
    assert (await put(sale_freight, changed)).sales == []


async def test_template_that_does_not_fit_the_sale_is_not_assigned(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await put(sale_freight)
    await put(sale_freight, make_terms(make_zone("world", "*"), currency="GBP"), "abroad")
    with pytest.raises(NoSuchSale):
        await sale_freight.assign(f"{sale_id}-x", "heavy", "test")
    with pytest.raises(InvalidFreight, match="there is no freight template 'none'") as raised:
        await sale_freight.assign(sale_id, "none", "test")
    assert raised.value.extra["errors"][0]["pointer"] == "/name"
    with pytest.raises(InvalidFreight, match="'abroad' is in GBP"):
        await sale_freight.assign(sale_id, "abroad", "test")
    await sale_freight.assign(sale_id, "heavy", "test")
    with pytest.raises(InvalidFreight, match=f"{sale_id} use 'heavy' and are not in GBP"):
        await put(sale_freight, make_terms(make_zone("world", "*"), currency="GBP"))
    await shop.sales.close(sale_id, "test")
    with pytest.raises(InvalidSaleState, match="is closed"):
        await sale_freight.assign(sale_id, None, "test")


async def test_assignment_waits_for_a_change_of_the_template(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    """Else the change would miss the sale, and its gateways would keep the old freight."""
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await put(sale_freight)
    async with shop.db.transaction() as connection:
        await Freight.put(connection, "heavy", make_terms(make_zone("cn", "CN")), "test", from_ms(0))
        assignment = asyncio.create_task(sale_freight.assign(sale_id, "heavy", "test"))

        async def waits_or_is_done() -> bool:
            waiting = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return assignment.done() or waiting > 0

        await eventually(waits_or_is_done)
        assert not assignment.done()
    assert (await assignment).freight_template == "heavy"


async def test_several_templates_are_changed_before_any_sale_is_locked(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    """Else an import that holds the sale and an assignment that holds the template wait for each other."""
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    for name in ("heavy", "light"):
        await put(sale_freight, name=name)
    await sale_freight.assign(sale_id, "heavy", "test")
    changed = make_terms(make_zone("cn", "CN"))
    async with shop.db.transaction() as connection:  # as that of an assignment
        await Freight.share_currency(connection, "light")
        change = asyncio.create_task(sale_freight.put_templates({"heavy": changed, "light": changed}, "test"))

        async def waits_or_is_done() -> bool:
            return change.done() or await connection.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted")

        await eventually(waits_or_is_done)
        await connection.execute("SELECT FROM sales WHERE sale_id = $1 FOR UPDATE NOWAIT", sale_id)
    assert [(template.status, template.sales) for template in await change] == [("changed", [sale_id]), ("changed", [])]


async def test_template_changed_and_assigned_at_once_leaves_no_sale_behind(
    shop: CliServices, sale_freight: SaleFreight, sale_id: str
) -> None:
    names = [f"{sale_id}-{number}" for number in range(4)]
    for name in names:
        await make_sale(shop, name, {"a": (5, 100, None)})
    await put(sale_freight)
    variants = [make_terms(make_zone("world", "*", steps=(FreightStep(0, fee),))) for fee in range(1, 5)]
    await asyncio.gather(
        *(sale_freight.assign(name, "heavy", "test") for name in names),
        *(put(sale_freight, terms) for terms in variants),
    )
    last = (await Freight(shop.db).get("heavy")).terms
    for name in names:
        snapshot = await shop.sales.read_snapshot(await shop.sales.get(name), None)
        assert snapshot.freight is not None
        assert snapshot.freight.charge("CN", "", "x", 1, 1, 1) == last.zones[0].steps[0].fee_minor
    assert (await Freight(shop.db).get("heavy")).version == 5
