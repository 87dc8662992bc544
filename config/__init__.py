"""Settings: one frozen object, built once when a process starts."""
