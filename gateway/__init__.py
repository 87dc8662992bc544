"""The HTTP server: takes orders to Redis and reads back, without SQL and without business rules."""
