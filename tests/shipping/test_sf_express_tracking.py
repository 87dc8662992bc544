"""The adapter of SF Express: tracking, with responses as documented."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from commerce.kernel.external import ExternalOutcomeUnknown
from commerce.shipping.carrier_port import TrackingEvent
from commerce.shipping.model import ShipmentStatus
from tests.shipping.sf_express_kit import (
    NUMBER,
    OTHER_NUMBER,
    RECIPIENT,
    error_response,
    make_adapter,
    route_entry,
    routes_response,
    success_response,
)


async def test_tracking_is_sorted_by_time() -> None:
    adapter, transport = make_adapter(
        routes_response(
            route_entry(
                "80", "2026-11-12 09:30:00", remark="已签收", acceptAddress="广州市", reasonCode="", firstStatusCode="4"
            ),
            route_entry("4711", "2026-11-11 23:59:59", remark=None, acceptAddress=None, reasonName="", reasonCode="9"),
            route_entry("50", "2026-11-11 08:00:00", remark="顺丰速运 已收取快件"),
            route_entry("33", "2026-11-11 12:00:00", remark="", reasonName="地址不详"),
        )
    )
    assert await adapter.fetch_tracking(NUMBER, "+86 139-2521 1148") == [
        TrackingEvent(
            datetime(2026, 11, 11, 0, 0, tzinfo=UTC),
            "50",
            "顺丰速运 已收取快件",
            ShipmentStatus.PICKED_UP,
            place="郑州市",
        ),
        TrackingEvent(datetime(2026, 11, 11, 4, 0, tzinfo=UTC), "33", "地址不详", place="郑州市"),
        TrackingEvent(
            datetime(2026, 11, 11, 15, 59, 59, tzinfo=UTC), "4711/9", "SF Express route 4711/9", is_unknown_code=True
        ),
        TrackingEvent(
            datetime(2026, 11, 12, 1, 30, tzinfo=UTC), "80", "已签收", ShipmentStatus.DELIVERED, place="广州市"
        ),
    ]
    assert transport.requests[0].message == {
        "language": "zh-CN",
        "trackingType": "1",
        "trackingNumber": [NUMBER],
        "methodType": "1",
        "checkPhoneNo": "1148",
    }


async def test_tracking_without_routes_is_empty() -> None:
    empty_responses = [
        routes_response(),
        success_response({"routeResps": []}),
        error_response("8018"),
        success_response({"routeResps": [{"mailNo": NUMBER, "routes": None}]}),
    ]
    adapter, _ = make_adapter(*empty_responses)
    for _ in empty_responses:
        assert await adapter.fetch_tracking(NUMBER, RECIPIENT.phone) == []


@pytest.mark.parametrize(
    "answer",
    [
        routes_response(route_entry("50"), number=OTHER_NUMBER),
        routes_response(route_entry("50", "2026-11-11")),
        routes_response(route_entry("50", "2026-11-11 8:00:00")),
        routes_response(route_entry("50", "2026-02-30 08:00:00")),
        routes_response(route_entry("50", "2026-11-11T08:00:00Z")),
        routes_response(route_entry("50", opCode=50)),
        routes_response(route_entry("50", acceptTime=None)),
        routes_response(route_entry("50", remark=7)),
        success_response({"routeResps": None}),
        success_response({"routeResps": [{"routes": []}]}),
        success_response([]),
        success_response(None),
    ],
)
async def test_unreadable_routes_are_an_unknown_outcome(answer: Any) -> None:
    adapter, _ = make_adapter(answer)
    with pytest.raises(ExternalOutcomeUnknown):
        await adapter.fetch_tracking(NUMBER, RECIPIENT.phone)
