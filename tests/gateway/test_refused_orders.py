"""Refused orders are counted by sale where a sale has an automatic room."""

from __future__ import annotations

from gateway.refused_orders import RefusedOrders


def test_only_watched_sales_are_counted_wherever_the_body_names_them() -> None:
    refused = RefusedOrders()
    refused.count_body(b'{"sale_id":"a"}')
    assert refused.take(10) == {}, "no sale is watched"
    refused.sales = {"a", "b"}
    for body in (
        b'{"sale_id":"a","lines":[]}',
        b' { "lines": [], "sale_id" : "a" }',
        b'{"note":"\\"sale_id\\":\\"b\\"","sale_id":"a"}',
        b'{"sale_id":"c"}',
        b'{"sale_id":12}',
        b"\xff" * 10_000 + b'"sale_id":"b"',
        b"",
    ):
        refused.count_body(body)
    refused.count("b")
    refused.count("c")
    assert refused.take(1) == {"a": 3}
    assert refused.take(10) == {}
