"""Staff requests with an Idempotency-Key: a repeat gets the stored answer and changes nothing."""
