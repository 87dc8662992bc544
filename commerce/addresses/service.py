"""The address book of customers."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from commerce.addresses import store
from commerce.addresses.errors import NoSuchAddress, TooManyAddresses
from commerce.addresses.model import SavedAddress
from commerce.kernel.address import Address, address_errors
from commerce.kernel.clock import Clock, from_ms
from commerce.kernel.errors import Invalid
from commerce.kernel.ids import IdGenerator
from commerce.kernel.postgres import Database


class Addresses:
    """Saved addresses over Postgres, at most `max_addresses` of a customer."""

    def __init__(self, db: Database, clock: Clock, ids: IdGenerator, max_addresses: int) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._max_addresses = max_addresses

    async def list_addresses(self, user_id: str) -> list[SavedAddress]:
        """List a customer's addresses: the default, then the newest."""
        async with self._db.connection() as connection:
            return await store.list_addresses(connection, user_id, self._max_addresses)

    async def get(self, user_id: str, address_id: UUID) -> SavedAddress:
        """Read an address. Raises `NoSuchAddress` if the customer has none with this id."""
        return (await self.get_many(user_id, [address_id]))[0]

    async def get_many(self, user_id: str, address_ids: Sequence[UUID]) -> list[SavedAddress]:
        """Read addresses in the given order. Raises `NoSuchAddress` for the first that is missing."""
        async with self._db.connection() as connection:
            addresses = await store.find_addresses(connection, user_id, address_ids)
        by_id = {saved.address_id: saved for saved in addresses}
        for address_id in address_ids:
            if address_id not in by_id:
                raise _no_such_address(address_id)
        return [by_id[address_id] for address_id in address_ids]

    async def add(self, user_id: str, address: Address) -> tuple[SavedAddress, bool]:
        """Save an address; the first one is the default.

        Returns it, and False if the customer has the same one already: a repeat adds nothing. Raises `Invalid` or
        `TooManyAddresses`.
        """
        check_address(address)
        async with self._db.transaction() as connection:
            await store.lock_address_book(connection, user_id)
            present = await store.list_addresses(connection, user_id, self._max_addresses)
            for saved in present:
                if saved.address == address:
                    return saved, False
            if len(present) >= self._max_addresses:
                raise TooManyAddresses(
                    f"cannot save another address: there are {len(present)} already; delete or replace one"
                )
            now = from_ms(self._clock.now_ms())
            saved = SavedAddress(self._ids.new(), address, not present, now, now)
            await store.insert_address(connection, user_id, saved)
        return saved, True

    async def replace(self, user_id: str, address_id: UUID, address: Address) -> SavedAddress:
        """Replace the content of an address; orders keep the old one. Raises `Invalid` or `NoSuchAddress`."""
        check_address(address)
        async with self._db.connection() as connection:
            now = from_ms(self._clock.now_ms())
            saved = await store.update_address(connection, user_id, address_id, address, now)
        if saved is None:
            raise _no_such_address(address_id)
        return saved

    async def set_default(self, user_id: str, address_id: UUID) -> SavedAddress:
        """Make an address the default in place of the present one. Raises `NoSuchAddress`."""
        async with self._db.transaction() as connection:
            await store.lock_address_book(connection, user_id)
            saved = await store.set_default(connection, user_id, address_id, from_ms(self._clock.now_ms()))
            if saved is None:
                raise _no_such_address(address_id)
        return saved

    async def delete(self, user_id: str, address_id: UUID) -> None:
        """Delete an address, if the customer has it. After the default no other becomes it unasked."""
        async with self._db.connection() as connection:
            await store.delete_address(connection, user_id, address_id)


def check_address(address: Address) -> None:
    """Check an address by the rules of orders. Raises `Invalid` with a JSON pointer for each error."""
    errors = [{"pointer": f"/{field}", "detail": detail} for field, detail in address_errors(address)]
    if errors:
        raise Invalid("; ".join(f"{error['pointer']}: {error['detail']}" for error in errors[:3]), errors=errors)


def _no_such_address(address_id: UUID) -> NoSuchAddress:
    return NoSuchAddress(f"there is no address {address_id}, or it is not yours")
