"""P2, P3 at full load with processes killed by SIGKILL: some roles repeatedly, and all at once.

The clients do as the API demands: on 503 and on a lost connection they repeat with the same key until the outcome is
known. At the end every promised order must be stored once, and no other.
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
_MIN_ORDERS, _MAX_ORDERS = 500, 4_000  # accepted between two kills
_STALLED_AFTER_S = 60.0
_GATEWAYS_WITH_FAILPOINT = {**NO_LIMIT_PER_USER, "FLOODGATE_FAILPOINT": "intake.after_reserve:400"}


class KillLoad:
    """Orders over all connections without a pause until the load is stopped.

    A tenth of them repeat recent orders."""

    def __init__(self, stack: LocalStack, rng: Random) -> None:
        settings = stack.settings()
        self.record = ClientRecord("kills", lambda user: token(settings, user))
        self.seconds = 0.0
        self._stack = stack
        self._rng = rng
        self._is_stopping = False

    @asynccontextmanager
    async def run_in_background(self) -> AsyncIterator[None]:
        """Run the load until the block ends, and finish what was started. Raises an error of the load here."""
        started = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_requests(self._stack.port, self._rng, CONNECTIONS, self._generate_requests()))
            try:
                yield
            finally:
                self._is_stopping = True
        self.seconds = asyncio.get_running_loop().time() - started

    def _generate_requests(self) -> Iterator[RetriedRequest]:
        recent: deque[IntendedOrder] = deque(maxlen=200)
        while not self._is_stopping:
            if recent and self._rng.random() < 0.1:
                yield self.record.make_order_request(self._rng.choice(recent))
                continue
            number = len(self.record.intended_orders)
            units = {"tea": self._rng.randint(1, 3), "rice": 1} if self._rng.random() < 0.7 else {"phone": 1}
            recent.append(self.record.add_intended(f"u{self._rng.randrange(_USERS)}", f"key-{number}", units))
            yield self.record.make_order_request(recent[-1])

    async def wait_for_orders(self) -> None:
        """Wait until a random number of further orders is accepted, so that the next kill comes at any moment."""
        target = self.record.accepted + self._rng.randrange(_MIN_ORDERS, _MAX_ORDERS)
        deadline = asyncio.get_running_loop().time() + _STALLED_AFTER_S
        while self.record.accepted < target:
            assert asyncio.get_running_loop().time() < deadline, f"no orders: {self.record.format_summary()}"
            await asyncio.sleep(0.005)

    def format_summary(self) -> str:
        return f"in {self.seconds:.1f} s, {self.record.accepted} orders: {self.record.format_summary()}"


@pytest.fixture
async def load(stack: LocalStack, rng: Random) -> KillLoad:
    """A load for an open sale."""
    async with open_cli_services(stack.settings()) as shop:
        await make_sale(shop, "kills", {sku: (units, 990, _LIMITS.get(sku)) for sku, units in _INITIAL.items()})
    return KillLoad(stack, rng)


@pytest.mark.parametrize(
    ("roles", "kills"),
    [("writer", 5), ("gateway", 5), ("redis", 7), ("postgres", 4), ("writer gateway redis", 5)],
    ids=["writer", "gateway", "redis", "postgres", "three roles"],
)
async def test_roles_killed_repeatedly_keep_every_promised_order(
    stack: LocalStack, load: KillLoad, rng: Random, roles: str, kills: int
) -> None:
    """Kill the same roles several times.

    The supervisor delays each restart more than the last, so that the last outages take seconds. Those of Redis take
    longer than an order waits for it.
    """
    victims: list[int] = []
    async with load.run_in_background():
        for _ in range(kills):
            await load.wait_for_orders()
            victims += await stack.kill(rng, *roles.split())
        await load.wait_for_orders()
        await run_audit(stack, "kills")  # while orders flow
    assert len(set(victims)) == kills * len(roles.split())
    if "gateway" in roles:
        assert load.record.statuses["connection lost"] >= kills
    audit = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    print(f"\n{len(victims)} kills of {roles} {load.format_summary()}, difference {audit.differences}")


@pytest.mark.parametrize("stack", [_GATEWAYS_WITH_FAILPOINT], indirect=True, ids=["at every 400th batch"])
async def test_gateways_killed_before_reply_keep_orders_under_their_keys(stack: LocalStack, load: KillLoad) -> None:
    """Kill gateways between reservation and reply: only a repeat under the same key returns the order."""
    async with load.run_in_background():
        while (kills := stack.count_in_output("ended with status -9")) < 5:
            await load.wait_for_orders()
    repeated = sum(intended.times_accepted == 0 for intended in load.record.promised_orders().values())
    assert repeated > 0
    audit = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    print(f"\nGateways killed {kills} times during an order {load.format_summary()}, difference {audit.differences}")


async def test_all_processes_killed_at_once_keep_every_promised_order(stack: LocalStack, load: KillLoad) -> None:
    """Kill servers, gateways, workers and the supervisor, and restart on the same data. Twice."""
    loop = asyncio.get_running_loop()
    outages_s = []
    async with load.run_in_background():
        for _ in range(2):
            await load.wait_for_orders()
            killed_at = loop.time()
            await stack.kill_everything()
            await stack.start()
            outages_s.append(loop.time() - killed_at)
        await load.wait_for_orders()
        await run_audit(stack, "kills")
    assert load.record.statuses["connection lost"] >= CONNECTIONS
    assert load.record.statuses["connection refused"] > 0
    audit = await check_final_state(stack, load.record, _INITIAL, _LIMITS)
    times = " and ".join(f"{seconds:.1f} s" for seconds in outages_s)
    print(
        f"\nAll processes killed twice, open again after {times}, {load.format_summary()}, "
        f"difference {audit.differences}"
    )
