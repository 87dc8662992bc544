"""Freight templates over the admin API."""

from __future__ import annotations

from typing import Any

from ops.services import CliServices
from tests.support.gateway import TestGateway
from tests.support.sales import make_sale

PATH = "/v1/admin/freight-templates"
TERMS: dict[str, Any] = {
    "currency": "CNY",
    "charged_by": "weight",
    "cod_fee_minor": 700,
    "zones": [
        {
            "name": "east",
            "regions": [{"country": "CN", "province": "浙江省"}, {"country": "CN", "city": "上海"}],
            "steps": [{"above": 0, "fee_minor": 800, "up_to": 1000}, {"above": 1000, "fee_minor": 300, "per": 500}],
            "free_from_minor": 9900,
        },
        {"name": "world", "regions": [{"country": "*"}], "steps": [{"above": 0, "fee_minor": 5000}]},
    ],
}


async def test_template_is_put_read_and_listed(gateway: TestGateway) -> None:
    assert (await gateway.call("GET", f"{PATH}/heavy", roles=["sales"])).status == 404
    answer = await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=TERMS)
    assert (answer.status, answer.body["version"], answer.body["terms"]) == (200, 1, TERMS)
    repeated = await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=answer.body["terms"])
    assert repeated.body == answer.body
    assert (await gateway.call("GET", f"{PATH}/heavy", roles=["sales"])).body == answer.body
    [summary] = (await gateway.call("GET", PATH, roles=["sales"])).body["items"]
    assert (summary["name"], summary["zones"], summary["sales"]) == ("heavy", 2, 0)
    assert (await gateway.call("GET", f"{PATH}/heavy", roles=["catalog"])).status == 403


async def test_template_with_faults_is_refused_with_pointers(gateway: TestGateway) -> None:
    zones = [
        {"name": "a", "regions": [{"country": "ZZ"}], "steps": [{"above": 5, "fee_minor": 1}]},
        {"name": "b", "regions": [{"country": "CN"}, {"country": "CN"}], "steps": []},
    ]
    answer = await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=TERMS | {"zones": zones})
    assert (answer.status, answer.body["code"]) == (422, "invalid")
    assert [error["pointer"] for error in answer.body["errors"]] == [
        "/zones/0/regions/0/country",
        "/zones/0/steps/0/above",
        "/zones/1/regions/1",
        "/zones/1/steps",
    ]
    for blank in (" ", "\u3000", "\u200b"):
        zone = {**TERMS["zones"][1], "regions": [{"country": "CN", "province": blank}]}
        refused = await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=TERMS | {"zones": [zone]})
        assert refused.status == 422
        assert "/zones/0/regions/0/province" in str(refused.body)
        assert "at least one letter or digit" in str(refused.body)
    assert (await gateway.call("GET", PATH, roles=["sales"])).body["items"] == []


async def test_template_of_a_sale_is_set_and_taken_away(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, sale_id, {"a": (5, 100, None)})
    await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=TERMS)
    path = f"/v1/admin/sales/{sale_id}/freight-template"
    answer = await gateway.call("PUT", path, roles=["sales"], json={"name": "heavy"})
    assert (answer.status, answer.body["freight_template"]) == (200, "heavy")
    await gateway.services.snapshots.refresh()
    freight = gateway.services.snapshots.find(sale_id).freight
    assert freight is not None
    assert freight.charge("CN", "浙江", "杭州", 1001, 1, 100) == 1100
    await gateway.call("PUT", f"{PATH}/heavy", roles=["sales"], json=TERMS | {"zones": TERMS["zones"][1:]})
    await gateway.services.snapshots.refresh()
    changed = gateway.services.snapshots.find(sale_id).freight
    assert changed is not None
    assert changed.charge("CN", "浙江", "杭州", 1001, 1, 100) == 5000
    unknown = await gateway.call("PUT", path, roles=["sales"], json={"name": "none"})
    assert (unknown.status, unknown.body["errors"][0]["pointer"]) == (422, "/name")
    assert (await gateway.call("PUT", path, roles=["sales"], json={})).status == 422
    removed = await gateway.call("PUT", path, roles=["sales"], json={"name": None})
    assert removed.body["freight_template"] is None
    await gateway.services.snapshots.refresh()
    assert gateway.services.snapshots.find(sale_id).freight is None
