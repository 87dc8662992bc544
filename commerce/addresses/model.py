"""Saved addresses."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from commerce.kernel.address import Address


class SavedAddress(msgspec.Struct, frozen=True):
    """An address of a customer's address book. At most one of them is the default."""

    address_id: UUID
    address: Address
    is_default: bool
    created_at: datetime
    updated_at: datetime
