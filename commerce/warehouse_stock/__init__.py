"""Stock of warehouses: what is on hand, each movement of it, and what is allotted to sales."""
