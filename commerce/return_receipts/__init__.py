"""Receipts of returns, their surplus, inspections, and units that are sent back to customers."""
