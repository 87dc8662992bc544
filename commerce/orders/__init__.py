"""Orders: validated and priced before Redis, stored after it, then read, cancelled and advanced."""
