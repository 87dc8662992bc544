"""The business: products, sales, orders. No HTTP and no process loops; the gateway and the workers stand on it."""
