"""Payments: several ways to pay one order, and books that balance."""
