"""Refund grants: shares of units, allocation over payments, and what nobody may get back."""
