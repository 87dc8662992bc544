"""Interfaces between the sandbox and each protocol; stores, faults and pages are common to all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from ops.sandbox.payment_store import DuePaymentWebhook, SimulatedRefund, SimulatedTrade
from ops.sandbox.shipment_store import SimulatedEvent, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook


class SignedWebhook(NamedTuple):
    """Headers and body of a webhook to the merchant."""

    headers: dict[str, str]
    body: bytes


class ProviderProtocol(Protocol):
    """One provider's side of its protocol, served by the sandbox under `/<name>/`.

    An implementation is constructed with the payment store, the keys and two functions. It calls `on_trade(trade)`
    after it stored a new trade, and `on_refund(trade, refund)` after a refund. These schedule robot payments and
    webhooks.
    """

    name: str

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the provider's HTTP interface, which refuses wrong signatures as the provider does."""
        ...

    def build_webhook(
        self, due_webhook: DuePaymentWebhook, trade: SimulatedTrade, refund: SimulatedRefund | None
    ) -> SignedWebhook:
        """Build the webhook about the trade, or about its refund, with the requested defect."""
        ...

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Return True if the merchant's response to a webhook means that no further attempt is needed."""
        ...

    def build_statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        """Return the daily statement of these movements in the provider's format."""
        ...


class CarrierProtocol(Protocol):
    """One carrier's side of its protocol, served by the sandbox under `/<name>/`."""

    name: str

    def build_routes(self) -> Sequence[web.AbstractRouteDef]:
        """Return the carrier's HTTP interface, which refuses wrong signatures as the carrier does."""
        ...

    def build_webhook(
        self, shipment: SimulatedShipment, events: Sequence[SimulatedEvent], *, has_wrong_signature: bool
    ) -> OutgoingWebhook:
        """Build the webhook about the last of `events`, which are all events until then."""
        ...

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Return True if the shop's response to a webhook means that no further attempt is needed."""
        ...
