"""Cancellations of paid orders, whole or unit by unit, and the end of orders that do not arrive."""
