"""Shares of a gateway's connections to Postgres: customers, staff, webhooks and its own reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from redis.asyncio import Redis

from commerce.jobs.wake_ups import WakeUpListener, listen_for_changes, open_wake_ups
from commerce.kernel.clock import Clock
from commerce.kernel.connection_shares import ConnectionShares
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from config.settings import Settings
from gateway import metrics
from gateway.metrics_buffer import MetricsBuffer


@asynccontextmanager
async def open_databases(
    settings: Settings, metrics_buffer: MetricsBuffer, clock: Clock
) -> AsyncIterator[tuple[Redis, Database, WakeUpListener[UUID]]]:
    """Connect to both, with shares of Postgres, and send and receive wake-ups.

    Reads of the fast path name no share: they are customers'.
    """
    shares = settings.database_shares
    kept = {
        "customers": shares.customer_connections,
        "staff": shares.staff_connections,
        "webhooks": shares.webhook_connections,
        "background": shares.background_connections,
        "search": shares.search_connections,
    }
    divided = ConnectionShares(kept, shares.total_connections, "customers", metrics_buffer.observe_connection_wait)
    async with (
        connect_databases(settings, "gateway", shares=divided, extra_connections=1) as (redis, db),
        open_wake_ups(redis, db),
        listen_for_changes(redis, clock) as changes,
    ):
        yield redis, db, changes


def export_shares(shares: ConnectionShares) -> None:
    """Set the gauges of connections in use."""
    for share, in_use in shares.in_use.items():
        metrics.DATABASE_CONNECTIONS.labels(share).set(in_use)
