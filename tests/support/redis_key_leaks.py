"""Detection of Redis keys that `lua/keys.py` does not name or that belong to no sale of the test."""

from __future__ import annotations

import re

from redis import Redis

_EXPECTED_KEY = re.compile(
    rb"\{sale:([a-z0-9-]+)\}:(meta|stock|buyers|accepted|orders|fence|room|room-meta|room-left|held-back|offers|proofs"
    rb"|keys:\d+|changes:\d+)\Z"
)


def delete_keys(redis_url: str, sale_prefix: str) -> list[str]:
    """Delete all keys. Returns the names of those that are not expected of this test's sales."""
    with Redis.from_url(redis_url) as client:
        strays = []
        for key in client.scan_iter(count=1_000):
            if key == b"{sale:}:usage":  # of the gateways, of no sale
                client.delete(key)
                continue
            match = _EXPECTED_KEY.fullmatch(key)
            if match is None or not match[1].decode().startswith(sale_prefix):
                strays.append(key.decode(errors="replace"))
            client.delete(key)
        return strays
