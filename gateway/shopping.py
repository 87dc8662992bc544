"""Services of customers who have not ordered yet: address book, cart, checkouts and quotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from commerce.addresses.service import Addresses
from commerce.cart.checkouts import Checkouts
from commerce.cart.guest_ids import GuestIds
from commerce.cart.model import CartLimits
from commerce.cart.service import Carts
from commerce.kernel.clock import Clock
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database
from commerce.payments.provider_port import Provider
from config.settings import Settings
from gateway.auth import room_ticket_key
from gateway.customer_carts import CustomerCarts
from gateway.order_placement import OrderPlacement
from gateway.public_pages import PublicPages
from gateway.quotes import OrderQuotes
from gateway.sale_snapshots import SaleSnapshots


@dataclass(frozen=True, slots=True)
class Shopping:
    """The services of customers who have not ordered yet."""

    addresses: Addresses
    carts: CustomerCarts
    quotes: OrderQuotes
    checkouts: Checkouts


def build_shopping(
    settings: Settings,
    db: Database,
    clock: Clock,
    ids: IdGenerator,
    snapshots: SaleSnapshots,
    pages: PublicPages,
    placement: OrderPlacement,
    redis: Redis,
    providers: Mapping[str, Provider],
) -> Shopping:
    """Build the services. Ids of guests' carts are signed with the key of waiting rooms, if there is one."""
    limits, key = settings.limits, room_ticket_key(settings.auth)
    carts = Carts(db, clock, ids, CartLimits(limits.lines_per_cart, limits.quantity_per_line))
    quotes = OrderQuotes(snapshots, placement, redis, clock, providers, settings.shipping)
    return Shopping(
        Addresses(db, clock, ids, limits.addresses_per_user),
        CustomerCarts(carts, snapshots, pages, quotes, GuestIds(key) if key else None, clock),
        quotes,
        Checkouts(db, clock, ids, limits.checkout_lease_s),
    )
