"""Audit: compares Redis, the stream, dead letters and Postgres with the promises P1 to P8."""
