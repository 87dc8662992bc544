"""Journeys of simulated shipments: steps and durations, which seed and tracking number determine."""

from __future__ import annotations

from ops.sandbox.faults import CarrierFaults, FaultRegistry
from ops.sandbox.shipment_store import ShipmentStoreRefusal, SimulatedShipment, State

STEP_HOURS = {
    "picked_up": 4,
    "departed": 2,
    "arrived": 8,
    "unknown_code": 1,
    "out": 5,
    "failed": 4,
    "delivered": 4,
    "turned_back": 6,
    "returned": 30,
    "lost": 40,
}
"""Average hours until each step.

A shipment is picked up at the shop, departs from a place, arrives at the next, has an event with an unknown code, is
out for delivery, was not delivered at an attempt, is delivered, turned back, returned to the shop or declared lost."""
_NIGHT_HOURS = 15
"""Additional hours after a failed attempt: the next attempt is on the next day."""
_MAX_HOPS = 3
_HUBS = ("嘉兴市", "苏州市", "武汉市", "郑州市", "长沙市")
_FINAL_STATES: dict[str, State] = {"delivered": "delivered", "returned": "returned", "lost": "lost"}
TARGETS = ("picked_up", "out", "failed", "delivered", "returned", "lost")
"""Steps to which a shipment can be moved by hand."""


def plan_journey(fault_registry: FaultRegistry[CarrierFaults], carrier: str, tracking_no: str) -> tuple[str, ...]:
    """Return all steps that a new shipment will take."""
    faults, is_selected = fault_registry.get(carrier), fault_registry.is_selected
    hops = 1 + int(fault_registry.draw_fraction("hops", tracking_no) * _MAX_HOPS)
    journey = ["picked_up", *("departed", "arrived") * hops]
    if is_selected(faults.unknown_code_share, "unknown_code", tracking_no):
        journey.insert(2, "unknown_code")
    if is_selected(faults.lost_share, "lost", tracking_no):
        return (*journey[:-1], "lost")
    journey.append("out")
    if is_selected(faults.failed_share, "failed", tracking_no):
        journey += ["failed", "out"]
    if is_selected(faults.returned_share, "returned", tracking_no):
        return (*journey, "failed", "turned_back", "returned")
    return (*journey, "delivered")


def compute_due_ms(fault_registry: FaultRegistry[CarrierFaults], shipment: SimulatedShipment, time_factor: int) -> int:
    """Return the time of the next step of an open shipment."""
    step = shipment.next_step
    hours = STEP_HOURS[step]
    if step == "out" and shipment.journey[shipment.steps_done - 1] == "failed":
        hours += _NIGHT_HOURS
    factor = 0.5 + fault_registry.draw_fraction(f"delay {shipment.steps_done}", shipment.tracking_no)
    return shipment.last_step_ms + max(1, round(hours * factor * 3_600_000 / time_factor))


def state_after(step: str) -> State:
    """Return the state of a shipment that has taken this step."""
    return _FINAL_STATES.get(step, "in_transit")


def place_of_next_step(shipment: SimulatedShipment) -> str:
    """Return the place of the shipment's next step."""
    step, done = shipment.next_step, shipment.journey[: shipment.steps_done]
    hops, arrivals = shipment.journey.count("arrived"), done.count("arrived") + (step == "arrived")
    if step in ("picked_up", "returned") or arrivals == 0:
        return shipment.origin
    return shipment.destination if arrivals >= hops else _HUBS[(len(shipment.tracking_no) + arrivals) % len(_HUBS)]


def reroute(shipment: SimulatedShipment, target: str) -> tuple[str, ...]:
    """Return the journey of an open shipment, changed if needed so that it reaches the target.

    Raises `ShipmentStoreRefusal` (`too_late`) if the shipment has passed the target.
    """
    done, remaining = shipment.journey[: shipment.steps_done], shipment.journey[shipment.steps_done :]
    if target in remaining:
        return shipment.journey
    if target in ("picked_up", "out"):
        raise ShipmentStoreRefusal("too_late", f"the shipment has passed {target}")
    start = done if "picked_up" in done else (*done, "picked_up", "departed", "arrived")
    out = () if start[-1] == "out" else ("out",)
    journeys = {
        "failed": (*start, *out, "failed", "out", "delivered"),
        "delivered": (*start, *out, "delivered"),
        "returned": (*start, "turned_back", "returned"),
        "lost": (*start, "lost"),
    }
    return journeys[target]
