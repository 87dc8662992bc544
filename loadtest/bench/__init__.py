"""Benchmarks: cost of an order and speed of the writer, against peers, in one run on one machine."""
