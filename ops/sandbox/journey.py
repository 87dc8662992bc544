"""What becomes of a parcel: the steps of its road and how long each takes. The same for the same seed and number."""

from __future__ import annotations

from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.shipment_store import ShipmentStoreRefusal, SimulatedShipment, State

HOURS = {
    "picked_up": 4,
    "left": 2,
    "arrived": 8,
    "odd": 1,
    "out": 5,
    "failed": 4,
    "delivered": 4,
    "turned": 6,
    "returned": 30,
    "lost": 40,
}
"""A step takes so long, more or less: the courier takes it from the shop, it leaves a place, it comes to the next,
something with a code that nobody knows, it is out for delivery, nobody was at home, it is at the door, it is on its way
back, it is back at the shop, it is given up as lost."""
_NIGHT_HOURS = 15
"""After a door that stayed shut the courier comes on the next day."""
_MOST_HOPS = 3
_HUBS = ("嘉兴市", "苏州市", "武汉市", "郑州市", "长沙市")
_STATES: dict[str, State] = {"delivered": "delivered", "returned": "returned", "lost": "lost"}
TARGETS = ("picked_up", "out", "failed", "delivered", "returned", "lost")
"""What somebody can make happen to a parcel."""


def plan_journey(board: FaultRegistry[CarrierFaults], carrier: str, number: str) -> tuple[str, ...]:
    """All steps that a new parcel will take."""
    switches = board.of(carrier)
    hops = 1 + int(board.chance("hops", number) * _MOST_HOPS)
    road = ["picked_up", *("left", "arrived") * hops]
    if board.hits(switches.unknown_code_share, "unknown_code", number):
        road.insert(2, "odd")
    if board.hits(switches.lost_share, "lost", number):
        return (*road[:-1], "lost")
    road.append("out")
    if board.hits(switches.failed_share, "failed", number):
        road += ["failed", "out"]
    if board.hits(switches.returned_share, "returned", number):
        return (*road, "failed", "turned", "returned")
    return (*road, "delivered")


def due_ms(board: FaultRegistry[CarrierFaults], parcel: SimulatedShipment, speed: int) -> int:
    """When an open parcel takes its next step."""
    step, hours = parcel.road[parcel.step], HOURS[parcel.road[parcel.step]]
    if step == "out" and parcel.road[parcel.step - 1] == "failed":
        hours += _NIGHT_HOURS
    share = 0.5 + board.chance(f"delay {parcel.step}", parcel.number)
    return parcel.since_ms + max(1, round(hours * share * 3_600_000 / speed))


def state_after(step: str) -> State:
    """Where a parcel is that has taken this step."""
    return _STATES.get(step, "on_the_way")


def place_of(parcel: SimulatedShipment) -> str:
    """Where the parcel's next step is taken."""
    step, done = parcel.road[parcel.step], parcel.road[: parcel.step]
    hops, been = parcel.road.count("arrived"), done.count("arrived") + (step == "arrived")
    if step in ("picked_up", "returned") or been == 0:
        return parcel.origin
    return parcel.destination if been >= hops else _HUBS[(len(parcel.number) + been) % len(_HUBS)]


def road_to(parcel: SimulatedShipment, target: str) -> tuple[str, ...]:
    """The road of an open parcel that will come to the target, changed if it would not have. Raises `too_late` where it
    has been there."""
    done, rest = parcel.road[: parcel.step], parcel.road[parcel.step :]
    if target in rest:
        return parcel.road
    if target in ("picked_up", "out"):
        raise ShipmentStoreRefusal("too_late", "the parcel has been there")
    on = done if "picked_up" in done else (*done, "picked_up", "left", "arrived")
    out = () if on[-1] == "out" else ("out",)
    ways = {
        "failed": (*on, *out, "failed", "out", "delivered"),
        "delivered": (*on, *out, "delivered"),
        "returned": (*on, "turned", "returned"),
        "lost": (*on, "lost"),
    }
    return ways[target]
