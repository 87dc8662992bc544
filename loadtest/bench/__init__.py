"""Benchmarks: what an accepted order costs and how fast it is stored, against peers, in one run on one machine."""
