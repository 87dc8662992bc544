"""Imports of products over HTTP and by commands, worked on by a worker that may be killed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from commerce.kernel.clock import from_ms
from config.settings import Settings
from ops.services import CliServices
from tests.support.commands import Command, make_command
from tests.support.gateway import GatewayResponse, TestGateway, bearer, open_gateway, run_workers
from tests.support.processes import Processes, run_processes, wait_for_exit
from tests.support.product_files import export, imports_of
from tests.support.product_shop import ACTOR
from tests.support.sales import eventually

STAFF: dict[str, Any] = {"user": "kim", "roles": ["catalog"]}
PATH = "/v1/admin/product-imports"
HEADER = "product_id,name:en,sku,variant_name,price,currency\n"
ON_SALE_HEADER = "product_id,status,name:en,sku,variant_name,price,currency\n"


def lines_of(count: int) -> str:
    return HEADER + "".join(f"p{number},P {number},p{number},P,{number + 1},CNY\n" for number in range(count))


async def wait_for(gateway: TestGateway, path: str, *statuses: str) -> dict[str, Any]:
    async def read() -> dict[str, Any] | None:
        body: dict[str, Any] = (await gateway.call("GET", path, **STAFF)).body
        return body if body["status"] in statuses else None

    return await eventually(read, timeout_s=60)


async def upload(gateway: TestGateway, content: str, query: str = "?format=csv&file_name=new.csv") -> GatewayResponse:
    return await gateway.call("POST", PATH + query, data=content.encode(), **STAFF)


async def test_file_is_uploaded_checked_applied_and_exported(gateway: TestGateway, settings: Settings) -> None:
    async with run_workers(settings, "picture_worker"):
        answer = await upload(gateway, lines_of(3) + "p3,P,p3,P,1.234,CNY\n")
        assert (answer.status, answer.body["file_name"], answer.body["created_by"]) == (202, "new.csv", "staff kim")
        path = answer.headers["Location"]
        checked = await wait_for(gateway, path, "checked")
        assert (checked["lines"], checked["created"], checked["refused"], checked["header_lines"]) == (5, 3, 1, 1)
        page = (await gateway.call("GET", f"{path}/lines?limit=3", **STAFF)).body
        assert [(line["line"], line["outcome"]) for line in page["items"]] == [(n, "created") for n in (2, 3, 4)]
        page = (await gateway.call("GET", f"{path}/lines?cursor={page['next']}&outcome=refused", **STAFF)).body
        assert [line["faults"][0]["column"] for line in page["items"]] == ["price"]
        assert (await gateway.call("POST", f"{path}/apply", json={"anyway": " "}, **STAFF)).status == 422
        for _ in range(2):
            assert (await gateway.call("POST", f"{path}/apply", **STAFF)).status == 202
        applied = await wait_for(gateway, path, "applied")
        assert (applied["applied_products"], applied["applied_by"]) == (3, "staff kim")
    async with gateway.client.get(
        f"{gateway.base}/v1/admin/product-exports?format=csv", headers=bearer(settings, "kim", roles=["catalog"])
    ) as exported:
        rows = list(csv.DictReader(io.StringIO(await exported.text())))
        assert (exported.status, exported.content_type) == (200, "application/octet-stream")
    assert [(row["product_id"], row["name:en"], row["price"]) for row in rows] == [
        (f"p{number}", f"P {number}", f"{number + 1}.00") for number in range(3)
    ]
    listed = (await gateway.call("GET", PATH, **STAFF)).body["items"]
    assert [item["status"] for item in listed] == ["applied"]


async def test_low_grade_is_refused_by_the_worker_and_goes_on_sale_with_a_reason(
    gateway: TestGateway, settings: Settings, shop: CliServices
) -> None:
    content = ON_SALE_HEADER + "p,on_sale,P,p,P,1,CNY\n"
    async with run_workers(settings, "picture_worker"):
        path = (await upload(gateway, content)).headers["Location"]
        await wait_for(gateway, path, "checked")
        assert (await gateway.call("POST", f"{path}/apply", **STAFF)).body["anyway"] is None
        applied = await wait_for(gateway, path, "applied")
        assert (applied["applied_products"], applied["failed_products"]) == (0, 1)
        [line] = (await gateway.call("GET", f"{path}/lines", **STAFF)).body["items"]
        assert (line["outcome"], line["result"]) == ("created", "refused")
        assert "cannot publish p: its grade is E" in line["detail"]
        late = await gateway.call("POST", f"{path}/apply", json={"anyway": "pictures follow"}, **STAFF)
        assert (late.status, late.code) == (409, "import_status")
        path = (await upload(gateway, content)).headers["Location"]
        await wait_for(gateway, path, "checked")
        for body in ({"anyway": "pictures follow"}, None):
            answer = await gateway.call("POST", f"{path}/apply", json=body, **STAFF)
            assert (answer.status, answer.body["anyway"]) == (202, "pictures follow")
        assert (await wait_for(gateway, path, "applied"))["applied_products"] == 1
    assert (await shop.products.get("p")).status == "on_sale"


async def test_wrong_requests_are_refused(gateway: TestGateway, make_settings: Callable[..., Settings]) -> None:
    assert (await gateway.call("POST", f"{PATH}?format=csv", user="kim", roles=["sales"], data=b"x")).status == 403
    assert (await upload(gateway, HEADER, "")).code == "bad_request"
    assert (await upload(gateway, HEADER, "?format=xlsx")).status == 422
    assert (await upload(gateway, "")).status == 422
    unknown = f"{PATH}/01970000-0000-7000-8000-000000000000"
    assert (await gateway.call("GET", unknown, **STAFF)).status == 404
    assert (await gateway.call("GET", f"{unknown}/lines", **STAFF)).status == 404
    exports = "/v1/admin/product-exports"
    assert (await gateway.call("GET", f"{exports}?format=csv&category_id=none", **STAFF)).status == 404
    answer = await upload(gateway, HEADER)  # no worker runs
    refused = await gateway.call("POST", f"{answer.headers['Location']}/apply", **STAFF)
    assert (refused.status, refused.code) == (409, "import_status")
    settings = make_settings(product_imports={"max_bytes": 40})
    async with open_gateway(settings) as small:
        assert (await upload(small, lines_of(3))).status == 413
        assert (await upload(small, "PK\x03\x04")).body["status"] == "refused"


@pytest.mark.parametrize("failpoint", ["product_import.before_commit:3", "product_import.after_commit:3"])
async def test_killed_worker_leaves_no_product_half_done_and_the_next_one_goes_on(
    shop: CliServices, make_settings: Callable[..., Settings], tmp_path: Path, failpoint: str
) -> None:
    imports = imports_of(shop)
    text = lines_of(8) + "q,Q,q,Q,1,CNY\n"
    added = await imports.add(io.BytesIO(text.encode()), "a.csv", "csv", ACTOR)
    async with run_processes(make_settings(jobs={"lease_s": 1}), tmp_path) as processes:
        checker = await processes.worker("picture_worker")

        async def is_checked() -> bool:
            return (await imports.get(added.import_id)).status == "checked"

        await eventually(is_checked, timeout_s=30)
        await checker.stop()
        killed = await processes.worker("picture_worker", instance="two", crash_at=failpoint)
        await imports.apply(added.import_id, ACTOR)
        assert await wait_for_exit(killed) == -9
        await processes.worker("picture_worker", instance="three")

        async def is_applied() -> bool:
            return (await imports.get(added.import_id)).status == "applied"

        await eventually(is_applied, timeout_s=30)
    current = await imports.get(added.import_id)
    assert (current.products, current.applied_products) == (9, 9)
    for product in ("p0", "p4", "q"):
        assert len((await shop.products.list_changes(product, None, 9)).items) == 1


async def test_commands_import_report_apply_and_export(shop: CliServices, settings: Settings, tmp_path: Path) -> None:
    floodgate: Command = make_command(Processes(settings, tmp_path).environment())
    file, report, out = tmp_path / "new.csv", tmp_path / "report.csv", tmp_path / "out.jsonl"
    file.write_text(lines_of(2) + "p2,P,p2,P,1.23E+05,CNY\n\n")
    status, output = await floodgate("catalog", "import", file, "--report", report)
    assert status == 2, output
    assert "5 lines: 2 created, 0 changed, 0 unchanged, 1 refused, 1 of the header, 1 blank" in output
    assert "line 4: price: 1.23E+05 is what a spreadsheet makes" in output
    assert "nothing is changed yet: floodgate catalog imports apply" in output
    rows = list(csv.DictReader(report.read_text().splitlines()))
    assert [(row["line"], row["outcome"], row["column"]) for row in rows] == [
        *(("2", "created", ""), ("3", "created", "")),
        ("4", "refused", "price"),
    ]
    status, output = await floodgate("catalog", "imports", "list", "--json")
    [item] = json.loads(output)
    status, output = await floodgate("catalog", "imports", "apply", item["import_id"])
    assert (status, "2 products: 2 applied, 0 changed meanwhile, 0 failed" in output) == (2, True), output
    status, output = await floodgate("catalog", "imports", "show", item["import_id"])
    assert (status, "applied" in output) == (0, True)
    status, output = await floodgate("catalog", "imports", "report", item["import_id"], "--outcome", "refused")
    assert (status, output.count("\n"), "p2,p2,price" in output) == (0, 2, True), output
    assert (await floodgate("catalog", "imports", "list"))[0] == 0
    status, output = await floodgate("catalog", "export", out)
    assert status == 0, output
    assert out.read_bytes() == await export(shop, "jsonl")
    status, output = await floodgate("catalog", "import", out, "--apply")
    assert (status, "2 lines: 0 created, 0 changed, 2 unchanged" in output) == (0, True), output
    file.write_text("sku,name,price,currency\nlamp,Lamp,1,CNY\n")
    assert await floodgate("catalog", "import", file) == (0, "1 lines: 1 added, 0 changed, 0 unchanged, 0 refused\n")
    file.write_text("product_id,sku\np0,p0,,\n", encoding="utf-16-le")
    status, output = await floodgate("catalog", "import", file)
    assert (status, "UTF-16 without its mark" in output) == (1, True), output


async def test_command_puts_products_of_a_low_grade_on_sale_with_a_reason_only(
    shop: CliServices, settings: Settings, tmp_path: Path
) -> None:
    floodgate: Command = make_command(Processes(settings, tmp_path).environment())
    file, report = tmp_path / "new.csv", tmp_path / "report.csv"
    file.write_text(ON_SALE_HEADER + "p,on_sale,P,p,P,1,CNY\n")
    status, output = await floodgate("catalog", "import", file, "--apply", "--report", report)
    assert (status, "1 products: 0 applied, 0 changed meanwhile, 1 failed" in output) == (2, True), output
    [row] = csv.DictReader(report.read_text().splitlines())
    assert row["result"].startswith("refused: cannot publish p: its grade is E")
    assert (await floodgate("catalog", "import", file, "--anyway", "pictures follow"))[0] == 2
    assert (await floodgate("catalog", "import", file))[0] == 0
    [item, _] = json.loads((await floodgate("catalog", "imports", "list", "--json"))[1])
    status, output = await floodgate("catalog", "imports", "apply", item["import_id"], "--anyway", "pictures follow")
    assert (status, "1 products: 1 applied" in output) == (0, True), output
    file.write_text(file.read_text().replace("p,", "q,"))
    status, output = await floodgate("catalog", "import", file, "--apply", "--anyway", "pictures follow")
    assert (status, "1 products: 1 applied" in output) == (0, True), output
    assert [(await shop.products.get(product_id)).status for product_id in "pq"] == ["on_sale", "on_sale"]


async def test_old_import_is_deleted_in_steps_with_its_file_and_report(shop: CliServices) -> None:
    imports = imports_of(shop)
    added = await imports.add(io.BytesIO(lines_of(30).encode()), "a.csv", "csv", ACTOR)
    await imports.finish(added.import_id)
    await imports.apply(added.import_id, ACTOR)
    await imports.finish(added.import_id)
    now = from_ms(shop.clock.now_ms())
    assert await imports.delete_old(now - timedelta(days=1), 20) == 0
    counts = []
    while deleted := await imports.delete_old(now + timedelta(days=1), 20):
        counts.append(deleted)
    assert counts == [20, 30, 11]
    async with shop.db.connection() as connection:
        for table in ("product_imports", "product_import_parts", "product_import_lines", "product_import_items"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
    assert (await shop.products.get("p29")).version == 1
