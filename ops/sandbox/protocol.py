"""What the sandbox must know of the protocol of each provider and each carrier; the books, the switches and the page
are the same for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from aiohttp import web

from ops.sandbox.payment_store import DueNotice, SimulatedRefund, SimulatedTrade
from ops.sandbox.shipment_store import Event, SimulatedShipment
from ops.sandbox.webhook_sender import OutgoingWebhook


class Callback(NamedTuple):
    """A signed callback as it goes over the wire."""

    headers: dict[str, str]
    body: bytes


class SandboxProtocol(Protocol):
    """One provider's side of its protocol, served under `/<name>/` by the sandbox. It is made with the bank, the keys
    from set-up and these two functions: `on_trade(trade)` after a new trade was entered in the books, and
    `on_refund(trade, refund)` after a refund was; they plan payment by a robot and callbacks."""

    name: str

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """The provider's HTTP interface. Requests with a wrong signature are refused as the provider does."""
        ...

    def callback(self, notice: DueNotice, trade: SimulatedTrade, refund: SimulatedRefund | None) -> Callback:
        """A callback about the trade, or about the refund, with what is to be wrong with it."""
        ...

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Whether the merchant's answer to a callback means that it need not be sent again."""
        ...

    def statement(self, trades: Sequence[SimulatedTrade], refunds: Sequence[SimulatedRefund]) -> str:
        """The daily statement of these, as the provider writes it."""
        ...


class CarrierProtocol(Protocol):
    """One carrier's side of its protocol, served under `/<name>/` by the sandbox."""

    name: str

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """The carrier's HTTP interface. Requests with a wrong signature are refused as the carrier does."""
        ...

    def push(self, parcel: SimulatedShipment, events: Sequence[Event], *, wrong: bool) -> OutgoingWebhook:
        """News of the last of these events, which are all up to then; `wrong`: not signed rightly."""
        ...

    def is_accepted(self, status: int, body: bytes) -> bool:
        """Whether the shop's answer to a push means that it need not be sent again."""
        ...
