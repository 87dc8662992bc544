"""P2, P3 at full load while processes are killed as by `kill -9`: one part over and over, and everything at once.

The clients do as the API says: on 503, and when a connection breaks, they repeat with the same key until the outcome
is clear. At the end every order they were promised must be there, once, and none that they were not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from ops.services import open_cli_services
from tests.drills.client_record import ClientRecord, IntendedOrder
from tests.drills.conftest import NO_LIMIT_PER_USER
from tests.drills.final_checks import check_final_state, run_audit
from tests.drills.local_stack import LocalStack
from tests.drills.retrying_client import RetriedRequest, run_requests
from tests.support.gateway import token
from tests.support.sales import make_sale

pytestmark = [pytest.mark.drill, pytest.mark.timeout(300)]
CONNECTIONS = 64
_USERS = 3_000
_INITIAL = {"phone": 2_000, "tea": 1_000_000, "rice": 1_000_000}
_LIMITS = {"phone": 1}
_FROM, _TO = 500, 4_000  # orders that are taken between two kills
_STALLED_S = 60.0
_DYING_GATEWAYS = {**NO_LIMIT_PER_USER, "FLOODGATE_FAILPOINT": "intake.after_reserve:400"}


class KillLoad:
    """Orders over all connections without a pause, one in ten of them a repeat of a recent one, until it is told to
    stop; then what was begun is brought to its end."""

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        settings = stack.settings()
        self.record = ClientRecord("kills", lambda user: token(settings, user))
        self.seconds = 0.0
        self._stack = stack
        self._rng = rng
        self._over = False

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Whatever ends the load early is raised here."""
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_requests(self._stack.port, self._rng, CONNECTIONS, self._errands()))
            try:
                yield
            finally:
                self._over = True
        self.seconds = asyncio.get_running_loop().time() - started

    def _errands(self) -> Iterator[RetriedRequest]:
        recent: deque[IntendedOrder] = deque(maxlen=200)
        while not self._over:
            if recent and self._rng.random() < 0.1:
                yield self.record.order(self._rng.choice(recent))
                continue
            number = len(self.record.wishes)
            units = {"tea": self._rng.randint(1, 3), "rice": 1} if self._rng.random() < 0.7 else {"phone": 1}
            recent.append(self.record.wish(f"u{self._rng.randrange(_USERS)}", f"key-{number}", units))
            yield self.record.order(recent[-1])

    async def more(self) -> None:
        """Wait until some more orders were accepted: how many is chance, so the next kill comes at any moment."""
        wanted = self.record.accepted + self._rng.randrange(_FROM, _TO)
        deadline = asyncio.get_running_loop().time() + _STALLED_S
        while self.record.accepted < wanted:
            assert asyncio.get_running_loop().time() < deadline, f"no orders any more: {self.record.figures()}"
            await asyncio.sleep(0.005)

    def figures(self) -> str:
        return f"in {self.seconds:.1f} s, {self.record.accepted} orders: {self.record.figures()}"


@pytest.fixture
async def load(stack: LocalStack, rng: Random) -> KillLoad:
    """A load for a sale that is open."""
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "kills", {sku: (units, 990, _LIMITS.get(sku)) for sku, units in _INITIAL.items()})
    return KillLoad(stack, rng)


@pytest.mark.parametrize(
    ("roles", "kills"),
    [("writer", 5), ("gateway", 5), ("redis", 7), ("postgres", 4), ("writer gateway redis", 5)],
    ids=["writer", "gateway", "redis", "postgres", "three at once"],
)
async def test_parts_are_killed_over_and_over(
    stack: LocalStack, load: KillLoad, rng: Random, roles: str, kills: int
) -> None:
    """What dies soon after its start is started later each time, so the last outages take seconds: that of Redis
    longer than an order waits for it."""
    victims: list[int] = []
    async with load.flowing():
        for _ in range(kills):
            await load.more()
            victims += await stack.kill(rng, *roles.split())
        await load.more()
        await run_audit(stack, "kills")  # while orders flow
    assert len(set(victims)) == kills * len(roles.split())
    if "gateway" in roles:
        assert load.record.statuses["connection broken"] >= kills
    found = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    print(f"\n{len(victims)} kills of {roles} {load.figures()}, difference {found.differences}")


@pytest.mark.parametrize("stack", [_DYING_GATEWAYS], indirect=True, ids=["at every 400th batch"])
async def test_gateways_die_between_redis_and_their_answer(stack: LocalStack, load: KillLoad) -> None:
    """The units are taken, nobody was told: only the same key brings the order to light."""
    async with load.flowing():
        while (deaths := stack.times_said("ended with status -9")) < 5:
            await load.more()
    again = sum(wish.accepted == 0 for wish in load.record.promised().values())
    assert again > 0
    found = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    print(f"\nGateways dead {deaths} times with an order in hand {load.figures()}, difference {found.differences}")


async def test_everything_is_killed_at_once(stack: LocalStack, load: KillLoad) -> None:
    """Servers, gateways, workers, and the supervisor; then it is started again on the same data. Twice."""
    loop = asyncio.get_running_loop()
    away = []
    async with load.flowing():
        for _ in range(2):
            await load.more()
            killed_at = loop.time()
            await stack.kill_everything()
            await stack.start()
            away.append(loop.time() - killed_at)
        await load.more()
        await run_audit(stack, "kills")
    assert load.record.statuses["connection broken"] >= CONNECTIONS
    assert load.record.statuses["nobody listens"] > 0
    found = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    times = " and ".join(f"{seconds:.1f} s" for seconds in away)
    print(f"\neverything killed twice, open again after {times}, {load.figures()}, difference {found.differences}")
