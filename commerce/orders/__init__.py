"""Orders: checked and priced before Redis, persisted after it, and what happens to them from then on."""
