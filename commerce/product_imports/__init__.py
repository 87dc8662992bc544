"""Imports of products from files in two steps, a report of every line and its application; exports."""
