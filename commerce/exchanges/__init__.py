"""Exchanges: orders that replace units of another order."""
