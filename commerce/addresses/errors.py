"""Errors of the address book."""

from __future__ import annotations

from commerce.kernel.errors import Conflict, NotFound


class NoSuchAddress(NotFound):
    title = "There is no such address, or it is not yours"


class TooManyAddresses(Conflict):
    code = "too_many_addresses"
    title = "The address book is full"
