"""The subcommands of `floodgate`, a file for each group."""
