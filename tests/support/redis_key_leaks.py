"""Every key that a test leaves in Redis must be one that `lua/keys.py` names, of a sale that the test made."""

from __future__ import annotations

import re

from redis import Redis

_KNOWN = re.compile(rb"\{sale:([a-z0-9-]+)\}:(meta|stock|buyers|accepted|orders|fence|keys:\d+|changes:\d+)\Z")


def sweep(redis_url: str, sale_prefix: str) -> list[str]:
    """Delete the keys of this test's sales and give the names of all others, which nobody should have made."""
    with Redis.from_url(redis_url) as client:
        strays = []
        for key in client.scan_iter(count=1_000):
            known = _KNOWN.fullmatch(key)
            if known is None or not known[1].decode().startswith(sale_prefix):
                strays.append(key.decode(errors="replace"))
            client.delete(key)
        return strays
