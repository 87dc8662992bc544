"""The shop's own vans."""

from commerce.shipping.carriers.own_fleet.adapter import OwnFleet

__all__ = ["OwnFleet"]
