"""Warehouses, and the logistics of products: location, weight and size."""
