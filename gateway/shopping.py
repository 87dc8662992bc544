"""Services of customers who have not ordered yet: the address book."""

from __future__ import annotations

from dataclasses import dataclass

from commerce.addresses.service import Addresses
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Shopping:
    """The services of customers who have not ordered yet."""

    addresses: Addresses


def build_shopping(settings: Settings, db: Database, clock: Clock, ids: IdGenerator) -> Shopping:
    """Build the services."""
    return Shopping(Addresses(db, clock, ids, settings.limits.addresses_per_user))
