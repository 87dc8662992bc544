"""Shares of a gateway's connections to Postgres: customers, staff, webhooks and its own reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from commerce.jobs.wake_ups import open_wake_ups
from commerce.kernel.connection_shares import ConnectionShares
from commerce.kernel.postgres import Database
from commerce.kernel.startup import connect_databases
from config.settings import Settings
from gateway import metrics
from gateway.metrics_buffer import MetricsBuffer


@asynccontextmanager
async def open_databases(settings: Settings, metrics_buffer: MetricsBuffer) -> AsyncIterator[tuple[Redis, Database]]:
    """Connect to both, with shares of Postgres, and wake workers after commits that have put due jobs.

    Reads of the fast path name no share: they are customers'.
    """
    shares = settings.database_shares
    kept = {
        "customers": shares.customer_connections,
        "staff": shares.staff_connections,
        "webhooks": shares.webhook_connections,
        "background": shares.background_connections,
    }
    divided = ConnectionShares(kept, shares.total_connections, "customers", metrics_buffer.observe_connection_wait)
    async with (
        connect_databases(settings, "gateway", shares=divided) as (redis, db),
        open_wake_ups(redis, db),
    ):
        yield redis, db


def export_shares(shares: ConnectionShares) -> None:
    """Set the gauges of connections in use."""
    for share, in_use in shares.in_use.items():
        metrics.DATABASE_CONNECTIONS.labels(share).set(in_use)
