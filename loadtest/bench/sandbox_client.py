"""Calls to the sandbox of payment providers and carriers."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from loadtest.bench.wrk import LoadFailed


async def call_sandbox(url: str, method: str, path: str, body: Any = None) -> Any:
    """Call the sandbox at `url` and return its answer. Raises `LoadFailed` if it refuses."""
    async with (
        aiohttp.ClientSession(headers={"Accept": "application/json"}) as client,
        client.request(method, url + path, data=None if body is None else orjson.dumps(body)) as answer,
    ):
        data = await answer.read()
    if answer.status != 200:
        raise LoadFailed(f"the sandbox answers {answer.status} to {method} {path}: {data.decode()[:300]}")
    return orjson.loads(data)
