"""Imports of products from files, in two steps: a report of every line, then its application; and their export."""
