"""Rules that decide cases."""
