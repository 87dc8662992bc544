"""Connections to Redis, and the check that the server really is as safe as the settings claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    BusyLoadingError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from commerce.kernel.errors import NotReady

MIN_VERSION = (6, 2)

DOWN = (exceptions.ConnectionError, exceptions.TimeoutError, BusyLoadingError, ReadOnlyError, OSError)
"""What it looks like when Redis is away, loading or no longer the master: try again later."""


class NotDurable(NotReady):
    """The server does not keep what the setting `durability` promises."""


def open_redis(url: str, *, timeout_ms: int, connections: int, name: str) -> Redis:
    """A client with its own pool. It never retries by itself: whoever calls knows what a repeat means."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
        max_connections=connections,
        client_name=f"floodgate-{name}",
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


async def check_redis(client: Redis, durability: str, replicas: int) -> None:
    """Raise `NotReady` for a server that is too old or evicts, `NotDurable` for one that keeps less than promised."""
    try:
        version = str((await client.info("server"))["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
            raise NotReady(f"Redis {version} is too old: Floodgate needs {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer")
        config = await client.config_get("*append*") | await client.config_get("maxmemory*")
        info = await client.info("persistence")
        replication = await client.info("replication")
    except NoPermissionError as error:
        raise NotDurable(
            f"Redis does not let us look at its settings ({error}), so durability {durability!r} cannot be checked: "
            "allow this user CONFIG GET and INFO"
        ) from None
    except ResponseError as error:
        raise NotDurable(f"Redis does not tell its settings ({error}); Floodgate needs CONFIG GET and INFO") from None
    except (RedisError, OSError) as error:
        raise NotReady(f"Redis does not answer: {error}") from error
    if faults := _faults(_text(config), info, replication, durability, replicas):
        raise NotDurable(f"Redis does not keep what durability {durability!r} promises: {'; '.join(faults)}")


def _text(config: Mapping[Any, Any]) -> dict[str, str]:
    return {
        (key.decode() if isinstance(key, bytes) else key): (value.decode() if isinstance(value, bytes) else str(value))
        for key, value in config.items()
    }


def _faults(
    config: dict[str, str], info: Mapping[str, Any], replication: Mapping[str, Any], durability: str, replicas: int
) -> list[str]:
    faults = []
    if config.get("maxmemory", "0") != "0" and config.get("maxmemory-policy") != "noeviction":
        faults.append("it may evict stock and orders (set maxmemory-policy to noeviction)")
    if replication.get("role") != "master":
        faults.append("it is a replica (give the master's address)")
    if durability == "replicated" and int(replication.get("connected_slaves", 0)) < replicas:
        faults.append(f"it has {replication.get('connected_slaves', 0)} of {replicas} replicas")
    if durability == "fsync":
        if config.get("appendonly") != "yes":
            faults.append("it writes no append-only file (set appendonly to yes)")
        if config.get("appendfsync") != "always":
            faults.append("it answers before the disk has it (set appendfsync to always)")
        if config.get("no-appendfsync-on-rewrite") == "yes":
            faults.append("it stops syncing during a rewrite (set no-appendfsync-on-rewrite to no)")
        if info.get("aof_last_write_status", "ok") != "ok":
            faults.append("its last write to the append-only file failed (is the disk full?)")
    return faults
