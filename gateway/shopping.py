"""Services of customers who have not ordered yet: the address book and the cart."""

from __future__ import annotations

from dataclasses import dataclass

from commerce.addresses.service import Addresses
from commerce.cart.guest_ids import GuestIds
from commerce.cart.model import CartLimits
from commerce.cart.service import Carts
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from config.settings import Settings
from gateway.auth import room_ticket_key
from gateway.customer_carts import CustomerCarts
from gateway.public_pages import PublicPages
from gateway.sale_snapshots import SaleSnapshots


@dataclass(frozen=True, slots=True)
class Shopping:
    """The services of customers who have not ordered yet."""

    addresses: Addresses
    carts: CustomerCarts


def build_shopping(
    settings: Settings, db: Database, clock: Clock, ids: IdGenerator, snapshots: SaleSnapshots, pages: PublicPages
) -> Shopping:
    """Build the services. Ids of guests' carts are signed with the key of waiting rooms, if there is one."""
    limits, key = settings.limits, room_ticket_key(settings.auth)
    carts = Carts(db, clock, ids, CartLimits(limits.lines_per_cart, limits.quantity_per_line))
    return Shopping(
        Addresses(db, clock, ids, limits.addresses_per_user),
        CustomerCarts(carts, snapshots, pages, GuestIds(key) if key else None, clock),
    )
