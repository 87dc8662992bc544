"""Conversations of an order: whoever keeps them implements this port."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from commerce.kernel.postgres import Connection
from commerce.order_search.model import OrderConversation


class OrderConversations(Protocol):
    """Conversations with customers."""

    async def list_of_order(self, connection: Connection, order_id: UUID) -> list[OrderConversation]:
        """List the conversations about an order, oldest first."""
        ...


class NoConversations:
    """Conversations where nobody keeps any."""

    async def list_of_order(self, connection: Connection, order_id: UUID) -> list[OrderConversation]:
        return []
