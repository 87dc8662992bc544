"""The HTTP front door: takes orders to Redis and reads back. No SQL and no business rules here."""
