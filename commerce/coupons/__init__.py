"""Coupons: units of a sale's stock that orders take together with their products."""
