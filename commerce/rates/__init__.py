"""Carriers' price tables, and the choice of a carrier by them."""
