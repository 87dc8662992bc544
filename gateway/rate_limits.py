"""Rate limits of orders and new carts: token buckets by user, address and device, in memory.

Each process counts its own orders; `fleet_usage` exchanges what is used much, so that a limit holds over all gateways.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from heapq import nlargest
from math import ceil
from typing import Annotated
from weakref import WeakValueDictionary

import msgspec

from commerce.kernel.clock import Clock
from commerce.kernel.compile_hints import mypyc_attr
from commerce.kernel.errors import Invalid
from config.settings import LimitSettings
from gateway.problems import RateLimited

DEVICE_HEADER = "X-Device-Id"
DeviceId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[!-~]+\Z")]
DEVICE_ID_INVALID = "not 1 to 64 printable ASCII characters without blanks"
_MAX_NAMES = 100_000
_MAX_DEBT_S = 60.0
_SHARES_PER_BURST = 4
_DEVICE_ID = re.compile(r"[!-~]{1,64}")


@mypyc_attr(native_class=False)  # it is held by weak references, which a native one cannot be
class Bucket:
    """The tokens of one user, address or device.

    They are kept as the time at which the bucket is full again: no timer fills it, and a check costs a few additions.
    """

    __slots__ = ("__weakref__", "_buckets", "_full_at", "name", "unshared")

    def __init__(self, name: str, buckets: TokenBuckets) -> None:
        self.name = name
        self._buckets = buckets
        self._full_at = 0.0
        self.unshared = 0
        """tokens taken here of which the other processes do not know"""

    def take(self, now: float) -> None:
        """Take a token. Raises `RateLimited` if there is none; a refusal takes nothing."""
        buckets, full_at = self._buckets, self._full_at
        if full_at < now:  # `max` takes twice as long
            full_at = now
        full_at += buckets.interval_s
        if full_at - now > buckets.depth_s:
            buckets.refused += 1
            raise buckets.refusal(full_at - now - buckets.depth_s)
        self._full_at = full_at
        self.unshared += 1
        if self.unshared >= buckets.share:
            buckets.to_share[self.name] = self

    def charge(self, tokens: int, now: float) -> None:
        """Take what was taken at another process. The bucket may be in debt then, for a minute at most."""
        buckets = self._buckets
        full_at = max(self._full_at, now) + tokens * buckets.interval_s
        self._full_at = min(full_at, now + buckets.depth_s + _MAX_DEBT_S)


class TokenBuckets:
    """The buckets of one limit: `burst` tokens each, refilled at `rate_per_s`.

    At most `_MAX_NAMES` are kept. When there are many recent ones they become the earlier ones, and the earlier ones
    are forgotten: all of them were idle while as many others ordered. Refused ones are recent too.
    """

    def __init__(
        self, kind: str, rate_per_s: float, burst: int, clock: Clock, random: Callable[[], float] = random.random
    ) -> None:
        self.kind = kind
        self.burst = burst
        self.interval_s = 1 / rate_per_s
        self.depth_s = burst * self.interval_s + 1e-6  # above the rounding errors of a day of additions
        self.share = max(1, burst // _SHARES_PER_BURST)
        """tokens that one process may give before the others learn of it"""
        self.random = random
        self.refused = 0
        self.to_share: dict[str, Bucket] = {}
        """buckets with `share` unshared tokens or more"""
        self._monotonic = clock.monotonic
        self.recent: dict[str, Bucket] = {}
        self._earlier: dict[str, Bucket] = {}
        self._held: WeakValueDictionary[str, Bucket] = WeakValueDictionary()

    def take(self, name: str) -> None:
        """Take a token of this name. Raises `RateLimited` if there is none."""
        self.find(name).take(self._monotonic())

    def find(self, name: str) -> Bucket:
        """Return the bucket of this name."""
        return self.recent.get(name) or self._find_older(name)

    def hold(self, name: str) -> Bucket:
        """Return the bucket of this name, which is not forgotten while the caller has it."""
        bucket = self._held[name] = self.find(name)
        return bucket

    def refusal(self, wait_s: float) -> RateLimited:
        """Build the refusal of a client whose next token comes in `wait_s`."""
        seconds = max(1, ceil(wait_s))
        retry_after_s = seconds + int(self.random() * (seconds / 2 + 1))
        return RateLimited(self.kind, 1 / self.interval_s, self.burst, seconds, retry_after_s)

    def _find_older(self, name: str) -> Bucket:
        """Return the bucket of a name that is not among the recent ones, and add it to them."""
        if len(self.recent) >= _MAX_NAMES // 2:
            self._earlier, self.recent = self.recent, {}
        bucket = self._earlier.pop(name, None) or self._held.get(name) or Bucket(name, self)
        self.recent[name] = bucket
        return bucket

    def take_unshared(self, max_names: int) -> dict[str, int]:
        """Return the unshared tokens of the heaviest names, and count them as shared.

        Those of other names stay in their buckets and come up again with the next token.
        """
        buckets: Iterable[Bucket] = self.to_share.values()
        if len(self.to_share) > max_names:
            buckets = nlargest(max_names, buckets, key=_count_unshared)
        used = {}
        for bucket in buckets:
            used[bucket.name], bucket.unshared = bucket.unshared, 0
        self.to_share = {}
        return used

    def charge(self, used: Iterable[tuple[str, int]]) -> None:
        """Take the tokens that another process has given, by name."""
        now = self._monotonic()
        for name, tokens in used:
            self.find(name).charge(tokens, now)


def _count_unshared(bucket: Bucket) -> int:
    return bucket.unshared


class RateLimits:
    """The limits of one process: per user, client address and device."""

    def __init__(self, limits: LimitSettings, clock: Clock) -> None:
        self.users = TokenBuckets("user", limits.orders_per_user_per_s, limits.orders_per_user_burst, clock)
        self.addresses = TokenBuckets(
            "address", limits.orders_per_address_per_s, limits.orders_per_address_burst, clock
        )
        self.devices = TokenBuckets("device", limits.orders_per_device_per_s, limits.orders_per_device_burst, clock)
        self.guest_carts = TokenBuckets(
            "guest_carts", limits.guest_carts_per_address_per_s, limits.guest_carts_per_address_burst, clock
        )
        """new carts of guests, by client address"""
        self.articles = TokenBuckets(
            "articles", limits.article_calls_per_address_per_s, limits.article_calls_per_address_burst, clock
        )
        """searches and ratings of articles, by client address"""
        self.searches = TokenBuckets(
            "searches", limits.product_searches_per_address_per_s, limits.product_searches_per_address_burst, clock
        )
        """searches of products and suggestions, by client address"""
        self.all = (self.users, self.addresses, self.devices, self.guest_carts, self.articles, self.searches)
        self._monotonic = clock.monotonic

    def check(self, user_id: str, address: Bucket | None, device: bytes | None) -> None:
        """Take a token of each; `device` is the device's id.

        The user comes first, so that a refused one takes none from the others at its address. Raises `RateLimited` at
        the first that has none, `Invalid` if the device's id is malformed.
        """
        now, users = self._monotonic(), self.users
        (users.recent.get(user_id) or users.find(user_id)).take(now)
        if device is not None:
            device_id = device.decode("latin-1")
            (self.devices.recent.get(device_id) or self._find_device(device_id)).take(now)
        if address is not None:
            address.take(now)

    def _find_device(self, device_id: str) -> Bucket:
        if not _DEVICE_ID.fullmatch(device_id):
            detail = f"{DEVICE_HEADER}: {DEVICE_ID_INVALID}"
            raise Invalid(detail, errors=[{"pointer": DEVICE_HEADER, "detail": DEVICE_ID_INVALID}])
        return self.devices.find(device_id)
