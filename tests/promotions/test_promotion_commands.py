"""`floodgate promotion` as staff have it."""

from __future__ import annotations

import json
from pathlib import Path

from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import make_command
from tests.support.processes import Processes
from tests.support.sales import make_sale, order_body


async def test_promotion_is_created_tried_changed_and_disabled(
    shop: CliServices, settings: Settings, sale_id: str, tmp_path: Path
) -> None:
    floodgate = make_command({**Processes(settings, tmp_path).environment(), "COLUMNS": "300"})
    await make_sale(shop, sale_id, {"cup": (9, 999, None), "tea": (9, 300, None)})
    files = {
        "new": {
            "promotion_id": "10-less-1",
            "label": "10 less 1",
            "promotion_class": "order",
            "rule": {"kind": "stepped", "steps": [{"threshold": 1_000, "amount": 100}]},
        },
        "changes": {"ends_at": "2020-01-01T00:00:00Z"},
        "order": order_body(sale_id, ("cup", 1), ("tea", 1)),
        "wrong": {"rule": {"kind": "percent", "basis_points": 0}},
    }
    paths = {name: tmp_path / f"{name}.json" for name in files}
    for name, content in files.items():
        paths[name].write_text(json.dumps(content), encoding="utf-8")
    status, text = await floodgate("promotion", "list", sale_id)
    assert (status, "has no promotions" in text) == (0, True), text
    status, text = await floodgate("promotion", "create", sale_id, paths["new"])
    assert (status, f"floodgate promotion try {sale_id} ORDER.json" in text) == (0, True), text
    status, text = await floodgate("promotion", "try", sale_id, paths["order"])
    assert (status, "12.99 CNY less 1.00 CNY is 11.99 CNY" in text, "applied" in text) == (0, True, True), text
    status, text = await floodgate("promotion", "try", sale_id, paths["order"], "--json")
    trial = json.loads(text)
    assert (trial["total"], [line["discount"] for line in trial["lines"]]) == (1_199, [77, 23])
    assert (trial["explanations"][0]["code"], trial["explanations"][0]["amount"]) == ("applied", 100)
    status, text = await floodgate("promotion", "change", sale_id, "10-less-1", paths["changes"])
    assert (status, "10-less-1" in text) == (0, True), text
    status, text = await floodgate("promotion", "try", sale_id, paths["order"])
    assert (status, "ended at 2020-01-01 00:00:00 UTC" in text) == (0, True), text
    status, text = await floodgate("promotion", "try", sale_id, paths["order"], "--at", "2019-12-31T00:00:00Z")
    assert (status, "is 11.99 CNY" in text) == (0, True), text
    status, text = await floodgate("promotion", "disable", sale_id, "10-less-1")
    assert (status, f"10-less-1 of {sale_id} is disabled" in text) == (0, True), text
    status, text = await floodgate("promotion", "list", sale_id)
    assert (status, "disabled" in text, '"threshold":1000' in text) == (0, True, True), text
    status, text = await floodgate("promotion", "list", sale_id, "--json")
    assert (status, json.loads(text)[0]["ends_at"]) == (0, "2020-01-01T00:00:00Z"), text
    status, text = await floodgate("promotion", "change", sale_id, "10-less-1", paths["wrong"])
    assert (status, "/rule/basis_points" in text) == (1, True), text
    status, text = await floodgate("promotion", "try", "missing", paths["order"])
    assert (status, "there is no sale" in text) == (1, True), text
