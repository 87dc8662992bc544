"""Is it alive, is it ready, what does it offer, what does it count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from commerce.kernel import metrics
from commerce.kernel.errors import ProblemError
from commerce.kernel.redis_client import check_redis
from gateway.operations import Call, Operation, json_response

_CHECK_S = 2.0


class Alive(msgspec.Struct, frozen=True):
    status: Literal["alive"]


class Readiness(msgspec.Struct, frozen=True):
    """`checks` says of each dependency `ok` or what is wrong. `durability` is what a 202 promises here.

    While the database is `down` orders are taken all the same; reading and cancelling them has to wait.
    """

    status: Literal["ready", "not_ready"]
    durability: Literal["fsync", "replicated", "memory"]
    durability_meaning: str
    database: Literal["up", "down"]
    checks: dict[str, str]


_DURABILITY_MEANINGS = {
    "fsync": "an accepted order is on the disk of the Redis master",
    "replicated": "an accepted order is in the memory of the Redis master and of its replicas",
    "memory": "an accepted order may be lost: for trying out only",
}


async def live(call: Call) -> web.Response:
    """The process answers. Says nothing of what it depends on."""
    return json_response(Alive("alive"))


async def ready(call: Call) -> web.Response:
    """Whether orders can be taken now: Redis is as durable as promised, and the process is not ending.

    Prices and limits are in memory, so a database that is away stops no order; `database` and `checks` tell of it.
    """
    services, durability = call.services, call.services.settings.durability
    checks = {
        "redis": await _check(check_redis(services.redis, durability, services.settings.replicas)),
        "process": "it is ending" if services.stopping.is_set() else "ok",
    }
    is_ready = all(said == "ok" for said in checks.values())
    # The sales are looked at twice a second anyway: to ask once more would only keep the probe waiting.
    trouble = services.snapshots.unavailable_reason()
    checks["postgres"] = trouble or "ok"
    status: Literal["ready", "not_ready"] = "ready" if is_ready else "not_ready"
    body = Readiness(status, durability, _DURABILITY_MEANINGS[durability], "down" if trouble else "up", checks)
    return json_response(body, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "1"})


async def _check(asked: Awaitable[None]) -> str:
    try:
        await asyncio.wait_for(asked, _CHECK_S)
    except TimeoutError:
        return f"no answer within {_CHECK_S:g} s"
    except ProblemError as error:
        return error.detail
    except Exception as error:  # noqa: BLE001  # whatever it is, it is not ready and this says why
        return f"{type(error).__name__}: {error}"
    return "ok"


async def read_metrics(call: Call) -> web.Response:
    """All metrics of this machine's processes, for Prometheus."""
    call.services.metrics_buffer.flush()
    body = await asyncio.get_running_loop().run_in_executor(None, metrics.render)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


HEALTH = [
    Operation("GET", "/health/live", live, "Is it alive?", "health", "anyone", {200: ("it is", Alive)}),
    Operation(
        "GET",
        "/health/ready",
        ready,
        "Can it take orders?",
        "health",
        "anyone",
        {200: ("it can", Readiness), 503: ("not now", Readiness)},
    ),
]
METRICS = [
    Operation(
        "GET",
        "/metrics",
        read_metrics,
        "Read metrics",
        "health",
        "anyone",
        {200: ("in Prometheus's text format", None)},
        content_type="text/plain",
    )
]
