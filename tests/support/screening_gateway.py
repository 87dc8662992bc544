"""Gateways that screen, for tests: customers with scores, joins, and solved challenges."""

from __future__ import annotations

from typing import Any

import altcha
from prometheus_client import REGISTRY

from commerce.kernel.clock import from_ms
from commerce.screening.model import Score, ScoreReason
from commerce.screening.store import set_scores
from ops.services import CliServices
from tests.support.gateway import GatewayResponse, TestGateway
from tests.support.screening import colleagues, make_screened_shop

SCREENING = {"enabled": True, "proof_attempts": 20}


async def give_scores(shop: CliServices, sale_id: str, scores: dict[str, int]) -> None:
    """Give customers scores as the worker does; where they come from is tested with it."""
    screened = make_screened_shop(shop)
    await screened.follow_sales()
    await screened.note_joins(sale_id, [(user_id, colleagues(1)[0][1]) for user_id in scores])
    await screened.score()
    values = {user: Score(score, (ScoreReason("device", score, 9),)) for user, score in scores.items()}
    async with shop.db.transaction() as connection:
        await set_scores(connection, sale_id, values, from_ms(shop.clock.now_ms()))


async def refresh(*gateways: TestGateway) -> None:
    """Let gateways read scores and rooms now."""
    for gateway in gateways:
        await gateway.services.screening_actions.refresh()
        await gateway.services.room_status.refresh()


async def join_room(
    gateway: TestGateway, sale_id: str, user: str, slow: bool = False, **headers: str
) -> GatewayResponse:
    """Join, on the fast path or, if `slow`, at aiohttp."""
    more = {"TE": "trailers"} if slow else {}  # aiohttp answers this head
    return await gateway.call("POST", f"/v1/sales/{sale_id}/room", user=user, headers={**headers, **more})


def read_metric(name: str, **labels: str) -> float:
    """Return a metric of this process, 0 before it is set."""
    return REGISTRY.get_sample_value(name, labels) or 0


def solve(challenge: dict[str, Any]) -> str:
    """Solve a challenge as a client does, with the library of the protocol's authors."""
    parsed = altcha.Challenge.from_dict(challenge)
    solution = altcha.solve_challenge(parsed)
    assert solution is not None
    return altcha.Payload(parsed, solution).to_base64()
