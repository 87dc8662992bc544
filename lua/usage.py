"""The stream over which gateways report what was used of their rate limits. Losing it loses no order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from redis.asyncio import Redis

from lua.keys import USAGE

_MAX_REPORTS = 1_000
_KEPT_S = 10
_FIRST = b"0-0"
_REPORTER, _USED = b"reporter", b"used"

REFUSED_ORDERS = "refused_orders"
"""kind of a report that counts refused new orders by sale, for the automatic waiting rooms"""
Used = Mapping[str, Mapping[str, int]]
"""tokens used since the last report, by limit and by user, address or device; or orders by sale"""
_Name = Annotated[str, msgspec.Meta(max_length=128)]
_Tokens = Annotated[int, msgspec.Meta(ge=1)]
_decode = msgspec.msgpack.Decoder(dict[_Name, Annotated[dict[_Name, _Tokens], msgspec.Meta(max_length=1_000)]]).decode


class UsageReport(NamedTuple):
    """A report of one gateway process; `used` is None if it cannot be read."""

    id: bytes
    reporter: bytes
    used: Used | None


async def find_last_usage_report(client: Redis) -> bytes:
    """Return the id of the newest report, from which a gateway that starts reads on."""
    entries = await client.xrevrange(USAGE, count=1)
    return bytes(entries[0][0]) if entries else _FIRST  # type: ignore[arg-type]


async def share_usage(client: Redis, reporter: bytes, used: Used, after: bytes) -> list[UsageReport]:
    """Add a report, unless `used` is empty, and return all reports after the id `after`: one round trip.

    The newest reports are kept, and all are forgotten some seconds after the last one.
    """
    pipe = client.pipeline(transaction=False)
    if used:
        fields = {_REPORTER: reporter, _USED: msgspec.msgpack.encode(used)}
        pipe.xadd(USAGE, fields, maxlen=_MAX_REPORTS)  # type: ignore[arg-type]
        pipe.expire(USAGE, _KEPT_S)
    pipe.xread({USAGE: after}, count=_MAX_REPORTS)
    streams = (await pipe.execute())[-1]
    entries = streams[0][1] if streams else ()
    return [_report(entry_id, fields) for entry_id, fields in entries]


def _report(entry_id: bytes, fields: Mapping[bytes, bytes]) -> UsageReport:
    try:
        used = _decode(fields[_USED])
    except (KeyError, msgspec.MsgspecError):
        used = None
    return UsageReport(entry_id, fields.get(_REPORTER, b""), used)
