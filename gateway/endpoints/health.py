"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Literal

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from commerce.kernel import metrics
from gateway.operations import Call, Operation, json_response

DatabaseState = Literal["up", "read_only", "down"]


class Alive(msgspec.Struct, frozen=True):
    """The answer of a process that runs."""

    status: Literal["alive"]


class Readiness(msgspec.Struct, frozen=True):
    """The state of the dependencies: `checks` maps each to `ok` or to its error.

    `durability` is the promise of a 202 here. While the database is `down` or `read_only`, orders are accepted all the
    same; cancelling, and if it is `down` also reading them, has to wait.
    """

    status: Literal["ready", "not_ready"]
    durability: Literal["fsync", "replicated", "memory"]
    durability_meaning: str
    database: DatabaseState
    checks: dict[str, str]


_DURABILITY_MEANINGS = {
    "fsync": "an accepted order is on the disk of the Redis master",
    "replicated": "an accepted order is in the memory of the Redis master and of its replicas",
    "memory": "an accepted order may be lost: for trying out only",
}


async def live(call: Call) -> web.Response:
    """Answer that the process runs. Says nothing about its dependencies."""
    return json_response(Alive("alive"))


async def ready(call: Call) -> web.Response:
    """Answer whether orders can be accepted now.

    They can if Redis is as durable as promised and takes writes, and the process is not stopping. Prices and limits
    are in memory, so an unavailable database stops no order; `database` and `checks` report it.
    """
    services, durability = call.services, call.services.settings.durability
    checks = {
        "redis": services.adoption.problem or await services.redis_check.result(),
        "process": "it is stopping" if services.stopping.is_set() else "ok",
    }
    is_ready = all(result == "ok" for result in checks.values())
    # Both poll Postgres anyway; another query would only delay the probe.
    monitor, cannot_read = services.database_monitor, services.snapshots.unavailable_reason()
    cannot_log_in = None if monitor.is_read_only else monitor.failure
    checks["postgres"] = cannot_log_in or cannot_read or monitor.failure or "ok"
    readiness = Readiness(
        status="ready" if is_ready else "not_ready",
        durability=durability,
        durability_meaning=_DURABILITY_MEANINGS[durability],
        database=_database_state(is_read_only=not cannot_read and monitor.is_read_only, check=checks["postgres"]),
        checks=checks,
    )
    return json_response(readiness, 200 if is_ready else 503, {} if is_ready else {"Retry-After": "1"})


def _database_state(*, is_read_only: bool, check: str) -> DatabaseState:
    if is_read_only:
        return "read_only"
    return "up" if check == "ok" else "down"


async def read_metrics(call: Call) -> web.Response:
    """Read all metrics of this machine's processes, for Prometheus."""
    call.services.metrics_buffer.flush()
    body = await asyncio.get_running_loop().run_in_executor(None, metrics.render)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


_health = partial(Operation, method="GET", tag="health", access="anyone")

HEALTH = [
    _health(
        path="/health/live",
        handler=live,
        summary="Check that the process is alive",
        answers={200: ("alive", Alive)},
    ),
    _health(
        path="/health/ready",
        handler=ready,
        summary="Check that orders can be accepted",
        answers={200: ("ready", Readiness), 503: ("not ready", Readiness)},
    ),
]
METRICS = [
    _health(
        path="/metrics",
        handler=read_metrics,
        summary="Read metrics",
        answers={200: ("metrics in Prometheus's text format", None)},
        content_type="text/plain",
    )
]
