"""Orders for staff: found by what a customer knows of them, and read whole."""
