"""Quality of products over HTTP: the list of what to fix, the gate before publication, figures by day."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import REGISTRY

from commerce.catalog.model import VariantInput
from commerce.product_quality.grading import ProductGrading
from commerce.product_quality.quality_history import QualityRecords
from config.quality import QualitySettings
from config.settings import Settings
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway, run_workers
from tests.support.product_shop import add_categories, make_product
from tests.support.sales import eventually, make_sale


async def staff(gateway: TestGateway, path: str, body: Any = None, *, roles: tuple[str, ...] = ("catalog",)) -> Any:
    method = "GET" if body is None else "POST"
    return await gateway.call(method, f"/v1/admin{path}", user="ann", roles=list(roles), json=body)


@pytest.fixture
async def graded(shop: CliServices) -> CliServices:
    await add_categories(shop)
    await make_product(shop)
    await shop.catalog.put_many([(f"sock-{n}", VariantInput(f"Sock {n}", 9, "CNY")) for n in range(3)])
    grading = ProductGrading(shop.db, shop.clock, QualitySettings(debounce_s=0))
    while await grading.step():
        pass
    return shop


async def test_list_names_faults_page_by_page(graded: CliServices, gateway: TestGateway) -> None:
    listed_items, cursor = list[dict[str, Any]](), ""
    while cursor is not None:
        page: GatewayResponse = await staff(gateway, f"/product-quality?limit=3{cursor and f'&cursor={cursor}'}")
        assert page.status == 200, page.text
        listed_items += page.body["items"]
        cursor = page.body["next"]
    assert [item["product_id"] for item in listed_items] == ["sock-0", "sock-1", "sock-2", "shirt"]
    [sock, *_, shirt] = listed_items
    assert (shirt["grade"], shirt["points"], shirt["is_on_sale"], shirt["names"]["zh-CN"]) == ("E", 47, False, "衬衫")
    assert (sock["findings"][0]["reason"], sock["findings"][0]["points"]) == ("no_pictures", 25)
    assert "upload a picture" in sock["findings"][0]["detail"]
    for query, expected in (
        ("on_sale=false", ["shirt"]),
        ("reason=no_category&grade=E", ["sock-0", "sock-1", "sock-2"]),
        ("category_id=shirts", ["shirt"]),
        ("grade=A", []),
    ):
        listed = (await staff(gateway, f"/product-quality?{query}")).body["items"]
        assert [item["product_id"] for item in listed] == expected, query
    single = await staff(gateway, "/products/shirt/quality")
    assert single.body == shirt
    assert (await staff(gateway, "/products/none/quality")).status == 404


@pytest.mark.parametrize(
    "query", ["grade=F", "reason=ugly", "category_id=Sh%20irts", "on_sale=perhaps", "cursor=x", "limit=0"]
)
async def test_wrong_filter_is_refused(gateway: TestGateway, query: str) -> None:
    assert (await staff(gateway, f"/product-quality?{query}")).status in (400, 422)


async def test_publishing_below_the_grade_needs_a_reason(graded: CliServices, gateway: TestGateway) -> None:
    body = {"version": 3, "reason": "season begins"}
    refused = await staff(gateway, "/products/shirt/publish", body)
    assert (refused.status, refused.code) == (409, "below_publishing_grade"), refused.text
    assert (refused.body["grade"], refused.body["points"]) == ("E", 47)
    assert refused.body["findings"][0]["reason"] == "no_pictures"
    assert "give a reason as `anyway`" in refused.body["detail"]
    for faulty in ({**body, "anyway": ""}, {**body, "anyway": 1}, {**body, "because": "so"}):
        assert (await staff(gateway, "/products/shirt/publish", faulty)).status == 422
    assert (await staff(gateway, "/products/shirt/retire", {**body, "anyway": "so"})).status == 422
    published = await staff(gateway, "/products/shirt/publish", {**body, "anyway": "pictures on Monday"})
    assert (published.status, published.body["status"]) == (200, "on_sale")
    [change, *_] = (await staff(gateway, "/products/shirt/changes")).body["items"]
    assert (change["reason"], change["diff"]["anyway"]) == ("season begins", [None, "pictures on Monday"])


async def test_retired_product_names_the_sales_that_go_on_selling_it(
    graded: CliServices, gateway: TestGateway, sale_id: str
) -> None:
    await make_sale(graded, sale_id, {"sock-1": (5, 100, None)})
    for product_id, sales in (("sock-1", [sale_id]), ("sock-2", [])):
        version = (await graded.products.get(product_id)).version
        body = {"version": version, "reason": "out of season"}
        retired = await staff(gateway, f"/products/{product_id}/retire", body)
        assert (retired.status, retired.body["status"], retired.body["open_sales"]) == (200, "retired", sales)
    await graded.sales.close(sale_id, "staff ann")
    repeated = await staff(gateway, "/products/sock-1/retire", body)
    assert (repeated.status, repeated.body["open_sales"]) == (200, [])


async def test_figures_are_of_any_span(graded: CliServices, gateway: TestGateway) -> None:
    await QualityRecords(graded.db, graded.clock, ZoneInfo("UTC")).count()
    report = (await staff(gateway, "/reports/quality")).body
    assert (report["step"], [row["products"] for row in report["rows"]]) == ("day", [3])
    assert report["rows"][0]["grades"] == {"A": 0, "B": 0, "C": 0, "D": 0, "E": 3}
    drafts = (await staff(gateway, "/reports/quality?on_sale=false&by=category&step=month")).body
    assert [(row["category_id"], row["products"]) for row in drafts["rows"]] == [("shirts", 1)]
    long = (await staff(gateway, "/reports/quality?from=2020-01-01&to=2026-11-11")).body
    assert (long["step"], long["rows"]) == ("month", [])
    for query in ("from=2026-02-01&to=2026-01-01", "from=2001-01-01&to=2026-01-01", "from=today", "by=day"):
        assert (await staff(gateway, f"/reports/quality?{query}")).status in (400, 422), query


async def test_other_staff_see_no_quality(gateway: TestGateway) -> None:
    for path in ("/product-quality", "/products/shirt/quality", "/reports/quality"):
        assert (await staff(gateway, path, roles=("warehouse",))).status == 403


async def test_worker_grades_changed_products(settings: Settings, graded: CliServices) -> None:
    quick = settings.model_copy(update={"quality": QualitySettings(debounce_s=0)})
    async with run_workers(quick, "quality_worker"):
        await graded.catalog.put("sock-1", VariantInput("BRAND NEW SUPER SOCK", 9, "CNY"))

        async def is_graded() -> bool:
            async with graded.db.connection() as connection:
                query = "SELECT reasons @> '{shouting_name}' FROM product_quality WHERE product_id = 'sock-1'"
                days = await connection.fetchval("SELECT count(*) FROM product_quality_days")
                return bool(await connection.fetchval(query)) and days > 0

        await eventually(is_graded, timeout_s=20)

        async def is_measured() -> bool:
            labels = {"grade": "E"}
            return REGISTRY.get_sample_value("floodgate_product_grade_ratio", labels) == 1.0

        await eventually(is_measured, timeout_s=20)
