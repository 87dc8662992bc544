"""Subcommands of `floodgate`, one module per group."""
