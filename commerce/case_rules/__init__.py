"""Ordered rules that decide cases, within a daily budget and with a switch that stops them."""
