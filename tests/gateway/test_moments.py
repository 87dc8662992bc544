"""Moments and days that the API takes lie in the years 2000 to 2999; all others are 422."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import msgspec.inspect

from commerce.kernel.moments import Moment, WithMoments
from gateway.app import ADMIN, PUBLIC
from gateway.operations import Operation
from ops.services import CliServices
from tests.support.gateway import TestGateway
from tests.support.sales import make_sale

OUT_OF_BOUNDS = [
    "0001-01-01T00:00:00Z",  # what asyncpg stores as -infinity
    "0001-01-01T00:00:00+14:00",
    "1999-12-31T23:59:59.999999Z",
    "2000-01-01T00:00:00+00:01",
    "2999-12-31T23:59:59-00:01",
    "3000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999Z",  # what asyncpg stores as infinity
    "9999-12-31T23:59:59-14:00",
]
DAY_OR_MOMENT = (msgspec.inspect.DateType, msgspec.inspect.DateTimeType)


def _structs(type_: Any, visited: set[type]) -> Iterator[msgspec.inspect.StructType]:
    """Yield the structs of a type, nested ones included."""
    if isinstance(type_, msgspec.inspect.StructType):
        if type_.cls in visited:
            return
        visited.add(type_.cls)
        yield type_
        parts: Any = [field.type for field in type_.fields]
    else:
        parts = [getattr(type_, name) for name in getattr(type_, "__struct_fields__", ())]
    for part in parts:
        for inner in part if isinstance(part, tuple) else (part,):
            if isinstance(inner, msgspec.inspect.Type):
                yield from _structs(inner, visited)


def _takes_moments(type_: Any) -> bool:
    if isinstance(type_, msgspec.inspect.UnionType):
        return any(_takes_moments(part) for part in type_.types)
    return isinstance(type_.type if isinstance(type_, msgspec.inspect.Metadata) else type_, DAY_OR_MOMENT)


def test_struct_of_a_body_with_moments_is_bounded() -> None:
    structs = {
        struct.cls
        for operation in (*PUBLIC, *ADMIN)
        if operation.body is not None
        for struct in _structs(msgspec.inspect.type_info(operation.body), set())
        if any(_takes_moments(field.type) for field in struct.fields)
    }
    assert {cls.__name__ for cls in structs} >= {"SaleInput"}
    assert [cls for cls in structs if not issubclass(cls, WithMoments)] == []


async def test_sale_with_time_out_of_bounds_is_refused(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    for field, moment in product(("opens_at", "closes_at"), OUT_OF_BOUNDS):
        times = {"opens_at": "2000-01-01T00:00:00Z", "closes_at": "2999-12-31T23:59:59Z"} | {field: moment}
        sale = {"sale_id": sale_id, "title": "A sale", "currency": "CNY", **times}
        answer = await gateway.call("POST", "/v1/admin/sales", roles=["sales"], json={"sale": sale})
        assert (answer.status, answer.code) == (422, "invalid"), (field, moment)
        assert f"{field}: " in answer.body["detail"]
        assert "is not in the years 2000 to 2999" in answer.body["detail"]
        assert answer.body["errors"][0]["pointer"] == "/sale"
    assert (await shop.sales.list_sales(None, 10, drafts=True)).items == []


async def test_sale_with_times_at_the_bounds_is_opened(gateway: TestGateway, shop: CliServices, sale_id: str) -> None:
    await make_sale(shop, f"{sale_id}-other", {"a": (5, 100, None)})
    sale = {
        "sale_id": sale_id,
        "title": "A sale",
        "currency": "CNY",
        "opens_at": "2000-01-01T00:00:00Z",
        "closes_at": "2999-12-31T23:59:59Z",
    }
    body = {"sale": sale, "items": {"a": {"units": 5}}}
    assert (await gateway.call("POST", "/v1/admin/sales", roles=["sales"], json=body)).status == 201
    answer = await gateway.call("POST", f"/v1/admin/sales/{sale_id}/open", roles=["sales"])
    assert (answer.status, answer.body["published_generation"]) == (200, answer.body["generation"])
    assert (await shop.audit.audit_sale(sale_id)).clean


def _day_parameters() -> Iterator[tuple[Operation, str, str]]:
    """Yield parameters with what a value has after the day: a moment's is its time."""
    for operation in (*PUBLIC, *ADMIN):
        for parameter in operation.parameters:
            if _takes_moments(msgspec.inspect.type_info(parameter.type)):
                yield operation, parameter.name, "T00:00:00Z" if parameter.type == Moment else ""


async def test_parameter_out_of_bounds_is_refused(gateway: TestGateway) -> None:
    parameters = list(_day_parameters())
    assert parameters
    for (operation, name, time), day in product(parameters, ("0001-01-01", "1999-12-31", "3000-01-01", "9999-12-31")):
        roles = [] if operation.access in ("anyone", "customer") else [operation.access]
        answer = await gateway.call(operation.method, f"{operation.path}?{name}={day}{time}", roles=roles)
        assert (answer.status, answer.code) == (422, "invalid"), operation.path
        value = f"{day}{time.replace('Z', '+00:00')}"
        assert answer.body["detail"] == f"{name}: {value} is not in the years 2000 to 2999"
