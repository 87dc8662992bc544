"""Tools of operators: the `floodgate` command, the local stack, the sandbox."""
