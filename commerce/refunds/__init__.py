"""Refund grants: how much of an order a customer gets back, and over which payments."""
