"""Categories over HTTP: from memory in the reader's language, and changes by staff."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.sales import eventually
from tests.support.taxonomies import import_small_taxonomy

ZH = {"Accept-Language": "zh-TW, fr;q=0.5"}


@pytest.fixture
async def taxonomy(shop: CliServices, tmp_path: Path) -> None:
    await import_small_taxonomy(shop, tmp_path / "taxonomy")


async def read(gateway: TestGateway, path: str, headers: dict[str, str] | None = None) -> GatewayResponse:
    return await gateway.call("GET", f"/v1/categories{path}", user=None, headers=headers)


async def staff(
    gateway: TestGateway, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> GatewayResponse:
    return await gateway.call(method, f"/v1/admin{path}", user="ann", roles=["catalog"], json=body, headers=headers)


@pytest.mark.usefixtures("taxonomy")
async def test_tree_is_read_level_by_level_in_the_language_of_the_reader(gateway: TestGateway) -> None:
    roots = await read(gateway, "?limit=1", ZH)
    assert roots.body["items"] == [{"category_id": "gc", "name": "Gift Cards", "has_children": False}]
    rest = await read(gateway, f"?limit=5&cursor={roots.body['next']}", ZH)
    assert rest.body == {"items": [{"category_id": "lb", "name": "箱包", "has_children": True}], "next": None}
    assert rest.headers["Vary"] == "Accept-Language"
    assert rest.headers["Cache-Control"] == "public, max-age=60"
    children = (await read(gateway, "?parent_id=lb")).body["items"]
    assert [(child["category_id"], child["name"]) for child in children] == [("lb-1", "Backpacks"), ("lb-2", "Totes")]


@pytest.mark.usefixtures("taxonomy")
async def test_category_has_path_and_attributes_with_inherited_ones(gateway: TestGateway) -> None:
    category = (await read(gateway, "/lb-1", ZH)).body
    assert (category["name"], category["language"]) == ("双肩包", "zh-CN")
    assert category["path"] == [{"category_id": "lb", "name": "箱包"}, {"category_id": "lb-1", "name": "双肩包"}]
    features, color = category["attributes"]
    assert (features["attribute_id"], features["defined_in"], features["name"]) == ("bag/features", "lb-1", "箱包特征")
    assert color == {
        "attribute_id": "color",
        "name": "颜色",
        "description": "Defines the primary color, such as blue",
        "kind": "choices",
        "unit": None,
        "rule": "optional",
        "defined_in": "lb",
        "choices": [{"choice_id": "color__red", "name": "红色"}, {"choice_id": "color__blue", "name": "蓝色"}],
    }


@pytest.mark.usefixtures("taxonomy")
async def test_unchanged_category_is_not_sent_until_it_changes(gateway: TestGateway) -> None:
    first = await read(gateway, "/lb-2")
    tag = {"If-None-Match": first.headers["ETag"]}
    assert (await read(gateway, "/lb-2", tag)).status == 304
    body = {"parent_id": "lb", "names": {"en": "Tote Bags"}, "reason": "clearer"}
    assert (await staff(gateway, "PUT", "/categories/lb-2", body)).status == 200

    async def is_new() -> bool:
        return (await read(gateway, "/lb-2", tag)).body is not None

    await eventually(is_new)
    assert (await read(gateway, "/lb-2", ZH)).body["name"] == "Tote Bags"


@pytest.mark.usefixtures("taxonomy")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 404),
        ("?parent_id=nowhere", 404),
        ("/LB", 422),
        ("?cursor=x", 422),
        ("?cursor=99%20zz", 200),
        (f"?parent_id={'a' * 65}", 422),
    ],
)
async def test_unknown_or_wrong_id_is_refused(gateway: TestGateway, path: str, status: int) -> None:
    assert (await read(gateway, path)).status == status


@pytest.mark.usefixtures("taxonomy")
async def test_staff_move_merge_retire_and_restore(gateway: TestGateway) -> None:
    assert (await gateway.call("GET", "/v1/admin/categories/lb", user="ann", roles=["sales"])).status == 403
    moved = await staff(gateway, "POST", "/categories/lb-1-9/move", {"parent_id": "gc", "reason": "tidy"})
    assert [part["category_id"] for part in moved.body["path"]] == ["gc", "lb-1-9"]
    loop = await staff(gateway, "POST", "/categories/gc/move", {"parent_id": "lb-1-9", "reason": "tidy"})
    assert (loop.status, loop.body["code"]) == (409, "category_loop")
    key = {"Idempotency-Key": "merge-1"}
    merge = {"into": "lb-2", "reason": "alike"}
    merged = await staff(gateway, "POST", "/categories/lb-1/merge", merge, key)
    assert (merged.body["status"], merged.body["merged_into"]) == ("retired", "lb-2")
    assert (await staff(gateway, "POST", "/categories/lb-1/merge", merge, key)).body == merged.body
    assert (await read(gateway, "/lb-1")).body["merged_into"] == "lb-2"
    into_retired = await staff(gateway, "POST", "/categories/gc/merge", {"into": "lb-1", "reason": "alike"})
    assert (into_retired.body["code"], into_retired.body["merged_into"]) == ("category_retired", "lb-2")
    assert (await staff(gateway, "POST", "/categories/lb-2/retire", {"reason": "x", "version": 9})).status == 409
    assert (await staff(gateway, "POST", "/categories/lb-2/retire", {"reason": "x"})).body["status"] == "retired"
    assert (await staff(gateway, "POST", "/categories/lb-2/restore", {"reason": "x"})).body["status"] == "active"
    changes = (await staff(gateway, "GET", "/category-changes?category_id=lb-2")).body["items"]
    assert [change["kind"] for change in changes] == ["restored", "retired", "created"]
    assert {change["actor"] for change in changes[:2]} == {"staff ann"}


@pytest.mark.usefixtures("taxonomy")
async def test_staff_put_attributes_with_a_slash_in_the_id(gateway: TestGateway) -> None:
    shown = (await staff(gateway, "GET", "/attributes/bag%2Ffeatures")).body
    assert (shown["attribute_id"], len(shown["choices"])) == ("bag/features", 4)
    body = {"kind": "number", "unit": "cm", "names": {"en": "Height", "zh-CN": "高度"}, "reason": "new"}
    assert (await staff(gateway, "PUT", "/attributes/height", body)).body["unit"] == "cm"
    listed = (await staff(gateway, "GET", "/attributes?limit=2")).body
    assert [item["attribute_id"] for item in listed["items"]] == ["bag/features", "color"]
    assert (await staff(gateway, "PUT", "/attributes/height", {**body, "kind": "text", "unit": None})).status == 422
    for wrong in (
        {"kind": "text", "unit": "cm", "names": {"en": "A"}, "reason": "x"},
        {"kind": "choice", "names": {"en": "A"}, "reason": "x"},
        {"kind": "text", "names": {}, "reason": "x"},
        {"kind": "text", "names": {"english": "A"}, "reason": "x"},
        {"kind": "sound", "names": {"en": "A"}, "reason": "x"},
    ):
        assert (await staff(gateway, "PUT", "/attributes/wrong", wrong)).status == 422, wrong


@pytest.mark.usefixtures("taxonomy")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"names": {"en": "A > B"}}, "stands between the names of a path"),
        ({"names": {"en": "x" * 201}}, "length <= 200"),
        ({"names": {"en": "---"}}, "at least one letter or digit"),
        ({"attributes": {"color": "maybe"}}, "maybe"),
        ({"attributes": {"size": "required"}}, "there is no attribute 'size'"),
        ({"parent_id": "nowhere"}, "there is no category 'nowhere'"),
        ({"reason": ""}, "reason"),
    ],
)
async def test_wrong_category_is_refused_with_the_reason(
    gateway: TestGateway, body: dict[str, Any], reason: str
) -> None:
    answer = await staff(
        gateway, "PUT", "/categories/new", {"parent_id": None, "names": {"en": "New"}, "reason": "new", **body}
    )
    assert answer.status in (404, 422)
    assert reason in answer.text
