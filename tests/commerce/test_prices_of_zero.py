"""A price of 0 is refused wherever one is set; an order whose total is 0 is paid at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from msgspec import UNSET
from typer.testing import CliRunner

from commerce.catalog.model import VariantInput
from commerce.kernel.clock import from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.money import MoneyError
from commerce.orders import store as orders
from commerce.sales.item_csv import read_items
from commerce.sales.model import ItemInput, SaleInput
from config.settings import Settings
from ops.cli import app
from ops.services import CliServices
from tests.support.gateway import TestGateway, run_workers
from tests.support.sales import eventually, make_sale, order_body

REASON = "give products away by a promotion"


async def test_price_of_0_is_refused_by_the_api(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    sale = {"sale_id": f"{sale_id}-2", "title": "A sale", "currency": "CNY", "opens_at": "2026-11-11T00:00:00Z"}
    free = {"price": 0}
    for method, path, body in (
        ("PUT", "variants/a", {"name": "A thing", "currency": "CNY", **free}),
        ("POST", "sales", {"sale": sale, "items": {"a": free}}),
        ("PUT", f"sales/{sale_id}/items", {"items": {"a": free}}),
        ("PATCH", f"sales/{sale_id}/items/a", free),
    ):
        answer = await gateway.call(method, f"/v1/admin/{path}", roles=["operator"], json=body)
        assert (answer.status, answer.code) == (422, "invalid"), path
        assert REASON in answer.body["detail"]
    assert (await shop.sales.get_item(sale_id, "a")).price == 100
    assert (await shop.catalog.get("a")).price == 100


async def test_price_of_0_in_a_file_or_command_is_refused(
    shop: CliServices,
    settings: Settings,
    sale_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = await shop.catalog.import_csv(["sku,name,price,currency\n", "a,A thing,0.00,CNY\n", "b,B,0.01,CNY\n"])
    assert (report.added, [error.line for error in report.errors]) == (1, [2])
    assert REASON in report.errors[0].reason
    file = tmp_path / "items.csv"
    file.write_text("sku,units,price\nb,5,0\n")
    with pytest.raises(Invalid, match=REASON):
        read_items(file, "CNY")
    await make_sale(shop, sale_id, {"a": (5, 100, None)}, opened=False)
    monkeypatch.setenv("REDIS_URL", settings.redis())
    monkeypatch.setenv("DATABASE_URL", settings.database())
    arguments = ["sale", "change-item", sale_id, "a", "--price", "0"]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 1
    assert REASON in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("make", [lambda: VariantInput("A", 0, "CNY"), lambda: ItemInput(price=0)])
def test_price_of_0_is_refused_by_the_type(make: Callable[[], object]) -> None:
    with pytest.raises(MoneyError, match=REASON):
        make()


async def _is_stored(shop: CliServices, order_id: UUID) -> bool:
    async with shop.db.connection() as connection:
        return bool(await orders.find_existing(connection, [order_id]))


async def test_order_with_a_total_of_0_is_paid_when_stored(
    gateway: TestGateway, shop: CliServices, sale_id: str
) -> None:
    """Items of earlier versions may have a price of 0. Their limit may be changed; the price stays."""
    await make_sale(shop, sale_id, {"a": (5, 100, None), "free": (5, 100, None)})
    async with shop.db.connection() as connection:
        await connection.execute("UPDATE variants SET price_minor = 0 WHERE sku = 'free'")
        await connection.execute("UPDATE sale_items SET price_minor = 0 WHERE sku = 'free'")
    sale = SaleInput("other", "A sale", "CNY", from_ms(shop.clock.now_ms()))
    with pytest.raises(Invalid, match=REASON):
        await shop.sales.create(sale, [("free", ItemInput())], "test")
    await shop.sales.change_item(sale_id, "free", UNSET, 3, "test")
    await gateway.services.snapshots.refresh()
    free = await gateway.order(order_body(sale_id, ("free", 2)))
    assert (free.status, free.body["total"]["amount"]) == (202, 0)
    priced = await gateway.order(order_body(sale_id, ("free", 1), ("a", 1)))
    assert (priced.status, priced.body["total"]["amount"]) == (202, 100)
    async with run_workers(gateway.settings, "order_writer"):
        await eventually(lambda: _is_stored(shop, UUID(priced.body["order_id"])))
    details = await shop.orders.get_details(UUID(free.body["order_id"]), [sale_id])
    assert [event.status for event in details.events] == ["accepted", "awaiting_payment", "paid"]
    assert details.events[-1].reason == "there is nothing to pay"
    details = await shop.orders.get_details(UUID(priced.body["order_id"]), [sale_id])
    assert details.order.status == "awaiting_payment"
