"""Checks the promises over Redis, the stream, the dead letters and Postgres, while orders flow or after."""
