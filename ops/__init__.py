"""What operators use: the `floodgate` command, the embedded servers, the supervisor."""
