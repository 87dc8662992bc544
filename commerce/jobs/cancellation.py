"""Which parked jobs staff may cancel, and what to do about the others.

A job is not cancelled where money, stock or a shipment would stay half done. A kind that is not named here is refused.
"""

from __future__ import annotations

CANCELLABLE_KINDS = frozenset({"shipment.track", "return_shipment.poll"})
"""kinds whose work only brings what webhooks bring too"""

_INSTEAD = {
    "releases": "its stock would never be sold again: `floodgate rebuild SALE` applies it once",
    "stock_changes": "its units would be recorded and not for sale: `floodgate rebuild SALE` applies it once",
    "planned_prices": "its price would stay planned: cancel the planned price, or fix the cause and retry it",
    "payments": "its customer may have paid: fix the cause and retry it, or cancel the order",
    "refunds": "its customer waits for the money: fix the cause and retry it",
    "shipments": "its carrier may come for it: fix the cause and retry it, or `floodgate shipment cancel ID`",
    "cancellations": "its order would never end: fix the cause and retry it",
    "return_shipments": "its carrier may come for it: fix the cause and retry it, or cancel the return shipment",
    "cases": "its customer waits for an answer or for money: fix the cause and retry it",
    "conversations": "it would stay resolved and its customer would not be asked: fix the cause and retry it",
    "case_rules": "nothing is lost without it, as its case waits for staff: fix the cause and retry it",
    "pictures": "its product would wait for it for ever: fix the cause and retry it",
    "fulfilments": "its order would never be shipped: fix the cause and retry it, or refund the order",
}


def explain_refusal(queue: str) -> str:
    """Return why a job of this queue is not cancelled, and what to do instead."""
    return _INSTEAD.get(queue, "its work would stay undone: fix the cause and retry it")
