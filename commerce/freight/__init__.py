"""Freight that customers pay: templates by region and weight, pieces or amount."""
